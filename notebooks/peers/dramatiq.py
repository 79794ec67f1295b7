"""dramatiq: actors on the threads of one worker, `confirm_delivery` on.

It waits for each confirm and cannot publish many at once; threads help it to wait for several. It
acks after the actor by default.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from peers.peer import Peer as Base

THREADS = 8  # its own default


class Peer(Base):
    """Two actors: one that works, and one whose queue has no consumer."""

    title = "dramatiq"
    share = 0.08

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        logging.getLogger("dramatiq").setLevel(logging.ERROR)
        self._broker = RabbitmqBroker(url=self.url, confirm_delivery=True)
        dramatiq.set_broker(self._broker)

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        text = body.decode()[1:-1]
        actor = self._actor(queue, None)
        actor.send(text)  # declares the queue and opens the connection; it counts as one of them
        started = time.perf_counter()
        for _ in range(messages - 1):
            actor.send(text)
        return time.perf_counter() - started

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        self._actor(source, self._actor(target, None))
        self._broker.declare_queue(target, ensure=True)
        worker = dramatiq.Worker(self._broker, queues={source}, worker_threads=THREADS)
        if prefetch is not None:
            worker.queue_prefetch = prefetch
        worker.start()
        yield worker
        worker.stop()

    def close(self) -> None:
        self._broker.close()

    def _actor(self, queue: str, following: Any) -> Any:
        name = f"pass_on_{queue}"
        self._broker.actors.pop(name, None)

        @dramatiq.actor(queue_name=queue, actor_name=name)
        def pass_on(text: str) -> None:
            if following is not None:
                following.send(text)

        return pass_on

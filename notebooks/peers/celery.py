"""Celery: a worker of its own process, late acks, confirms on, a large prefetch for short tasks.

Its guide on optimising wants a large `worker_prefetch_multiplier`, 64 or 128, for short tasks; what
is not measured (results, events, gossip) is off. It waits for each confirm, and does not ask for
what cannot be routed to be sent back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery
from kombu import Exchange, Queue

from peers.peer import Peer as Base

app = celery.Celery("peers.celery", broker=os.environ.get("RABBITMQ_URL"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    task_default_delivery_mode="persistent",
)
SOURCE, TARGET = os.environ.get("PEER_SOURCE", "source"), os.environ.get("PEER_TARGET", "target")


def queue_of(name: str) -> Queue:
    """A durable queue on the default exchange."""
    return Queue(name, Exchange(""), routing_key=name)


app.conf.task_queues = [queue_of(SOURCE)]


@app.task(name="pass_on")
def pass_on(text: str) -> None:
    """Send *text* to a queue without a consumer."""
    pass_on.apply_async((text,), queue=queue_of(TARGET))


class Peer(Base):
    """A client here and a worker in another process, as `celery worker` starts it."""

    title = "Celery"
    mandatory = False
    share = 0.08

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        text, place = body.decode()[1:-1], queue_of(queue)
        pass_on.apply_async((text,), queue=place)  # opens the connection; it counts as one of them
        started = time.perf_counter()
        for _ in range(messages - 1):
            pass_on.apply_async((text,), queue=place)
        return time.perf_counter() - started

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        processes = 2  # its default on two cores
        ahead = (
            []
            if prefetch is None
            else ["--prefetch-multiplier", str(max(1, prefetch // processes))]
        )
        command = [
            sys.executable, "-m", "celery", "-A", "peers.celery", "worker", "-Q", source,
            "-c", str(processes), *ahead,
            "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR",
        ]  # fmt: skip
        places = {"PEER_SOURCE": source, "PEER_TARGET": target, "C_FORCE_ROOT": "1"}
        worker: Any = subprocess.Popen(
            command, env=os.environ | places, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        yield worker
        worker.terminate()
        worker.wait(20)

    def close(self) -> None:
        app.close()

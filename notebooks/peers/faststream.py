"""FastStream: a subscriber with a publisher, confirms on by default, persistence asked for.

Publishing many is `asyncio.gather` here as well; `ack_policy` acks after the handler's result is
published, and the prefetch is the channel's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from peers.peer import Loop, in_windows
from peers.peer import Peer as Base

GATHERED = 500  # publishes awaited together; a guess


class Peer(Base):
    """Decorators on one loop."""

    title = "FastStream"
    share = 0.15

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._loop = Loop()

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        async def all_of_them() -> float:
            async with RabbitBroker(self.url, logger=None) as broker:
                return await in_windows(
                    lambda: broker.publish(
                        body, queue, persist=True, mandatory=True, content_type="application/json"
                    ),
                    messages, min(window, GATHERED) if window else 1,
                )  # fmt: skip

        return self._loop.run(all_of_them())

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        async def begin() -> RabbitBroker:
            broker = RabbitBroker(
                self.url, default_channel=Channel(prefetch_count=prefetch), graceful_timeout=10.0,
                logger=logging.getLogger("quiet"), log_level=logging.DEBUG,
            )  # fmt: skip

            @broker.subscriber(
                RabbitQueue(source, durable=True), ack_policy=AckPolicy.NACK_ON_ERROR
            )
            @broker.publisher(RabbitQueue(target, durable=True), persist=True, mandatory=True)
            async def handle(text: str) -> str:
                return text

            await broker.start()
            return broker

        broker = self._loop.run(begin())
        yield broker
        self._loop.run(broker.stop())

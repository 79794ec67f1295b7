"""aio-pika: confirms awaited by `asyncio.gather`, many in flight.

RabbitMQ's tutorial on publisher confirms, publishing in batches, in the way of asyncio.
Its callbacks are tasks, so the hop has as many publishes in flight as the prefetch allows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika

from peers.peer import Loop, in_windows
from peers.peer import Peer as Base

GATHERED = 500  # publishes awaited together; a guess


class Peer(Base):
    """Tasks on one loop."""

    title = "aio-pika"
    share = 0.25

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._loop = Loop()

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        async def all_of_them() -> float:
            async with await aio_pika.connect_robust(self.url) as connection:
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                exchange = channel.default_exchange
                return await in_windows(
                    lambda: exchange.publish(_message(body), queue, mandatory=True),
                    messages, min(window, GATHERED) if window else 1,
                )  # fmt: skip

        return self._loop.run(all_of_them())

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        busy: set[Any] = set()

        async def begin() -> Any:
            connection = await aio_pika.connect_robust(self.url)
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            if prefetch is not None:
                await channel.set_qos(prefetch_count=prefetch)
            exchange = channel.default_exchange

            async def handle(message: Any) -> None:
                busy.add(asyncio.current_task())
                async with message.process():
                    data = json.loads(message.body)
                    await exchange.publish(_message(json.dumps(data).encode()), target)
                busy.discard(asyncio.current_task())

            queue = await channel.get_queue(source)
            await queue.consume(handle)
            return connection

        async def end() -> None:
            await asyncio.gather(*busy)
            await connection.close()

        connection = self._loop.run(begin())
        yield connection
        self._loop.run(end())


def _message(body: bytes) -> aio_pika.Message:
    return aio_pika.Message(
        body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
    )

"""pika's BlockingConnection with confirms: each publish waits for its own.

The documented way: https://pika.readthedocs.io, "Using delivery confirmations with the
BlockingConnection". There is no way to have more than one publish in flight.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika

from peers.peer import Peer as Base

PROPERTIES = pika.BasicProperties(delivery_mode=2, content_type="application/json")


class Peer(Base):
    """One by one."""

    title = "pika blocking, one by one"
    share = 0.08

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        with pika.BlockingConnection(self.parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            started = time.perf_counter()
            for _ in range(messages):  # raises if refused or unroutable
                channel.basic_publish("", queue, body, PROPERTIES, mandatory=True)
            return time.perf_counter() - started

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        connection = pika.BlockingConnection(self.parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        if prefetch is not None:
            channel.basic_qos(prefetch_count=prefetch)

        def handle(channel: Any, method: Any, _: Any, body: bytes) -> None:
            data = json.loads(body)
            channel.basic_publish("", target, json.dumps(data), PROPERTIES, mandatory=True)
            channel.basic_ack(method.delivery_tag)

        channel.basic_consume(source, handle)
        with consuming(connection, channel):
            yield channel


@contextmanager
def consuming(connection: Any, channel: Any) -> Iterator[None]:
    """`start_consuming` on a thread, until the block ends."""
    thread = threading.Thread(target=channel.start_consuming, daemon=True)
    thread.start()
    yield
    connection.add_callback_threadsafe(channel.stop_consuming)
    thread.join(10)
    connection.close()

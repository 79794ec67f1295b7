"""The loop of the tutorial that mousetrap grew from, which is unsafe: not persistent, no confirm.

It is here as the yardstick of what people are used to, not as a peer of the same guarantees.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika

from peers.peer import Peer as Base
from peers.pika_blocking import consuming


class Peer(Base):
    """Fire and forget."""

    title = "the tutorial's loop (unsafe)"
    persistent = confirmed = mandatory = ack_last = False
    share = default_share = 0.5

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        with pika.BlockingConnection(self.parameters) as connection:
            channel = connection.channel()
            started = time.perf_counter()
            for _ in range(messages):
                channel.basic_publish(exchange="", routing_key=queue, body=body)
            # no confirms: an answer on the same channel comes after all publishes
            channel.queue_declare(queue, passive=True)
            return time.perf_counter() - started

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        connection = pika.BlockingConnection(self.parameters)
        channel = connection.channel()

        def callback(ch: Any, method: Any, properties: Any, body: bytes) -> None:
            data = json.loads(body)
            ch.basic_publish(exchange="", routing_key=target, body=json.dumps(data))
            ch.basic_ack(delivery_tag=method.delivery_tag)

        channel.basic_consume(queue=source, on_message_callback=callback)
        with consuming(connection, channel):
            yield channel

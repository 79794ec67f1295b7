"""pika's SelectConnection by hand: a window of publishes in flight, acks after confirms.

As in pika's examples of asynchronous publishers and consumers. No threads, no retries, no
reconnecting: what a careful person writes in an afternoon.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import pika
from pika import spec

from peers.peer import Peer as Base

PROPERTIES = pika.BasicProperties(delivery_mode=2, content_type="application/json")


class Peer(Base):
    """pika's callbacks, written by hand."""

    title = "pika SelectConnection"
    has_defaults = False

    def publish(self, queue: str, body: bytes, messages: int, window: int) -> float:
        found = {"sent": 0, "confirmed": 0, "started": 0.0, "took": 0.0}

        def fill(channel: Any) -> None:
            while found["sent"] < messages and found["sent"] - found["confirmed"] < window:
                channel.basic_publish("", queue, body, PROPERTIES, mandatory=True)
                found["sent"] += 1

        def opened(channel: Any) -> None:
            channel.confirm_delivery(
                lambda frame: confirmed(channel, frame), lambda _: begin(channel)
            )

        def begin(channel: Any) -> None:
            found["started"] = time.perf_counter()
            fill(channel)

        def confirmed(channel: Any, frame: Any) -> None:
            assert isinstance(frame.method, spec.Basic.Ack)
            tag = frame.method.delivery_tag
            found["confirmed"] = tag if frame.method.multiple else found["confirmed"] + 1
            if found["confirmed"] == messages:
                found["took"] = time.perf_counter() - found["started"]
                channel.connection.close()
            else:
                fill(channel)

        self._connection(opened).ioloop.start()
        return found["took"]

    @contextmanager
    def hop(self, source: str, target: str, prefetch: int, handlers: int) -> Iterator[object]:
        pending: dict[int, int] = {}  # tag of a publish -> tag of the delivery it came from

        def opened(channel: Any) -> None:
            channel.basic_qos(prefetch_count=prefetch)
            channel.confirm_delivery(
                lambda frame: confirmed(channel, frame),
                lambda _: channel.basic_consume(source, delivered),
            )

        def delivered(channel: Any, method: Any, _: Any, body: bytes) -> None:
            data = json.loads(body)
            channel.basic_publish("", target, json.dumps(data), PROPERTIES, mandatory=True)
            self._tag += 1
            pending[self._tag] = method.delivery_tag

        def confirmed(channel: Any, frame: Any) -> None:
            assert isinstance(frame.method, spec.Basic.Ack)
            last = frame.method.delivery_tag
            tags = [last]
            if frame.method.multiple:
                tags = list(takewhile(lambda tag: tag <= last, pending))
            for tag in tags:
                channel.basic_ack(pending.pop(tag))

        self._tag = 0
        connection = self._connection(opened)
        thread = threading.Thread(target=connection.ioloop.start, daemon=True)
        thread.start()
        yield connection

        def end() -> None:  # when the last confirms are here and their acks are sent
            if pending:
                connection.ioloop.call_later(0.01, end)
            else:
                connection.close()

        connection.ioloop.add_callback_threadsafe(end)
        thread.join(10)

    def _connection(self, opened: Callable[[Any], None]) -> pika.SelectConnection:
        connection = pika.SelectConnection(
            self.parameters, on_open_callback=lambda each: each.channel(on_open_callback=opened)
        )
        connection.add_on_close_callback(lambda each, _: each.ioloop.stop())
        return connection

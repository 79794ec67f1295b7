"""mousetrap itself, by its public names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mousetrap import Message, Publisher, Worker
from peers.peer import Peer as Base


def pass_on(text: str) -> str:
    """The handler: it does nothing, so the library takes all the time."""
    return text


class Peer(Base):
    """`publish_many`, and a worker."""

    title = "mousetrap"
    default_share = 1.0

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        text = body.decode()[1:-1]  # without its quotes: we encode each, as a caller's data is
        settings = self.settings.replace(namespace="")
        if window is not None:
            settings = settings.replace(max_in_flight=window)
        with Publisher(settings) as publisher:
            started = time.perf_counter()
            receipts = publisher.publish_many((Message(text) for _ in range(messages)), queue)
            publisher.flush(120)
            took = time.perf_counter() - started
        assert all(receipt.confirmed for receipt in receipts)
        return took

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        settings = self.settings.replace(namespace="")
        with Worker(source, pass_on, settings, writes=target, prefetch=prefetch,
                    concurrency=handlers) as worker:  # fmt: skip
            yield worker

"""What every peer can do, and what it guarantees while doing it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pika

from mousetrap.settings import Settings


class Peer:
    """A way to publish, and to move messages from one queue to another.

    `publish` returns the seconds from the first publish to the last confirm. `hop` works on the
    queue *source* for as long as its block lasts: decode, handle, encode, publish to *target*, ack.
    With None for *window* or *prefetch* it does what its library does unless told otherwise: the
    first example of its documentation, with the same guarantees.
    """

    title: ClassVar[str]
    persistent: ClassVar[bool] = True  # what it publishes survives a restart of the broker
    confirmed: ClassVar[bool] = True  # it learns from the broker that a message has arrived
    mandatory: ClassVar[bool] = True  # it asks the broker to return what cannot be routed
    ack_last: ClassVar[bool] = True  # a source is acked after its output is confirmed
    has_defaults: ClassVar[bool] = True  # false: written by hand, so there is nothing to leave out
    default_share: ClassVar[float] = 0.08  # of the messages of a round, with defaults: one by one
    share: ClassVar[float] = 1.0  # of the messages of a round; a slow peer gets fewer

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = settings.to_environment()["RABBITMQ_URL"]
        self.parameters = pika.URLParameters(self.url)

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        raise NotImplementedError

    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> AbstractContextManager[object]:
        raise NotImplementedError

    def close(self) -> None:
        """Leave no connection behind."""


class Loop:
    """An asyncio loop that runs on a thread of its own, for peers that need one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float = 120.0) -> Any:
        """Run *coroutine* on that loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)


async def in_windows(publish: Any, messages: int, window: int | None) -> float:
    """Await ``publish()`` *messages* times, *window* at a time; return the seconds."""
    started = time.perf_counter()
    for begin in range(0, messages, window):
        await asyncio.gather(*(publish() for _ in range(min(window, messages - begin))))
    return time.perf_counter() - started


def password_and_name(settings: Settings) -> dict[str, Any]:
    """The settings by the names that most libraries give them."""
    return {"host": settings.host, "port": settings.port, "username": settings.user,
            "password": settings.password, "vhost": settings.vhost}  # fmt: skip

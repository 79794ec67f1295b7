"""Who does the work: a few threads, or coroutines on a loop of their own. Never the I/O thread.

`ThreadExecutor` and `AsyncExecutor` have the same three methods, so that a worker need not care.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, Protocol, TypeVar

from mousetrap.runtime import clock, threads

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Executor(Protocol[T_contra]):
    """Take items from any thread and handle at most so many at a time."""

    def start(self) -> None:
        """Begin to work."""

    def take(self, item: T_contra) -> None:
        """Handle *item* when a hand is free; never blocks."""

    def stop(self, timeout: float) -> bool:
        """Let each hand finish what it has in hand; say whether all did within *timeout* s."""


class ThreadExecutor(Generic[T]):
    """*concurrency* daemon threads: one that hangs cannot keep the process from ending.

    *handle* deals with the errors of what it handles; one that escapes it is a defect, which
    *on_crash* is told, because a hand that dies silently is a worker that stops silently.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        concurrency: int,
        name: str,
        on_crash: Callable[[BaseException], object],
    ) -> None:
        self._handle = handle
        self._on_crash = on_crash
        self._items: threads.SimpleQueue[T | None] = threads.SimpleQueue()
        self._threads = [
            threads.Thread(target=self._work, name=f"mousetrap-{name}-{n}", daemon=True)
            for n in range(concurrency)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def take(self, item: T) -> None:
        """Handle *item* when a thread is free; never blocks."""
        self._items.put(item)

    def stop(self, timeout: float) -> bool:
        """Let each thread finish its item; say whether all did within *timeout* s."""
        deadline = clock.monotonic() + timeout
        for _ in self._threads:
            self._items.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - clock.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        try:
            while (item := self._items.get()) is not None:
                self._handle(item)
        except BaseException as error:
            self._on_crash(error)
            raise


class AsyncExecutor(Generic[T]):
    """*concurrency* coroutines on one event loop in a thread of its own; see `ThreadExecutor`."""

    def __init__(
        self,
        handle: Callable[[T], Coroutine[None, None, None]],
        concurrency: int,
        name: str,
        on_crash: Callable[[BaseException], object],
    ) -> None:
        self._handle = handle
        self._on_crash = on_crash
        self._concurrency = concurrency
        self._loop = asyncio.new_event_loop()
        self._items: asyncio.Queue[T | None] = asyncio.Queue()
        self._thread = threads.Thread(target=self._run, name=f"mousetrap-{name}-loop", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def take(self, item: T | None) -> None:
        """Handle *item* when a coroutine is free; never blocks."""
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def stop(self, timeout: float) -> bool:
        """Let each coroutine finish its item; say whether all did within *timeout* s."""
        if self._thread.ident is None:
            self._loop.close()
            return True
        if self._thread.is_alive():
            for _ in range(self._concurrency):
                self.take(None)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        async def work() -> None:
            while (item := await self._items.get()) is not None:
                await self._handle(item)

        async def all_hands() -> None:
            await asyncio.gather(*(work() for _ in range(self._concurrency)))

        try:
            self._loop.run_until_complete(all_hands())
        except BaseException as error:
            self._on_crash(error)
            raise
        finally:
            self._loop.close()

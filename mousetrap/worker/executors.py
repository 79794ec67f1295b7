"""Executors call handlers: on a few threads, or as coroutines on an event loop of their own.

Handlers never run on the I/O thread. `ThreadExecutor` and `AsyncExecutor` have the same three
methods, those of `Executor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from mousetrap.runtime import clock, forks, threads

_loops_of_parent: list[asyncio.AbstractEventLoop] = []  # never closed here
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Executor(Protocol[T_contra]):
    """Accepts items from any thread and handles a limited number of them at a time."""

    def start(self) -> None:
        """Start to handle items, those that were submitted before included."""

    def submit(self, item: T_contra) -> None:
        """Have *item* handled when there is capacity; never blocks."""

    def stop(self, timeout: float) -> bool:
        """Handle what was submitted before, then end; say whether it ended in *timeout* s."""


class ThreadExecutor(Generic[T]):
    """Handles items on *concurrency* daemon threads: the process can exit while one of them hangs.

    *handle* must handle the errors of its item. An exception that it raises is a defect and ends
    the thread; *on_crash* is called with it, so that the worker does not stop silently.

    Threads: `submit` from any; *on_crash* is called on the thread that ends.
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
        """Start to handle items, those that were submitted before included."""
        for thread in self._threads:
            thread.start()

    def submit(self, item: T) -> None:
        """Have *item* handled when a thread is free; never blocks."""
        self._items.put(item)

    def stop(self, timeout: float) -> bool:
        """Handle what was submitted before, then end; say whether all ended in *timeout* s."""
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
    """Handles items in *concurrency* coroutines on one event loop in a thread of its own.

    For *handle*, *on_crash* and threads see `ThreadExecutor`.
    """

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
        forks.watch(self)

    def start(self) -> None:
        """Start to handle items, those that were submitted before included."""
        self._thread.start()

    def submit(self, item: T | None) -> None:
        """Have *item* handled when a coroutine is free; never blocks."""
        with suppress(RuntimeError):  # the loop is closed: it crashed, which *on_crash* reported
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def stop(self, timeout: float) -> bool:
        """Handle what was submitted before, then end; say whether it ended in *timeout* s."""
        if self._thread.ident is None:
            self._loop.close()
            return True
        if self._thread.is_alive():
            for _ in range(self._concurrency):
                self.submit(None)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def forked(self) -> None:
        """Make a loop of its own in a forked child: the selector is the parent's, too."""
        _loops_of_parent.append(self._loop)
        if self._thread.ident is None:
            self._loop, self._items = asyncio.new_event_loop(), asyncio.Queue()

    def _run(self) -> None:
        async def work() -> None:
            while (item := await self._items.get()) is not None:
                await self._handle(item)

        async def work_all() -> None:
            await asyncio.gather(*(work() for _ in range(self._concurrency)))

        try:
            self._loop.run_until_complete(work_all())
        except BaseException as error:
            self._on_crash(error)
            raise
        finally:
            self._loop.close()

"""Executors call handlers: on a few threads, or as coroutines on an event loop of their own.

Handlers never run on the I/O thread. `ThreadExecutor` and `AsyncExecutor` have the same methods,
those of `Executor`. A handler that does not return can be abandoned: another thread or coroutine
takes its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import Waiter

_loops_of_parent: list[asyncio.AbstractEventLoop] = []  # never closed here
T = TypeVar("T")
OnCrash: TypeAlias = Callable[[BaseException], object]

# What `stuck_for` returns if the event loop itself hangs in a handler: no coroutine can go on.
ALL_STUCK = sys.maxsize

LOOP_HANGS_AFTER = 0.5  # seconds without an answer from an event loop; a guess
TASK_END_TIMEOUT = 0.5  # seconds for coroutines that were cancelled to end, when the loop ends


class Executor(Protocol[T]):
    """Accepts items from any thread and handles a limited number of them at a time."""

    def start(self) -> None:
        """Start to handle items, those that were submitted before included."""

    def submit(self, item: T) -> None:
        """Have *item* handled when there is capacity; never blocks."""

    def stop(self, timeout: float) -> bool:
        """Handle what was submitted before, then end; say whether it ended in *timeout* s.

        Items that were abandoned are not waited for.
        """

    def busy(self) -> list[T]:
        """Return the items that are being handled, without those that were abandoned."""

    def abandon(self, item: T) -> None:
        """Wait for *item* no longer: others are handled in its place. A coroutine is cancelled.

        The handler may still run, because Python cannot end a thread. Does nothing if *item* has
        been handled in the meantime.
        """

    def stuck_for(self, seconds: float) -> int:
        """Return how many items were abandoned that long ago and are still being handled.

        `ALL_STUCK` if nothing can go on.
        """

    @property
    def is_idle(self) -> bool:
        """Whether fewer items are being handled than could be."""

    @property
    def abandoned(self) -> int:
        """How many items were abandoned, whether they have been handled since or not."""


class ThreadExecutor(Generic[T]):
    """Handles items on *concurrency* daemon threads: the process can exit while one of them hangs.

    *handle* must handle the errors of its item. An exception that it raises is a defect and ends
    the thread; *on_crash* is called with it, so that the worker does not stop silently.

    Threads: every method from any; *on_crash* is called on the thread that ends.
    """

    def __init__(
        self,
        handle: Callable[[T], None],
        concurrency: int,
        name: str,
        on_crash: OnCrash,
    ) -> None:
        self._handle = handle
        self._on_crash = on_crash
        self._name = name
        self._numbers = count()
        self._items: threads.SimpleQueue[T | None] = threads.SimpleQueue()
        self._lock = forks.released_in_child(threads.Lock())  # guards `_threads` and `_is_stopping`
        self._is_stopping = False
        # The thread that removes an item from this mapping decides whether it was handled or
        # abandoned: removing is one atomic step.
        self._busy: dict[T, threads.Thread] = {}
        self._stuck: dict[threads.Thread, float] = {}  # and when its item was abandoned
        self.abandoned = 0
        self._threads = {self._new_thread() for _ in range(concurrency)}
        self._changed = Waiter()  # notified when a thread has ended or was abandoned

    def start(self) -> None:
        """Start to handle items, those that were submitted before included."""
        for thread in tuple(self._threads):
            thread.start()

    def submit(self, item: T) -> None:
        """Have *item* handled when a thread is free; never blocks."""
        self._items.put(item)

    def stop(self, timeout: float) -> bool:
        """Handle what was submitted before, then end; say whether all ended in *timeout* s."""
        with self._lock:
            self._is_stopping = True
            for _ in self._threads:
                self._items.put(None)
        # not `join`: a thread may be abandoned while this waits
        return self._changed.wait_for(self._has_ended, timeout)

    def busy(self) -> list[T]:
        """Return the items that are being handled, without those that were abandoned."""
        return list(self._busy)

    @property
    def is_idle(self) -> bool:
        """Whether fewer items are being handled than there are threads."""
        return len(self._busy) < len(self._threads)

    def abandon(self, item: T) -> None:
        """Have another thread take the place of the one that handles *item*, if one still does."""
        if (stuck := self._busy.pop(item, None)) is None:
            return
        with self._lock:
            self._stuck = {each: at for each, at in self._stuck.items() if each.is_alive()}
            self._stuck[stuck] = clock.monotonic()
            self.abandoned += 1
            self._threads.discard(stuck)
            replacement = None if self._is_stopping else self._new_thread()
            if replacement is not None:
                self._threads.add(replacement)
        if replacement is not None:
            replacement.start()
        self._changed.notify_all()

    def stuck_for(self, seconds: float) -> int:
        """Return how many threads still run a handler that was abandoned that long ago."""
        before = clock.monotonic() - seconds
        with self._lock:
            return sum(at <= before and each.is_alive() for each, at in self._stuck.items())

    def _new_thread(self) -> threads.Thread:
        name = f"mousetrap-{self._name}-{next(self._numbers)}"
        return threads.Thread(target=self._work, name=name, daemon=True)

    def _has_ended(self) -> bool:
        with self._lock:
            return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        this_thread = threads.current_thread()
        try:
            while (item := self._items.get()) is not None:
                self._busy[item] = this_thread
                self._handle(item)
                if self._busy.pop(item, None) is None:  # abandoned: another thread has its place
                    return
        except BaseException as error:
            self._on_crash(error)
            raise
        finally:
            with self._lock:
                self._threads.discard(this_thread)
            self._changed.notify_all()


class AsyncExecutor(Generic[T]):
    """Handles items in *concurrency* coroutines on one event loop in a thread of its own.

    For *handle*, *on_crash* and threads see `ThreadExecutor`.
    """

    def __init__(
        self,
        handle: Callable[[T], Coroutine[None, None, None]],
        concurrency: int,
        name: str,
        on_crash: OnCrash,
    ) -> None:
        self._handle = handle
        self._on_crash = on_crash
        self._concurrency = concurrency
        self._loop = asyncio.new_event_loop()
        self._items: asyncio.Queue[T | None] = asyncio.Queue()
        self._busy: dict[T, asyncio.Task[Any]] = {}  # as in `ThreadExecutor`
        # When `abandon` was called, if the loop has not carried it out yet, on the monotonic clock.
        self._unanswered: deque[float] = deque()
        self.abandoned = 0
        self._changed = Waiter()  # notified when the loop has ended
        self._has_run = False
        self._lock = forks.released_in_child(threads.Lock())  # guards `abandoned`, `_unanswered`
        self._is_stopping = False
        self._thread = threads.Thread(target=self._run, name=f"mousetrap-{name}-loop", daemon=True)
        forks.watch(self)
        # On the loop only:
        self._ended: asyncio.Future[None]
        self._working: set[asyncio.Task[Any]] = set()
        self._stuck: dict[asyncio.Task[Any], float] = {}  # and when its item was abandoned

    def start(self) -> None:
        """Start to handle items, those that were submitted before included."""
        self._thread.start()

    def submit(self, item: T | None) -> None:
        """Have *item* handled when a coroutine is free; never blocks."""
        self._call(lambda: self._items.put_nowait(item))

    def stop(self, timeout: float) -> bool:
        """Handle what was submitted before, then end; say whether it ended in *timeout* s."""
        if self._thread.ident is None:
            self._loop.close()
            return True
        self._is_stopping = True
        if self._thread.is_alive():
            for _ in range(self._concurrency):
                self.submit(None)
        return self._changed.wait_for(self._has_ended, timeout)

    def forked(self) -> None:
        """Make a loop of its own in a forked child: the selector is the parent's, too."""
        _loops_of_parent.append(self._loop)
        if self._thread.ident is None:
            self._loop, self._items = asyncio.new_event_loop(), asyncio.Queue()

    def busy(self) -> list[T]:
        """Return the items that are being handled, without those that were abandoned."""
        return list(self._busy)

    @property
    def is_idle(self) -> bool:
        """Whether fewer items are being handled than there are coroutines."""
        return len(self._busy) < self._concurrency

    def abandon(self, item: T) -> None:
        """Cancel the coroutine that handles *item*; another one takes its place."""
        if (stuck := self._busy.pop(item, None)) is None:
            return
        with self._lock:
            self._unanswered.append(clock.monotonic())
            self.abandoned += 1

        def carry_out() -> None:
            with self._lock:
                abandoned = self._unanswered.popleft()
            if not stuck.done():
                self._stuck[stuck] = abandoned
                stuck.cancel()
            if not self._is_stopping:
                self._start_coroutine()
            self._working.discard(stuck)
            self._end_if_done()

        self._call(carry_out)

    def stuck_for(self, seconds: float) -> int:
        """Return how many coroutines have swallowed their cancellation for that long.

        `ALL_STUCK` if the loop hangs.
        """
        if not self._thread.is_alive():
            return 0
        before = clock.monotonic() - seconds
        if self._hangs():
            return ALL_STUCK
        return sum(at <= before for at in list(self._stuck.values()))

    def _has_ended(self) -> bool:
        if self._has_run or not self._thread.is_alive():
            return True
        # an abandoned item blocks the loop, so nothing that was submitted can be handled
        return not self._busy and self._hangs()

    def _hangs(self) -> bool:
        with self._lock:
            oldest = self._unanswered[0] if self._unanswered else None
        return oldest is not None and clock.monotonic() - oldest > LOOP_HANGS_AFTER

    def _call(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: it crashed, which *on_crash* reported
            self._loop.call_soon_threadsafe(function)

    def _start_coroutine(self) -> None:
        task = self._loop.create_task(self._work())
        self._working.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        self._stuck.pop(task, None)
        if not self._ended.done() and not task.cancelled() and (error := task.exception()):
            self._ended.set_exception(error)  # a defect
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._working and not self._ended.done():
            self._ended.set_result(None)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while (item := await self._items.get()) is not None:
            self._busy[item] = task
            await self._handle(item)
            if self._busy.pop(item, None) is None:  # abandoned: another coroutine has its place
                return

    async def _work_all(self) -> None:
        self._ended = self._loop.create_future()
        for _ in range(self._concurrency):
            self._start_coroutine()
        await self._ended
        if self._stuck:  # they were cancelled: let them clean up
            await asyncio.wait(self._stuck, timeout=TASK_END_TIMEOUT)
        for task in self._stuck:  # no word about them at the end of the loop: they are void
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio does

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._work_all())
        except BaseException as error:
            self._on_crash(error)
            raise
        finally:
            self._loop.close()
            self._has_run = True
            self._changed.notify_all()

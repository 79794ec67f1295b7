"""The thread on which connections do their input and output.

A worker's two connections share one, and all connections of a run: a confirm on one connection
causes an ack on another, and switching threads for that would cost more than the work itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pika.adapters.select_connection import IOLoop

from mousetrap.amqp.pika_log import silence_thread
from mousetrap.display.cell_log import install_cell_log
from mousetrap.errors import ConnectionLost
from mousetrap.model.retry_policy import traceback_of
from mousetrap.runtime import forks, threads

_loops_of_parent: list[Any] = []
log = logging.getLogger("mousetrap.amqp.io_thread")


class Loop(IOLoop):
    """pika's I/O loop, which is woken only while it sleeps.

    It also has functions that are called at the end of the present turn. pika's own way, a timer of
    zero seconds, costs more than most of these functions, and its search for a timer as well.
    """

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []  # I/O thread only
        self._may_sleep = False
        super().__init__()

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call *callback* soon on the loop's thread."""
        # In this order: the loop looks for callbacks after it has set `_may_sleep`.
        self._callbacks.append(callback)
        if self._may_sleep:
            self._poller.wake_threadsafe()

    def process_timeouts(self) -> None:
        """Call what is due; the poller calls this once per turn, after it has read and written."""
        self._may_sleep = False
        for _ in range(len(self._callbacks)):  # those that these add belong to the next turn
            self._callbacks.popleft()()
        self._timer.process_timeouts()
        for function in self.soon:  # grows while these functions submit others
            function()
        self.soon.clear()

    def _get_remaining_interval(self) -> float | None:
        """Return how long the poller may sleep, in seconds; it asks before each turn."""
        self._may_sleep = True
        return super()._get_remaining_interval()


class Member(Protocol):
    """A connection that runs on an `IOThread`."""

    def crashed(self, error: BaseException) -> None:
        """Handle the end of the thread by *error*, which is a defect; called on the thread."""

    def forked(self) -> None:
        """Become unusable in a forked child, which has no such thread."""


class IOThread:
    """A thread that runs pika's I/O loop, from its first member's `attach` to the last `detach`.

    Threads: `detach` on the thread itself, the rest from any.
    """

    def __init__(self, name: str) -> None:
        self.io: Any = Loop()
        self._members: set[Member] = set()
        self._lock = forks.released_in_child(threads.Lock())  # guards the members
        self._is_over = False
        self._is_parents = False  # the thread is one of the process that this one was forked from
        install_cell_log()
        self._thread = threads.Thread(target=self._run, name=f"mousetrap-io {name}", daemon=True)
        forks.watch(self)

    def attach(self, member: Member) -> None:
        """Add *member*; the first one starts the thread.

        Raises:
            ConnectionLost: the thread has ended, because all members were detached or it crashed.
        """
        with self._lock:
            if self._is_over:
                raise ConnectionLost(
                    "the connection that shared this I/O thread has ended; make a new one"
                )
            is_first = not self._members
            self._members.add(member)
        if is_first:
            self._thread.start()

    def detach(self, member: Member) -> None:
        """Remove *member*; the last one ends the thread."""
        with self._lock:
            self._members.discard(member)
            self._is_over = not self._members
        if self._is_over:
            self.io.stop()

    def discard(self) -> None:
        """Close the loop of a thread that was never started; otherwise do nothing."""
        with self._lock:
            if self.has_started or self._is_over:
                return
            self._is_over = True
        self.io.close()

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* on this thread soon; it is dropped if the thread has ended."""
        if self._is_parents:  # its loop would be woken
            return
        with suppress(Exception):  # the loop has just been closed
            self.io.add_callback_threadsafe(function)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Do what `call` does; on this thread it is faster, because the loop need not be woken.

        A function submitted on this thread runs at the end of the present turn of the loop, after
        those that were submitted before it. Functions that it submits run in the same turn.
        """
        if self.is_current_thread:
            self.io.soon.append(function)
        else:
            self.call(function)

    def join(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for the thread's end, if its last member was detached."""
        if self._is_over and self.has_started and not self.is_current_thread:
            self._thread.join(timeout)

    @property
    def has_started(self) -> bool:
        """Whether the thread has been started."""
        return self._thread.ident is not None

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs on this thread."""
        return threads.get_ident() == self._thread.ident

    def forked(self) -> None:
        """Forget the loop in a forked child: its sockets and its selector are the parent's, too."""
        if self._is_over:
            return
        _loops_of_parent.append(self.io)  # never closed
        if not self.has_started:
            self.io = Loop()
            return
        self._is_over = self._is_parents = True
        for member in tuple(self._members):
            member.forked()

    def _run(self) -> None:
        silence_thread()
        try:
            self.io.start()
        except BaseException as error:  # noqa: BLE001 -- its connections fail with it
            for member in tuple(self._members):
                member.crashed(error)
            self._members.clear()
            trace = traceback_of(error)  # as text: the exception may be one that cannot be shown
            log.error("the I/O thread ended by an exception: its connections failed\n%s", trace)  # noqa: TRY400
        finally:
            self._is_over = True
            with suppress(Exception):  # a loop that raised may not close cleanly either
                self.io.close()

"""The thread on which connections do their input and output.

A worker's two connections share one: what the one hears is what makes the other speak, and a
change of thread costs more than the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pika.adapters.select_connection import IOLoop

from mousetrap.errors import ConnectionLost
from mousetrap.runtime import threads

log = logging.getLogger("mousetrap.amqp.connection")


class Member(Protocol):
    """Who lives on a `IOThread`."""

    def crashed(self, error: BaseException) -> None:
        """The thread has died of *error*, a defect; called there."""


class IOThread:
    """One thread and pika's loop in it, from the first member that enters to the last that leaves.

    Threads: `attach`, `call` and `join` from any, the rest on the loop's own.
    """

    def __init__(self, name: str) -> None:
        self.io: Any = IOLoop()
        self._members: set[Member] = set()
        self._lock = threads.Lock()  # guards the members
        self._soon: list[Callable[[], object]] = []
        self._is_over = False
        self._thread = threads.Thread(target=self._run, name=f"mousetrap-io {name}", daemon=True)

    def attach(self, member: Member) -> None:
        """Live here from now on; the first one starts the thread.

        Raises:
            ConnectionLost: all who lived here have left, and the thread has ended.
        """
        with self._lock:
            if self._is_over:
                raise ConnectionLost("the connection that shared this I/O thread has ended")
            is_first = not self._members
            self._members.add(member)
        if is_first:
            self._thread.start()

    def detach(self, member: Member) -> None:
        """Live here no longer; the last one ends the thread."""
        with self._lock:
            self._members.discard(member)
            self._is_over = not self._members
        if self._is_over:
            self.io.stop()

    def discard(self) -> None:
        """It was not needed, unless somebody lives or has lived here."""
        with self._lock:
            if self.has_started or self._is_over:
                return
            self._is_over = True
        self.io.close()

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* here soon; dropped when the thread has ended."""
        with suppress(Exception):  # a loop that has just been closed: nobody is left to call
            self.io.add_callback_threadsafe(function)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Do what `call` does; on this thread itself without waking it, which costs two turns.

        What is handed over there runs at the end of the turn, in the order of handing over, and
        what that hands over, too.
        """
        if not self.is_current_thread:
            self.call(function)
            return
        self._soon.append(function)
        if len(self._soon) == 1:
            self.io.call_later(0, self._do_soon)

    def join(self, timeout: float) -> None:
        """Wait for the thread's end if its last member has left."""
        if self._is_over and self.has_started and not self.is_current_thread:
            self._thread.join(timeout)

    @property
    def has_started(self) -> bool:
        """Somebody lives here, or has."""
        return self._thread.ident is not None

    @property
    def is_current_thread(self) -> bool:
        """The caller runs on this thread."""
        return threads.get_ident() == self._thread.ident

    def _do_soon(self) -> None:
        for function in self._soon:  # and what these add
            function()
        self._soon.clear()

    def _run(self) -> None:
        try:
            self.io.start()
        except BaseException as error:
            log.exception("the I/O thread died")
            for member in tuple(self._members):
                member.crashed(error)
            self._members.clear()
        finally:
            self._is_over = True
            with suppress(Exception):  # a loop that broke may not close cleanly either
                self.io.close()

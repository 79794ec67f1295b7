"""What an interrupt ends, and what it does not: waiting ends at once, closing goes on to its end.

Ctrl-C, or a notebook's stop button, raises KeyboardInterrupt in the main thread, between any two
steps of whatever it is doing. So nothing that others need may be in the main thread's hands while
it waits.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from mousetrap.runtime import clock, threads

log = logging.getLogger("mousetrap.runtime.interrupt")

WAIT_INTERVAL = 0.25  # seconds; on Windows an interrupt is heard between two of them only
INTERRUPTED_TIMEOUT = (
    0.5  # seconds that who was interrupted waits for a closing, which is quick as a rule
)


class Waiter:
    """Wakes whoever waits when something may have changed.

    For waiting it does what a `threads.Condition` does, or an event, but has no lock of its own:
    theirs is taken and given back in Python code, and an interrupt just then leaves it locked, for
    the I/O thread too, or makes a RuntimeError of it (two interrupts in a row: 3 times of 30).

    Threads: any.
    """

    def __init__(self) -> None:
        self._sleepers: list[threads.Lock] = []  # locked; released to wake who waits for it

    def notify_all(self) -> None:
        """Have everybody who waits look again."""
        for sleeper in tuple(self._sleepers):
            with suppress(RuntimeError):  # released before, and not asleep yet
                sleeper.release()

    def wait_for(self, reached: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until *reached*, asked at each ring; say whether it was within *timeout* seconds."""
        deadline = None if timeout is None else clock.monotonic() + timeout
        sleeper = threads.Lock()
        sleeper.acquire()
        try:
            self._sleepers.append(sleeper)
            while not reached():
                left = WAIT_INTERVAL
                if deadline is not None:
                    left = min(left, deadline - clock.monotonic())
                if left <= 0:
                    return reached()
                sleeper.acquire(timeout=left)
            return True
        finally:
            with suppress(ValueError):
                self._sleepers.remove(sleeper)


def run_uninterrupted(work: Callable[[], object], *, daemon: bool = False) -> None:
    """Do *work* to its end and return or raise as it does, unless the caller is interrupted.

    An interrupt ends the waiting and not the work, whose error is then logged. Whoever calls this
    on the way out of an interrupt (in a ``finally``, at the end of a ``with`` block) is not kept
    waiting for more than `INTERRUPTED_TIMEOUT`. The interpreter exits after the work is done only,
    so have it bounded; a *daemon* may be cut short.
    """
    if not threads.is_main():
        work()  # only the main thread is ever interrupted
        return
    patience = INTERRUPTED_TIMEOUT if is_interrupted() else None
    again = _Postponed()  # a second interrupt must not come between the caller and the thread
    try:
        closing = start_in_thread(work, daemon=daemon, is_left=False)
    except RuntimeError:  # the interpreter is going down: no new threads, and nobody interrupts
        again.forget()
        work()
        return
    try:
        again.deliver()
        closing.ended.wait_for(lambda: closing.has_ended, patience)
    finally:
        closing.is_left = not closing.has_ended
    if closing.error is not None:
        raise closing.error


def start_in_thread(
    work: Callable[[], object], *, daemon: bool = False, is_left: bool = True
) -> BackgroundTask:
    """Have *work* done on a thread of its own; its error is logged if nobody waits for it.

    Raises:
        RuntimeError: the interpreter is going down.
    """
    closing = BackgroundTask(is_left)

    def do() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- handed on, or logged
            closing.error = error
        closing.has_ended = True
        closing.ended.notify_all()
        if closing.is_left and closing.error is not None:
            log.warning("%s", closing.error)

    threads.Thread(target=do, name="mousetrap-closing", daemon=daemon).start()
    return closing


class BackgroundTask:
    """How far some work of `start_in_thread` is."""

    def __init__(self, is_left: bool) -> None:
        self.error: BaseException | None = None
        self.has_ended = False
        self.ended = Waiter()
        self.is_left = is_left  # nobody waits for it


class _Postponed:
    """Keeps interrupts from the main thread until they are delivered; made there."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, FrameType | None]] = []
        self._before = signal.getsignal(signal.SIGINT)
        if callable(self._before):
            signal.signal(signal.SIGINT, lambda *heard: self._heard.append(heard))

    def forget(self) -> None:
        if callable(self._before):
            signal.signal(signal.SIGINT, self._before)

    def deliver(self) -> None:
        self.forget()
        if self._heard and callable(self._before):
            self._before(*self._heard[0])


def is_interrupted() -> bool:
    """Say whether the caller is on its way out of an interrupt."""
    return isinstance(sys.exc_info()[1], KeyboardInterrupt)

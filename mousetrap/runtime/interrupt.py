"""Waiting that Ctrl-C ends at once, and closing that it does not cut short.

Ctrl-C, or a notebook's stop button, raises KeyboardInterrupt in the main thread, between any two
steps of whatever it is doing. So the main thread must not hold anything that other threads need
while it waits.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from mousetrap.runtime import clock, postponed_interrupts, threads

log = logging.getLogger("mousetrap.runtime.interrupt")

WAIT_INTERVAL = 0.25  # seconds; on Windows an interrupt takes effect only between two of them
INTERRUPTED_TIMEOUT = 0.5  # seconds that an interrupted caller waits for closing, mostly enough

# The signals for which programs install handlers; those of an error in the process are not here.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGPROF",
                 "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)
]  # fmt: skip


class Waiter:
    """A condition without a lock: threads wait until something is true, others notify them.

    `threads.Condition` and `threads.Event` have a lock that Python code acquires and releases. An
    interrupt between these steps leaves it locked, also for the I/O thread, or raises RuntimeError
    (3 times of 30, with two interrupts in a row).

    Threads: any.
    """

    def __init__(self) -> None:
        self._sleepers: list[threads.Lock] = []  # each is locked, and released to wake its thread

    def notify_all(self) -> None:
        """Make every waiting thread check its condition again."""
        for sleeper in tuple(self._sleepers):
            with suppress(RuntimeError):  # released already, and its thread does not sleep yet
                sleeper.release()

    def wait_for(self, reached: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until *reached* returns True; return whether it did within *timeout* seconds.

        *reached* is called after each notification, and every `WAIT_INTERVAL`.
        """
        deadline = None if timeout is None else clock.monotonic() + timeout
        sleeper = threads.Lock()
        sleeper.acquire()
        try:
            self._sleepers.append(sleeper)
            while not reached():
                postponed_interrupts.raise_if_overdue()
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
    """Run *work* to its end, and return or raise as it does, unless the caller is interrupted.

    An interrupt ends the caller's wait but not *work*, whose error is then logged. A caller that is
    already leaving because of an interrupt (in a ``finally``, at the end of a ``with`` block) waits
    for `INTERRUPTED_TIMEOUT` at most. The interpreter exits only after *work* has ended, so *work*
    must have a time limit; a *daemon* is ended with the interpreter.
    """
    if not threads.is_main():
        work()  # only the main thread is ever interrupted
        return
    timeout = INTERRUPTED_TIMEOUT if is_interrupted() else None
    postponed = _PostponedInterrupts()  # none may come between the caller and the new thread
    try:
        task = start_in_thread(work, daemon=daemon, logs_error=False)
    except RuntimeError:  # the interpreter is exiting: no new threads, and no interrupts
        postponed.restore()
        work()
        return
    try:
        postponed.deliver()
        task.ended.wait_for(lambda: task.has_ended, timeout)
    finally:
        task.logs_error = not task.has_ended
    if task.error is not None:
        raise task.error


def start_in_thread(
    work: Callable[[], object], *, daemon: bool = False, logs_error: bool = True
) -> BackgroundTask:
    """Run *work* in a thread of its own; its error is logged if *logs_error*.

    Raises:
        RuntimeError: the interpreter is exiting.
    """
    task = BackgroundTask(logs_error)

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- raised by the caller, or logged
            task.error = error
        task.has_ended = True
        task.ended.notify_all()
        if task.logs_error and task.error is not None:
            log.warning("%s", task.error)

    threads.Thread(target=run, name="mousetrap-closing", daemon=daemon).start()
    return task


def run_at_once(works: Sequence[Callable[[], object]]) -> None:
    """Run all *works* at the same time, each in a thread of its own; return when all have ended.

    Raises the error of the first that raised one; the others end all the same.
    """
    tasks = []
    with ExitStack() as later:
        for work in works:
            try:
                tasks.append(start_in_thread(work, logs_error=False))
            except RuntimeError:  # the interpreter is exiting: no new threads
                later.callback(work)
    for task in tasks:
        task.ended.wait_for(lambda task=task: task.has_ended)  # type: ignore[misc]
    if errors := [task.error for task in tasks if task.error is not None]:
        raise errors[0]


@contextmanager
def interrupts_postponed() -> Iterator[None]:
    """Have Ctrl-C and other signals take effect after the block, which must not wait."""
    if not threads.is_main():
        yield
        return
    postponed = _PostponedInterrupts()
    try:
        yield
    finally:
        postponed.deliver()


class BackgroundTask:
    """The state of some work that runs in a thread of its own."""

    def __init__(self, logs_error: bool) -> None:
        self.error: BaseException | None = None
        self.has_ended = False
        self.ended = Waiter()
        self.logs_error = logs_error  # no caller waits for it


class _PostponedInterrupts:
    """Keeps signals with a handler away from the main thread until `deliver`.

    Made in the main thread. Any handler may raise, not only Ctrl-C's: that of SIGTERM often raises
    SystemExit, and that of SIGALRM a time-out.
    """

    def __init__(self) -> None:
        self._received: dict[int, FrameType | None] = {}  # once each, however often it came
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # otherwise the signal is ignored, or ends the process
                self._before[number] = handler
                signal.signal(number, self._received.__setitem__)

    def restore(self) -> None:
        with ExitStack() as steps:  # all of them, even if one signal arrives in between
            for number, handler in self._before.items():
                steps.callback(signal.signal, number, handler)

    def deliver(self) -> None:
        self.restore()
        if self._received:
            with ExitStack() as steps:  # each of them, also if one raises
                for number, frame in reversed(self._received.items()):
                    steps.callback(self._before[number], number, frame)


def is_interrupted() -> bool:
    """Return whether the caller is leaving because of an interrupt."""
    return isinstance(sys.exc_info()[1], KeyboardInterrupt)

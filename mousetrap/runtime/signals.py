"""Runs a worker until a signal arrives, its parent process ends, or the worker itself fails."""

from __future__ import annotations

import _thread
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from mousetrap.runtime import clock, threads
from mousetrap.runtime.environment import is_kernel
from mousetrap.runtime.interrupt import Waiter, start_in_thread

# Seconds for the messages in progress after a signal. Container engines kill ten seconds after
# SIGTERM by default, and giving back what is not finished, closing and the exit take up to three.
STOP_TIMEOUT = 6.0
HANDLERS_EXIT_TIMEOUT = 1.0  # seconds for the interpreter to exit while handlers still run
FAILURE_CHECK_INTERVAL = 0.2  # seconds within which a failure of the worker is noticed


class Service(Protocol):
    """What `run_until_signalled` can run: a `Worker`, or a supervisor of several processes."""

    def start(self) -> object:
        """Start; raises an error if that is not possible."""

    def wait(self, timeout: float, /) -> bool:
        """Check for *timeout* seconds that it can go on; raises the error that prevents it."""

    def stop(self, timeout: float, /) -> None:
        """Stop; messages in progress have *timeout* seconds to finish."""


class _SignalledWhileStarting(KeyboardInterrupt):
    """A signal arrived during the start. It is an interrupt, so that it ends whatever waits."""


def run_until_signalled(
    worker: Service,
    *,
    stop_timeout: float = STOP_TIMEOUT,
    with_parent: bool = False,
    on_started: Callable[[], object] = lambda: None,
    on_poll: Callable[[], object] = lambda: None,
    on_stopping: Callable[[], object] = lambda: None,
    before_exit: Callable[[], object] = lambda: None,
) -> None:
    """Start *worker*, and return when it has been asked to stop and has finished its messages.

    The first SIGINT or SIGTERM asks it to stop: it begins no new message, and messages in progress
    have *stop_timeout* seconds to finish; then they are given back to their queue. A worker that is
    still connecting gives up. The second signal calls *before_exit* and ends the process at once,
    with exit code 128 + signal. In a notebook's kernel an interrupt ends the cell, and the worker
    stops in a thread behind it. With *with_parent* the end of standard input counts as a signal: a
    worker ends with its parent, even if the parent was killed.

    *on_started* is called once the worker consumes, *on_poll* every `FAILURE_CHECK_INTERVAL` from
    then on, and *on_stopping* when it was asked to stop.

    Raises:
        MousetrapError: the worker could not start, or cannot go on.
        TimeoutError: messages could neither be finished nor given back in time.

    Threads: signals are handled only when called in the main thread.
    """
    request = _StopRequest()
    was_signalled_while_starting = False
    with _signal_handlers(request, before_exit, lambda: worker.stop(stop_timeout)):
        try:
            request.interrupts_main = True
            if with_parent:  # only from here on: the parent may have ended before this line
                threads.Thread(target=_wait_for_end_of_stdin, args=(request,), daemon=True).start()
            worker.start()
            request.interrupts_main = False
        except _SignalledWhileStarting:
            was_signalled_while_starting = True
        if was_signalled_while_starting:
            # It may have begun a message already. Not in the `except` clause: there a stop waits no
            # longer than an interrupted caller does.
            worker.stop(stop_timeout)
            return
        try:
            on_started()
            while not request.wait(FAILURE_CHECK_INTERVAL):
                worker.wait(0.0)
                on_poll()
            on_stopping()
        finally:
            worker.stop(stop_timeout)


def exit_within(seconds: float, code: int, last: Callable[[], object]) -> None:
    """End this process with exit code *code* if it has not ended after *seconds*; call *last* then.

    The interpreter waits at its exit for threads that are no daemons, and for those of thread
    pools: if a handler that hangs has started one, it would wait for ever.
    """

    def end() -> None:
        clock.sleep(seconds)
        with suppress(Exception):
            last()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)

    threads.Thread(target=end, name="mousetrap-exit", daemon=True).start()


class _StopRequest:
    """Whether the worker was asked to stop."""

    def __init__(self) -> None:
        self.is_made = False
        self.interrupts_main = False  # by an exception in the main thread
        self.has_handlers = False  # signals reach the handlers of `_signal_handlers`
        self._waiter = Waiter()

    def make(self) -> None:
        self.is_made = True
        self._waiter.notify_all()

    def wait(self, timeout: float) -> bool:
        return self._waiter.wait_for(lambda: self.is_made, timeout)


@contextmanager
def _signal_handlers(
    request: _StopRequest, before_exit: Callable[[], object], stop: Callable[[], object]
) -> Iterator[None]:
    if not threads.is_main():
        yield
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        if request.is_made:
            try:
                before_exit()
            finally:
                os._exit(128 + number)  # not sys.exit: a hanging handler must not delay it
        request.make()
        if request.interrupts_main:
            raise _SignalledWhileStarting

    def on_interrupt_of_cell(number: int, frame: FrameType | None) -> None:
        # Stopping begins here and not in a `finally`, which a second interrupt could skip. The
        # second interrupt does not end the process: the process is the kernel.
        if not request.is_made:
            start_in_thread(stop)
            request.make()
        signal.default_int_handler(number, frame)

    handlers = {
        signal.SIGTERM: on_signal,
        signal.SIGINT: on_interrupt_of_cell if is_kernel() else on_signal,
    }
    before = {number: signal.signal(number, each) for number, each in handlers.items()}
    request.has_handlers = True
    try:
        yield
    finally:
        request.has_handlers = False
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for_end_of_stdin(request: _StopRequest) -> None:
    # Only the parent holds the other end of the pipe, which closes however the parent ends.
    # Read below sys.stdin: a thread inside its buffer makes the interpreter abort on exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if request.interrupts_main and request.has_handlers and not request.is_made:
        _thread.interrupt_main(signal.SIGTERM)  # ends the wait of the main thread, too
    else:
        request.make()

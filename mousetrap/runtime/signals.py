"""How long a worker process lives: until a signal, its parent's end, or its own failure."""

from __future__ import annotations

import _thread
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from mousetrap.runtime import threads
from mousetrap.runtime.environment import is_kernel
from mousetrap.runtime.interrupt import Waiter, begin

GRACE = 10.0  # seconds; container engines kill ten seconds after SIGTERM by default


class SignalWatch(Protocol):
    """What can be run until it is told to stop: a `Worker`, or several as processes."""

    def start(self) -> object:
        """Begin; raises if that cannot be."""

    def wait(self, timeout: float, /) -> bool:
        """Look for *timeout* seconds whether it can go on; raises what keeps it from that."""

    def stop(self, timeout: float, /) -> None:
        """Finish what is in hand within *timeout* seconds."""


class _Told(KeyboardInterrupt):
    """A signal came while we were still starting: a kind of interrupt, so that it ends a wait."""


def run_until_signalled(
    worker: SignalWatch,
    *,
    grace: float = GRACE,
    with_parent: bool = False,
    on_working: Callable[[], object] = lambda: None,
    on_look: Callable[[], object] = lambda: None,
    on_told: Callable[[], object] = lambda: None,
    at_once: Callable[[], object] = lambda: None,
) -> None:
    """Start *worker* and return when it has been told to stop and has finished its messages.

    *on_working* is called once it consumes, *on_look* a few times a second from then on, *on_told*
    when it has been told to stop.

    The first SIGINT or SIGTERM asks: nothing new is begun, what is in hand gets *grace* seconds;
    a worker that is still connecting gives up. The second ends the process at once, with exit code
    128 + signal, after *at_once*. In a notebook's kernel an interrupt ends the cell, and the worker
    finishes behind it. *with_parent*: the end of standard input counts as a signal, so a worker
    whose parent was killed does not stay behind.

    Raises:
        MousetrapError: the worker could not start, or cannot go on.
        TimeoutError: a handler outlived *grace*.

    Threads: signals are handled only when called in the main thread.
    """
    told = _Order()
    with _signals(told, at_once, lambda: worker.stop(grace)):
        try:
            told.ends_waiting = True
            if with_parent:  # from here on: a parent may have gone before we came this far
                threads.Thread(target=_await_orphanhood, args=(told,), daemon=True).start()
            worker.start()
            told.ends_waiting = False
        except _Told:
            worker.stop(grace)  # it may just have begun
            return
        try:
            on_working()
            while not told.wait(0.2):  # seconds: how soon a failure is noticed
                worker.wait(0.0)
                on_look()
            on_told()
        finally:
            worker.stop(grace)


class _Order:
    """The order to stop, once it is given."""

    def __init__(self) -> None:
        self.is_given = False
        self.ends_waiting = False  # by an exception in the main thread
        self.is_heard = False  # there is a handler of signals
        self._bell = Waiter()

    def give(self) -> None:
        self.is_given = True
        self._bell.notify_all()

    def wait(self, timeout: float) -> bool:
        return self._bell.wait_for(lambda: self.is_given, timeout)


@contextmanager
def _signals(
    told: _Order, at_once: Callable[[], object], stop: Callable[[], object]
) -> Iterator[None]:
    if not threads.is_main():
        yield
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        if told.is_given:
            at_once()
            os._exit(128 + number)  # not sys.exit: a hanging handler must not delay it
        told.give()
        if told.ends_waiting:
            raise _Told

    def on_interrupt_of_cell(number: int, frame: FrameType | None) -> None:
        # Stopping begins here and not on the way out, where a second interrupt could forestall it.
        # It never ends the process: that would take the kernel away.
        if not told.is_given:
            begin(stop)
            told.give()
        signal.default_int_handler(number, frame)

    handlers = {
        signal.SIGTERM: on_signal,
        signal.SIGINT: on_interrupt_of_cell if is_kernel() else on_signal,
    }
    before = {number: signal.signal(number, each) for number, each in handlers.items()}
    told.is_heard = True
    try:
        yield
    finally:
        told.is_heard = False
        for number, handler in before.items():
            signal.signal(number, handler)


def _await_orphanhood(told: _Order) -> None:
    # The pipe's other end is held by the parent alone; it closes however the parent ends.
    # Read below sys.stdin: a thread inside its buffer makes the interpreter abort on exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    if told.ends_waiting and told.is_heard and not told.is_given:
        _thread.interrupt_main(signal.SIGTERM)  # the order ends what the main thread waits for
    else:
        told.give()

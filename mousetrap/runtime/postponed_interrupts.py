"""Keeps Ctrl-C and SIGTERM away from steps that belong together, such as printing and acking.

A signal raises KeyboardInterrupt in the main thread between any two steps of Python code. Inside
pika it would leave a connection that cannot be used; between the print of a message and its ack it
would leave a message that is printed and comes again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from mousetrap.runtime import clock, threads

POSTPONED_TIMEOUT = 0.5  # seconds after a signal until a wait for a silent broker is given up


class PostponedInterrupts:
    """The signals that arrived in a block of `postponed`, until they are delivered.

    Threads: the main thread; `is_overdue` from any.
    """

    def __init__(self) -> None:
        self._received: list[tuple[int, FrameType | None]] = []
        self._since = 0.0  # when the first of them arrived, on the monotonic clock
        self._before: dict[int, Callable[..., Any]] = {}

    def deliver(self) -> None:
        """Handle a signal that has arrived: KeyboardInterrupt, unless its handler does otherwise.

        Call it where nothing is half done.
        """
        if self._received:
            received = self._received.pop(0)
            self._received.clear()  # a second Ctrl-C wants what the first one wants
            self._before[received[0]](*received)

    @property
    def is_overdue(self) -> bool:
        """Whether a signal has waited for `POSTPONED_TIMEOUT`: give up what is being waited for."""
        return bool(self._received) and clock.monotonic() - self._since > POSTPONED_TIMEOUT

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals through while the block runs, as if nothing postponed them."""
        self._restore()
        try:
            self.deliver()
            yield
        finally:
            self._install()

    def _install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # otherwise the signal is ignored, or ends the process
                self._before[number] = handler
                signal.signal(number, self._on_signal)

    def _restore(self) -> None:
        with ExitStack() as steps:  # all of them, even if one signal arrives in between
            for number, handler in self._before.items():
                steps.callback(signal.signal, number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._since = clock.monotonic()
        self._received.append((number, frame))


class _InAnotherThread(PostponedInterrupts):
    """A block outside the main thread: no signal interrupts it, and it must not change handlers."""

    @contextmanager
    def allowed(self) -> Iterator[None]:
        yield


class _Nested(PostponedInterrupts):
    """A block inside another one, which alone decides when signals are allowed."""

    def __init__(self, outer: PostponedInterrupts) -> None:
        super().__init__()
        self._outer = outer

    def deliver(self) -> None:
        self._outer.deliver()

    @property
    def is_overdue(self) -> bool:
        return self._outer.is_overdue

    @contextmanager
    def allowed(self) -> Iterator[None]:
        yield


_active: PostponedInterrupts | None = None  # of the main thread


@contextmanager
def postponed() -> Iterator[PostponedInterrupts]:
    """Postpone Ctrl-C and SIGTERM while the block runs, and deliver them at its end.

    Waits inside it that use `Waiter` or a `TimedConnection` end `POSTPONED_TIMEOUT` seconds after a
    signal at the latest. In other threads than the main one, which signals never interrupt, it does
    nothing.
    """
    global _active
    if not threads.is_main():
        yield _InAnotherThread()
        return
    if _active is not None:
        yield _Nested(_active)
        return
    gate = PostponedInterrupts()
    try:
        _active = gate
        gate._install()
        yield gate
    finally:
        _active = None
        gate._restore()
        gate.deliver()


def raise_if_overdue() -> None:
    """Deliver a signal that has waited too long (main thread; elsewhere it does nothing)."""
    if _active is not None and _active.is_overdue and threads.is_main():
        _active.deliver()


def is_overdue() -> bool:
    """Whether the caller should give up what it waits for, because of a signal."""
    return _active is not None and _active.is_overdue and threads.is_main()

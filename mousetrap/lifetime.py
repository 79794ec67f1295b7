"""How long a worker process lives: until a signal, its parent's end, or its own failure."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mousetrap.interrupt import Bell
from mousetrap.kernel import is_kernel
from mousetrap.worker import Worker

GRACE = 10.0  # seconds; container engines kill ten seconds after SIGTERM by default


def run_until_told(
    worker: Worker,
    *,
    grace: float = GRACE,
    with_parent: bool = False,
    on_working: Callable[[], object] = lambda: None,
) -> None:
    """Start *worker* and return when it has been told to stop and has finished its messages.

    *on_working* is called once it consumes.

    The first SIGINT or SIGTERM asks: nothing new is begun, what is in hand gets *grace* seconds.
    The second ends the process at once, with exit code 128 + signal. In a notebook's kernel an
    interrupt ends the cell, and the worker finishes behind it. *with_parent*: the end of standard
    input counts as a signal, so a worker whose parent was killed does not stay behind.

    Raises:
        MousetrapError: the worker could not start, or cannot go on.
        TimeoutError: a handler outlived *grace*.

    Threads: signals are handled only when called in the main thread.
    """
    told, rung = threading.Event(), Bell()

    def tell() -> None:
        told.set()
        rung.ring()

    with _signals(told, tell):
        if with_parent:
            threading.Thread(target=_await_orphanhood, args=(tell,), daemon=True).start()
        worker.start()
        try:
            on_working()
            while not rung.wait_for(told.is_set, 0.2):  # seconds: how soon a failure is noticed
                worker.wait(0.0)
        finally:
            worker.stop(grace)


@contextmanager
def _signals(told: threading.Event, tell: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        if told.is_set():
            os._exit(128 + number)  # not sys.exit: a hanging handler must not delay it
        tell()

    # not the interrupt of a cell: the second one would take the kernel away
    numbers = [signal.SIGTERM, *([] if is_kernel() else [signal.SIGINT])]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await_orphanhood(tell: Callable[[], None]) -> None:
    # The pipe's other end is held by the parent alone; it closes however the parent ends.
    # Read below sys.stdin: a thread inside its buffer makes the interpreter abort on exit.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    tell()

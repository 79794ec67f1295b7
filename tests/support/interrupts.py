"""Interrupting the main thread, as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager

import pytest


@contextmanager
def interrupted(after: float = 0.3, within: float = 1.0):
    """Send SIGINT *after* seconds; the block must end with KeyboardInterrupt *within* seconds.

    Yields what `pytest.raises` yields: its ``value`` is the exception, after the block.
    """
    sent, ready, over = [], threading.Event(), threading.Event()

    def send_interrupts():
        ready.wait()
        pause = after
        while not over.wait(pause):
            sent.append(time.monotonic())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            pause = 2 * within  # then again: Python drops one that falls into a finaliser

    sender = threading.Thread(target=send_interrupts)
    try:
        with pytest.raises(KeyboardInterrupt) as raised:  # noqa: PT012 -- it may come before the yield
            sender.start()
            ready.set()
            yield raised
    finally:
        over.set()
        ready.set()
        sender.join()
    assert sent, "the block ended before the interrupt"
    assert time.monotonic() - sent[-1] < within

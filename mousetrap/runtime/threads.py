"""The only module that makes threads, and locks, conditions, events and queues between threads.

The names are those of `threading` and `queue`, so that a scheduler can take their place: use them
as ``from mousetrap.runtime import threads`` and ``threads.Lock()``. `Waiter` in
`mousetrap.runtime.interrupt` is a condition that lets Ctrl-C through.
"""

from __future__ import annotations

import threading
from queue import Empty, Queue, SimpleQueue
from threading import (
    Condition,
    Event,
    Lock,
    RLock,
    Thread,
    Timer,
    current_thread,
    get_ident,
    local,
    main_thread,
)

__all__ = [
    "Condition", "Empty", "Event", "Lock", "Queue", "RLock", "SimpleQueue", "Thread", "Timer",
    "current_thread", "get_ident", "is_main", "local", "main_thread",
]  # fmt: skip


def is_main() -> bool:
    """Say whether the caller runs on the process's main thread, the only one that has signals."""
    return threading.current_thread() is threading.main_thread()

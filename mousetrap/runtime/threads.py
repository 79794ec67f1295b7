"""The only module that makes threads, and locks, conditions, events and queues between threads.

The names are those of `threading` and `queue`. Use them as ``threads.Lock()``, after ``from
mousetrap.runtime import threads``, so that a simulation can replace them. `Waiter` in
`mousetrap.runtime.interrupt` is a condition that Ctrl-C can interrupt safely.
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
    """Return whether this is the main thread, the only one in which signals are handled."""
    return threading.current_thread() is threading.main_thread()

"""The only module that reads a clock or sleeps, so that a test or a simulation can replace it.

Use it as ``from mousetrap.runtime import clock`` and ``clock.monotonic()``; never import a function
by name, because a replaced function must reach every caller. All times are in seconds. Durations
are measured with `monotonic`, which changes of the system's clock do not affect; `time` is for
times that people read or other processes compare.
"""

from __future__ import annotations

import sys
import time as _time
from datetime import UTC, datetime

monotonic = _time.monotonic  # seconds since an arbitrary moment; never decreases
time = _time.time  # seconds since 1970
sleep = _time.sleep
thread_time = _time.thread_time  # seconds of processor time that the calling thread has used


def uptime() -> float:
    """Return the seconds since this machine started; on Linux, those in which it slept count, too.

    All processes of the machine see the same value. Changes of the system's clock do not affect it.
    """
    if sys.platform != "win32" and hasattr(_time, "CLOCK_BOOTTIME"):
        return _time.clock_gettime(_time.CLOCK_BOOTTIME)
    return _time.monotonic()


_machine_started = _time.time() - uptime()  # seconds since 1970, by the clock at the import


def steady_time() -> float:
    """Return seconds since 1970 that no later change of the system's clock affects.

    The difference of two values of one process is the true duration between them. Two processes may
    disagree, if the clock was set between their starts.
    """
    return _machine_started + uptime()


def now() -> datetime:
    """Return the current date and time in UTC."""
    return datetime.fromtimestamp(time(), UTC)


def local_time(at: float | None = None) -> str:
    """Return *at* (seconds since 1970; None is now) as local ``HH:MM:SS``, for people."""
    return _time.strftime("%H:%M:%S", _time.localtime(time() if at is None else at))


def local_date_time(at: float | None = None) -> str:
    """Return *at*, as in `local_time`, as local ``YYYY-MM-DD HH:MM:SS``, for people."""
    return _time.strftime("%Y-%m-%d %H:%M:%S", _time.localtime(time() if at is None else at))


def remaining(deadline: float) -> float:
    """Return the seconds left until *deadline* on the monotonic clock, never negative."""
    return max(0.0, deadline - monotonic())

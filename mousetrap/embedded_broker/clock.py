"""The time of the embedded broker, which tests may move: TTLs and expiries follow it.

Seconds of a monotonic clock plus what `Clock.advance` added. Alarms that fall due while time is
moved ring in their order, each at its own time, so that a message that expires into a queue with a
TTL expires from there too. Threads: the server's own.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

LONGEST = 86_400.0  # seconds; some systems have no timer for more than 49 days


class Alarm:
    """Something to do at a time; `cancel` forgets it."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes."""
        self.action = None


class Clock:
    """Tells the time and rings alarms."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic() + self._ahead

    def wall(self) -> float:
        """Seconds since 1970, moved like `now`."""
        return time.time() + self._ahead

    def at(self, moment: float, action: Callable[[], None]) -> Alarm:
        """Do *action* when `now` has reached *moment*."""
        alarm = Alarm(moment, action)
        heapq.heappush(self._alarms, (moment, next(self._number), alarm))
        self._set_timer()
        return alarm

    def advance(self, seconds: float) -> None:
        """Move the time on and ring what falls due on the way."""
        end = self.now() + seconds
        while self._alarms and self._alarms[0][0] <= end:
            self._ahead += max(0.0, self._alarms[0][0] - self.now())
            self._ring()
        self._ahead += max(0.0, end - self.now())
        self._set_timer()

    def _ring(self) -> None:
        while self._alarms and self._alarms[0][0] <= self.now():
            action = heapq.heappop(self._alarms)[2].action
            if action is not None:
                action()
        self._set_timer()

    def _set_timer(self) -> None:
        while self._alarms and self._alarms[0][2].action is None:
            heapq.heappop(self._alarms)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._alarms:
            delay = min(max(0.0, self._alarms[0][0] - self.now()), LONGEST)
            self._timer = self._loop.call_later(delay, self._ring)

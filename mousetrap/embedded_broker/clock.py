"""The time of the embedded broker: TTLs and expiries follow it, and a test can move it forward.

The time is a monotonic clock plus what `Clock.advance` has added. Alarms that become due while the
time is moved run in their order, each at its own time. So a message that expires into a second
queue with a TTL expires from that queue in the same call.
Threads: the server's own.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

MAX_TIMER_DELAY = 86_400.0  # seconds; some systems have no timer for more than 49 days


class Alarm:
    """An action to run at a time; `cancel` drops the action."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Drop the action: nothing runs at that time."""
        self.action = None


class Clock:
    """Returns the time and runs alarms; *monotonic* and *wall* are the clocks that it adds to."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._wall = wall
        self._advanced = 0.0  # seconds that `advance` has added
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Return seconds since an arbitrary moment; the value never decreases."""
        return self._monotonic() + self._advanced

    def wall(self) -> float:
        """Return seconds since 1970, moved forward as `now` is."""
        return self._wall() + self._advanced

    def at(self, moment: float, action: Callable[[], None]) -> Alarm:
        """Run *action* when `now` reaches *moment*."""
        alarm = Alarm(moment, action)
        heapq.heappush(self._alarms, (moment, next(self._number), alarm))
        self._set_timer()
        return alarm

    def advance(self, seconds: float) -> None:
        """Move the time forward and run the alarms that become due."""
        end = self.now() + seconds
        while self._alarms and self._alarms[0][0] <= end:
            self._advanced += max(0.0, self._alarms[0][0] - self.now())
            self._run_due()
        self._advanced += max(0.0, end - self.now())
        self._set_timer()

    def _run_due(self) -> None:
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
            delay = min(max(0.0, self._alarms[0][0] - self.now()), MAX_TIMER_DELAY)
            self._timer = self._loop.call_later(delay, self._run_due)

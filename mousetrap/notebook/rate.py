"""What can be told from counts alone: how fast something goes, and how old the oldest is.

Nothing here knows what is counted, or asks anybody. Times are seconds on the monotonic clock.
"""

from __future__ import annotations

from collections import deque

MINUTE = 60.0  # seconds that a sparkline shows
TICK = 0.25  # seconds; its pieces as long as there are only a few
SHOWN = 60  # its pieces at most
SPAN = 5.0  # seconds over which a rate is taken
REMEMBERED = 600  # measurements by which an age is told; older than the first is "at least"


class RateMeter:
    """Remembers how a count grew in the last minute, and how fast it grows."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()  # of the last SPAN seconds
        self._ticks: deque[float] = deque([0.0], maxlen=int(MINUTE / TICK))  # the present one last
        self._tick = 0  # number of the present one
        self._grown = 0
        self._began = self._grew = 0.0  # when it first grew, and when it last did

    def add(self, count: int, now: float) -> None:
        """Note that *count* is reached at *now*, on the monotonic clock."""
        tick = int(now / TICK)
        if self._marks:
            before, known = self._marks[-1]
            self._ticks.extend([0.0] * min(tick - self._tick, int(MINUTE / TICK)))
            if (grown := count - known) > 0 and now > before:
                self._spread(grown, before, now, tick)
                self._began = self._began or before
                self._grew, self._grown = now, self._grown + grown
        self._tick = tick
        self._marks.append((now, count))
        while len(self._marks) > 2 and self._marks[1][0] < now - SPAN:
            self._marks.popleft()

    def _spread(self, grown: int, before: float, now: float, last: int) -> None:
        """Share out what came between two looks evenly: nobody knows when it came."""
        for n in range(min(len(self._ticks), last - int(before / TICK) + 1)):
            start = max(before, (last - n) * TICK)
            end = min(now, (last - n + 1) * TICK)
            self._ticks[-1 - n] += grown * (end - start) / (now - before)

    @property
    def rate(self) -> float:
        """Per second, over the last `SPAN` seconds."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return max(0, last - first) / (end - start) if end - start > TICK else 0.0

    @property
    def average(self) -> float:
        """Per second, from when it first grew until it last did."""
        return self._grown / max(TICK, self._grew - self._began)

    def minute(self, *, is_over: bool) -> tuple[float, ...]:
        """How it grew in up to sixty equal pieces of the last minute, or of what there is of it.

        Begins where it began to grow. The present piece is not over, and would look as if the pace
        were falling.
        """
        ticks = list(self._ticks)
        if self._grown == 0:
            return ()
        first = max(0, len(ticks) - 2 - self._tick + int(self._began / TICK))
        ticks = ticks[first:]
        if len(ticks) > SHOWN:
            size = int(1 / TICK)
            seconds: dict[int, float] = {}
            for n, grown in enumerate(ticks, self._tick - len(ticks) + 1):
                seconds[n // size] = seconds.get(n // size, 0) + grown
            ticks = list(seconds.values())[-SHOWN:]
        if not is_over:
            ticks.pop()
        while is_over and len(ticks) > 1 and not ticks[-1]:
            ticks.pop()
        return tuple(round(each, 1) for each in ticks)


class Arrivals:
    """Tells how old the oldest message of a queue is, from nothing but counts.

    What has come so far is what is settled plus what is there. The oldest message that is there is
    number *settled* + 1, and came before the first moment at which so many had come. True of a
    queue whose messages are taken in their order by the workers that are counted.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)

    def add(self, settled: int, there: int, now: float) -> None:
        """Note what was counted at *now*."""
        come = settled + there
        for n in range(len(self._seen) - 1, -1, -1):
            if self._seen[n][1] <= come:
                break
            self._seen[n] = (self._seen[n][0], come)  # one was counted twice while it moved on
        self._seen.append((now, come))

    def oldest(self, settled: int, now: float) -> str:
        """The age in seconds of message number *settled* + 1, ``""`` if it has not come."""
        for n, (at, come) in enumerate(self._seen):
            if come > settled:
                return f"{'' if n else '> '}{now - at:.0f} s"
        return ""

"""What follows from counts: the rate of a count, and the age of the oldest message in a queue.

The module does not know what is counted, and asks no broker. Times are seconds on the monotonic
clock.
"""

from __future__ import annotations

from collections import deque

HISTORY = 60.0  # seconds that a sparkline covers
BUCKET = 0.25  # seconds that each bucket of the history covers
MAX_BARS = 60  # values that `RateMeter.history` returns at most
RATE_WINDOW = 5.0  # seconds over which a rate is computed
MAX_MEASUREMENTS = 600  # kept to compute an age; an older message has "at least" an age


class RateMeter:
    """Keeps how a count grew in the last minute, and computes how fast it grows."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()  # time and count, of the last RATE_WINDOW
        self._buckets: deque[float] = deque([0.0], maxlen=int(HISTORY / BUCKET))  # newest last
        self._bucket = 0  # number of the newest bucket
        self._growth = 0
        self._first_growth = self._last_growth = 0.0  # times; 0: it has not grown

    def add(self, count: int, now: float) -> None:
        """Record that the count was *count* at *now*, on the monotonic clock."""
        bucket = int(now / BUCKET)
        if self._marks:
            before, known = self._marks[-1]
            self._buckets.extend([0.0] * min(bucket - self._bucket, int(HISTORY / BUCKET)))
            if (growth := count - known) > 0 and now > before:
                self._spread(growth, before, now, bucket)
                self._first_growth = self._first_growth or before
                self._last_growth, self._growth = now, self._growth + growth
        self._bucket = bucket
        self._marks.append((now, count))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_WINDOW:
            self._marks.popleft()

    def _spread(self, growth: int, before: float, now: float, last: int) -> None:
        """Distribute *growth* evenly over the time since *before*: the exact times are unknown."""
        for n in range(min(len(self._buckets), last - int(before / BUCKET) + 1)):
            start = max(before, (last - n) * BUCKET)
            end = min(now, (last - n + 1) * BUCKET)
            self._buckets[-1 - n] += growth * (end - start) / (now - before)

    @property
    def rate(self) -> float:
        """Growth per second over the last `RATE_WINDOW` seconds."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return max(0, last - first) / (end - start) if end - start > BUCKET else 0.0

    @property
    def average(self) -> float:
        """Growth per second between the first and the last time it grew."""
        return self._growth / max(BUCKET, self._last_growth - self._first_growth)

    def history(self, *, is_finished: bool) -> tuple[float, ...]:
        """Return the growth in up to `MAX_BARS` equal parts of the last minute, the newest last.

        The first part is the one in which the count began to grow. Unless *is_finished*, the newest
        part is left out: it is incomplete, and would look as if the rate were falling.
        """
        buckets = list(self._buckets)
        if self._growth == 0:
            return ()
        first = max(0, len(buckets) - 2 - self._bucket + int(self._first_growth / BUCKET))
        buckets = buckets[first:]
        if len(buckets) > MAX_BARS:
            per_second = int(1 / BUCKET)
            seconds: dict[int, float] = {}
            for n, growth in enumerate(buckets, self._bucket - len(buckets) + 1):
                seconds[n // per_second] = seconds.get(n // per_second, 0) + growth
            buckets = list(seconds.values())[-MAX_BARS:]
        if not is_finished:
            buckets.pop()
        while is_finished and len(buckets) > 1 and not buckets[-1]:
            buckets.pop()
        return tuple(round(each, 1) for each in buckets)


class ArrivalHistory:
    """Computes the age of the oldest message in a queue from counts alone.

    The number of messages that have arrived is the number settled plus the number present. The
    oldest message that is present is number *settled* + 1, and it arrived before the first
    measurement that counted so many arrivals. This holds for a queue whose messages are delivered
    in order, to the workers that are counted.
    """

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=MAX_MEASUREMENTS)  # time, number

    def add(self, settled: int, present: int, now: float) -> None:
        """Record that *settled* messages were settled and *present* were there at *now*."""
        arrived = settled + present
        for n in range(len(self._arrivals) - 1, -1, -1):
            if self._arrivals[n][1] <= arrived:
                break
            # a message that moved on between two counts was counted twice
            self._arrivals[n] = (self._arrivals[n][0], arrived)
        self._arrivals.append((now, arrived))

    def oldest(self, settled: int, now: float) -> str:
        """Return the age in seconds of message number *settled* + 1, ``""`` if it is not there."""
        for n, (at, arrived) in enumerate(self._arrivals):
            if arrived > settled:
                return f"{'' if n else '> '}{now - at:.0f} s"
        return ""

"""What follows from counts: the rate of a count, and the age of the oldest message in a queue.

The module does not know what is counted, and asks no broker. Times are seconds on the monotonic
clock.
"""

from __future__ import annotations

from collections import deque

from mousetrap.display.formats import age

HISTORY = 60  # seconds that a sparkline covers, with a bar for each
RATE_WINDOW = 5.0  # seconds over which a rate is computed
MIN_WINDOW = 0.25  # seconds; over less, a rate would be a guess
STEADY_WINDOW = 10  # seconds, at most, whose two halves must agree in a steady rate
MIN_STEADY_WINDOW = 4  # seconds, at least
MIN_STEADY_COUNT = 20  # events in those; fewer are steady or not by chance
MAX_STEADY_CHANGE = 0.25  # of the rate, between the two halves
MAX_MEASUREMENTS = 600  # kept to compute an age; an older message has "at least" an age


class RateMeter:
    """Keeps how a count grew in the last minute, and computes how fast it grows."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()  # time and count, of the last RATE_WINDOW
        # growth in each second of the clock; the newest comes last, and is not over
        self._seconds: deque[float] = deque([0.0], maxlen=HISTORY + 1)
        self._second = 0  # the newest one
        self._growth = 0
        self._first_growth = self._last_growth = 0.0  # times; 0: it has not grown

    def add(self, count: int, now: float) -> None:
        """Record that the count was *count* at *now*, on the monotonic clock."""
        now = max(now, self._marks[-1][0] if self._marks else 0.0)  # another thread may be ahead
        second = int(now)
        if self._marks:
            before, known = self._marks[-1]
            self._seconds.extend([0.0] * min(second - self._second, HISTORY + 1))
            if (growth := count - known) > 0 and now > before:
                self._spread(growth, before, now)
                self._first_growth = self._first_growth or before
                self._last_growth, self._growth = now, self._growth + growth
        self._second = second
        self._marks.append((now, count))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_WINDOW:
            self._marks.popleft()

    def _spread(self, growth: int, before: float, now: float) -> None:
        """Distribute *growth* evenly over the time since *before*: the exact times are unknown."""
        last = int(now)
        for n in range(min(len(self._seconds), last - int(before) + 1)):
            start, end = max(before, last - n), min(now, last - n + 1)
            self._seconds[-1 - n] += growth * (end - start) / (now - before)

    def has_counted(self, count: int) -> bool:
        """Return whether *count* is the latest count."""
        return bool(self._marks) and self._marks[-1][1] == count

    @property
    def rate(self) -> float:
        """Growth per second over the last `RATE_WINDOW` seconds."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return max(0, last - first) / (end - start) if end - start > MIN_WINDOW else 0.0

    @property
    def average(self) -> float:
        """Growth per second between the first and the last time it grew."""
        return self._growth / max(MIN_WINDOW, self._last_growth - self._first_growth)

    @property
    def steady(self) -> float:
        """The growth per second in the last `STEADY_WINDOW` seconds; 0.0 if it is not steady.

        It is steady if both halves of that time agree. The second in which the first growth came is
        left out, and so is the present one.
        """
        whole = self._second - int(self._first_growth) - 1 if self._growth else 0
        size = min(whole, STEADY_WINDOW, len(self._seconds) - 1) // 2 * 2
        latest = list(self._seconds)[-1 - size : -1]
        older, newer = sum(latest[: size // 2]), sum(latest[size // 2 :])
        if size < MIN_STEADY_WINDOW or older + newer < MIN_STEADY_COUNT:
            return 0.0
        is_steady = abs(newer - older) <= MAX_STEADY_CHANGE * (older + newer) / 2
        return (older + newer) / size if is_steady else 0.0

    def history(self, *, is_finished: bool) -> tuple[float, ...]:
        """Return the growth in each second of the last minute, the newest last; () if none was.

        The present second is left out: it is not over, and would look as if the rate were falling.
        If *is_finished*, the minute is the one that ends with the last growth.
        """
        if self._growth == 0:
            return ()
        seconds = list(self._seconds)
        if not is_finished:
            seconds.pop()
        while is_finished and len(seconds) > 1 and not seconds[-1]:
            seconds.pop()
        seconds = seconds[-HISTORY:]
        return tuple([0.0] * (HISTORY - len(seconds)) + [round(each, 1) for each in seconds])


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
        """Return the age of message number *settled* + 1 in words, ``""`` if it is not there."""
        for n, (at, arrived) in enumerate(self._arrivals):
            if arrived > settled:
                return f"{'' if n else '> '}{age(now - at)}"
        return ""

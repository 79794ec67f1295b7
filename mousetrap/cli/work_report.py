"""What ``mousetrap work`` prints while it works: a line every ten seconds, and the log.

A dead letter needs a person, but a thousand of one kind need one line: the first of each kind of
error is logged, and the others are counted in the regular line.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from mousetrap.display.formats import rate
from mousetrap.display.safe_text import safe
from mousetrap.runtime import clock, threads
from mousetrap.worker.attempt import FAILED_LINE
from mousetrap.worker.statistics import Statistics

SUMMARY_INTERVAL = 10.0  # seconds between two lines
MAX_NAMED_KINDS = 3  # of errors, named in a line


class DeadLetterKinds(logging.Filter):
    """Lets the log line of the first dead letter of each kind of error pass; counts them all.

    With *has_all* every line passes. Threads: any.
    """

    def __init__(self, *, has_all: bool) -> None:
        super().__init__()
        self._has_all = has_all
        self._counts: Counter[str] = Counter()
        self._lock = threads.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is to be printed."""
        if record.msg != FAILED_LINE or record.levelno < logging.WARNING:
            return True
        *_, kind, _ = record.args or ("", "")
        with self._lock:
            self._counts[str(kind)] += 1
            return self._has_all or self._counts[str(kind)] == 1

    def __str__(self) -> str:
        """Return the most frequent kinds: ``12 ValueError, 1 KeyError``; "" if there are none."""
        with self._lock:
            found = self._counts.most_common()
        named = [f"{number:,} {safe(kind)}" for kind, number in found[:MAX_NAMED_KINDS]]
        return ", ".join([*named, *["…"] * (len(found) > MAX_NAMED_KINDS)])


class WorkSummary:
    """Prints by *show* what the worker of *stage* has done, every `SUMMARY_INTERVAL` seconds.

    Nothing if nothing has changed. *statistics* returns the present figures.
    """

    def __init__(
        self,
        stage: str,
        statistics: Callable[[], Statistics],
        kinds: DeadLetterKinds,
        show: Callable[[str], object],
    ) -> None:
        self._stage, self._statistics, self._kinds, self._show = stage, statistics, kinds, show
        self._began = clock.monotonic()  # of the interval
        self._done = 0  # at its beginning
        self._last: tuple[object, ...] = (0, 0, 0, "")

    def poll(self) -> None:
        """Print the line if it is due."""
        now = clock.monotonic()
        if now - self._began < SUMMARY_INTERVAL:
            return
        seen = self._statistics()
        facts = (seen.done, seen.retried, seen.dead, seen.problem)
        if facts != self._last:
            per_second = rate((seen.done - self._done) / (now - self._began))
            problem = f"; {safe(seen.problem)}" if seen.problem else ""
            self._show(f"{clock.local_time()} {self.counts(seen)}; {per_second}{problem}")
        self._began, self._done, self._last = now, seen.done, facts

    def counts(self, seen: Statistics) -> str:
        """Return ``fetch: 1,234 done, 12 retried, 3 dead (3 ValueError)``."""
        kinds = f" ({self._kinds})" if seen.dead and str(self._kinds) else ""
        outcomes = f"{seen.done:,} done, {seen.retried:,} retried, {seen.dead:,} dead"
        return f"{self._stage}: {outcomes}{kinds}"

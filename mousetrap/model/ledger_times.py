"""The times of a ledger: the clocks of the workers, and when a message waited. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.outcome import Outcome

# Seconds. A worker's clock counts as right if the shortest time from the end of an attempt to the
# arrival of its outcome lies in 0..MAX_CLOCK_ERROR; otherwise the worker's times are corrected.
MAX_CLOCK_ERROR = 0.5


class LedgerTimes:
    """Converts times on the clocks of workers to the clock of the ledger.

    Threads: any.
    """

    def __init__(self) -> None:
        self._offsets: dict[str, float] = {}  # worker -> shortest time from its `ended` to us

    def note_clock(self, worker: str, ended: float, at: float) -> None:
        """Record that the outcome of an attempt that *ended* on *worker* was received at *at*."""
        self._offsets[worker] = min(self._offsets.get(worker, at - ended), at - ended)

    def correction(self, worker: str) -> float:
        """Return the seconds to add to a time of *worker*.

        The shortest time between the end of an attempt of this worker and the arrival of its
        outcome is taken as the difference of the clocks, unless it lies in 0..`MAX_CLOCK_ERROR`.
        """
        offset = self._offsets[worker]
        return 0.0 if 0 <= offset < MAX_CLOCK_ERROR else offset

    def time(self, outcome: Outcome, at: float) -> float:
        """Convert *at* from the clock of *outcome*'s worker to the ledger's clock.

        See `correction`.
        """
        return at + self.correction(outcome.worker)

    def queued_at(self, entry: LedgerEntry) -> float | None:
        """Return when *entry* was first put into its queue."""
        times = [self.time(origin, origin.ended) for origin in entry.origins]
        return min([*times, *([] if entry.sent is None else [entry.sent])], default=None)

    def due_at(self, entry: LedgerEntry) -> float | None:
        """Return when *entry* could first be delivered: after its delay."""
        at = self.queued_at(entry)
        return None if at is None else at + entry.delay

    def begun_at(self, entry: LedgerEntry) -> float | None:
        """Return when the first attempt at *entry* began."""
        return min((self.time(outcome, outcome.begun) for outcome in entry.outcomes), default=None)

    def waits(self, entry: LedgerEntry) -> Iterator[tuple[Outcome, float]]:
        """Yield attempts at *entry*, each with the seconds that the message had waited for it.

        The first attempt and retries are yielded, if it is known when the wait for them began. The
        wait begins at the end of a delay. A wait is never negative, even if the
        clocks of two machines differ.
        """
        since = self.due_at(entry)
        for outcome in sorted(entry.outcomes, key=lambda outcome: (outcome.attempt, outcome.begun)):
            if since is not None:
                yield outcome, max(0.0, self.time(outcome, outcome.begun) - since)
            since = None
            if outcome.kind == "retried":
                since = self.time(outcome, outcome.ended) + outcome.delay

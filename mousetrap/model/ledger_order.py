"""The messages of a run in an order, chosen by outcome and stage. Nothing here talks to a broker.

Only as many messages as are looked at are put in order: a page of a million takes a second.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import compress
from operator import neg
from typing import Any

from mousetrap.display.formats import counted, duration
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.ledger_figures import LedgerFigures
from mousetrap.model.ledger_times import LedgerTimes

OUTCOMES = ("dead", "open", "retried", "done", "result")  # of a message; the first need attention
ORDERS = ("attention", "slowest", "sent")
FEW = 1000  # messages that are put in order when up to as many are looked at; beyond, all are

_DONE = OUTCOMES.index("done")


class MessageOrder:
    """The rows of the messages with *outcome*, whose queue *stage* reads; None: of all.

    *reads* has the stage that reads each queue. *order* is one of `ORDERS`. Equal ones are in the
    order in which they were put into their queues, then in that of their ids.

    Threads: made while the ledger is locked; afterwards one at a time.
    """

    def __init__(
        self,
        figures: LedgerFigures,
        reads: Mapping[str, str],
        outcome: str | None,
        stage: str | None,
        order: str,
    ) -> None:
        self._ledger = rows = figures.rows
        self._ranks = bytearray(self._ranks_of_plain(reads))  # index of `OUTCOMES`
        self._attempts = array("i", map(neg, rows.attempt))  # negative
        self._seconds = self._seconds_of_plain(figures)  # waited and handled; negative
        self._queued = figures.known_at()
        for row, entry in figures.special():
            self._add_special(row, entry, figures.times, reads)
        self._rows: Sequence[int] = range(len(rows))
        if outcome is not None or stage is not None:
            self._choose(None if outcome is None else OUTCOMES.index(outcome), stage, reads)
        self._jobs = figures.number_of_jobs(self._rows)
        keys: dict[str, list[Any]] = {
            "attention": [self._ranks, self._attempts, self._seconds],
            "slowest": [self._seconds],
            "sent": [],
        }
        self._keys = [*keys[order], self._queued]
        self._sorted: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def first(self, number: int) -> list[int]:
        """Return the rows of the first *number* messages."""
        if min(number, len(self)) > len(self._sorted):
            self._sorted = self._first(FEW if number <= FEW else len(self))
        return self._sorted[:number]

    def totals(self, name: str) -> str:
        """Return the totals: ``1,994 messages of 700 jobs in run-7f: 53 dead, slowest 1.47 s``."""
        title = f"{counted(len(self), 'message')} of {counted(self._jobs, 'job')} in {name}"
        counts = {each: self._ranks.count(OUTCOMES.index(each)) for each in ("dead", "open")}
        facts = [f"{number:,} {word}" for word, number in counts.items() if number]
        if retries := -sum(self._attempts) - sum(map(bool, self._attempts)):
            facts.append(f"{retries:,} retries" if retries > 1 else "1 retry")
        if slowest := -min(self._seconds, default=0.0):
            facts.append(f"slowest {duration(slowest)}")
        return f"{title}: {', '.join(facts)}" if facts else title

    def _first(self, number: int) -> list[int]:
        ids = self._ledger.ids
        found: Any = zip(zip(*self._keys, strict=True), self._rows, strict=True)
        if number < len(self):
            last = heapq.nsmallest(number, zip(*self._keys, strict=True))[-1]
            found = [each for each in found if each[0] <= last]
        return [row for _, _, row in sorted((key, ids[row], row) for key, row in found)][:number]

    def _ranks_of_plain(self, reads: Collection[str]) -> Iterator[int]:
        rows = self._ledger
        unhandled = [OUTCOMES.index("open" if name in reads else "result") for name in rows.queues]
        return (_DONE if number else unhandled[queue]
                for number, queue in zip(rows.done, rows.queue, strict=True))  # fmt: skip

    def _seconds_of_plain(self, figures: LedgerFigures) -> array[float]:
        rows = self._ledger
        columns = zip(rows.done, figures.begun(), rows.seconds, figures.queued, strict=True)
        return array("d", (
            -((begun - queued if begun > queued else 0.0) + seconds) if number else 0.0
            for number, begun, seconds, queued in columns
        ))  # fmt: skip

    def _add_special(
        self, row: int, entry: LedgerEntry, times: LedgerTimes, reads: Collection[str]
    ) -> None:
        wait = next((wait for _, wait in times.waits(entry)), None)
        handling = entry.outcome.seconds if entry.outcome else 0.0
        self._ranks[row] = OUTCOMES.index(outcome_of(entry, reads))
        self._attempts[row] = -max((each.attempt for each in entry.outcomes), default=0)
        self._seconds[row] = -((wait or 0.0) + handling)

    def _choose(self, rank: int | None, stage: str | None, reads: Mapping[str, str]) -> None:
        """Keep only the messages with this rank and this stage."""
        rows = self._ledger
        is_read = [stage is None or reads.get(name) == stage for name in rows.queues]
        columns = zip(self._ranks, rows.queue, strict=True)
        chosen = bytes(is_read[queue] and rank in (None, each) for each, queue in columns)
        self._rows = array("I", compress(range(len(rows)), chosen))
        self._ranks = bytearray(compress(self._ranks, chosen))
        self._attempts = array("i", compress(self._attempts, chosen))
        self._seconds = array("d", compress(self._seconds, chosen))
        self._queued = array("d", compress(self._queued, chosen))


def outcome_of(entry: LedgerEntry, reads: Collection[str]) -> str:
    """Return one of `OUTCOMES` for *entry*, when the queues *reads* are read by stages."""
    if entry.outcome is not None:
        return entry.outcome.kind
    return "open" if entry.queue in reads else "result"

"""How far a run is, in milliseconds for a hundred thousand messages: what a live display asks for.

Loops over all messages run in C, over the columns of `LedgerRows`; only messages that wait for a
retry, and those that failed in the last minute of a run that has ended, are looked at as entries.
Nothing here talks to a broker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import compress, count
from operator import eq

from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.ledger_rows import OPEN, SPECIAL, LedgerRows
from mousetrap.model.ledger_times import LedgerTimes

MINUTE = 60  # seconds of `last_minute`

_IS_OPEN = bytes(bool(flags & OPEN) for flags in range(256))


@dataclass(frozen=True)
class JobCounts:
    """What became of the jobs of a run; each job is counted once.

    A job is under way while any of its messages is open. Else it is dead if one of them is dead,
    and otherwise done.
    """

    total: int = 0
    done: int = 0
    under_way: int = 0
    dead: int = 0

    @property
    def settled(self) -> int:
        """How many jobs are done or dead."""
        return self.done + self.dead


@dataclass(frozen=True)
class OpenMessages:
    """The messages of one queue that are not settled; times are seconds since 1970."""

    number: int
    since: float | None  # when the first of them was put into the queue
    retries: int  # of these, how many wait for the delay of a retry
    next_retry: float | None  # when the first of those is over


@dataclass(frozen=True)
class RunProgress:
    """How far a run is at one moment; times are seconds since 1970."""

    jobs: JobCounts = field(default_factory=JobCounts)
    first: float | None = None  # when the first job was sent
    open: Mapping[str, OpenMessages] = field(default_factory=dict)  # by queue


class JobTotal:
    """Counts the jobs among the rows of a ledger; looks at most rows only once.

    A message whose parent is not known yet seems to be a job. So the rows from the first such
    message on are looked at again.
    """

    def __init__(self) -> None:
        self._rows = self._jobs = 0  # rows that are counted for good, and the jobs among them

    def of(self, rows: LedgerRows) -> int:
        """Return the number of jobs in *rows*, which are those of the last call, and new ones."""
        for row in range(self._rows, len(rows)):
            is_job = rows.job[row] == row + 1
            if is_job and rows.sent[row] != rows.sent[row]:  # this run did not send it
                break
            self._rows, self._jobs = row + 1, self._jobs + is_job
        rest: int = sum(map(eq, rows.job[self._rows :], count(self._rows + 1)))
        return self._jobs + rest


def progress(
    times: LedgerTimes, rows: LedgerRows, dead: Collection[int], total: JobTotal, now: float
) -> RunProgress:
    """Return how far the run with these *rows* is at time *now*; *dead* are rows of dead messages.

    Threads: as long as the ledger is locked.
    """
    is_open = bytes(rows.flags).translate(_IS_OPEN)
    start = max(0, is_open.find(1))  # what is open came late, most of the time
    is_open = is_open[start:]
    open_jobs = set(compress(rows.job[start:], is_open)) if rows.open else set()
    dead_jobs = {rows.job[row] for row in dead} - open_jobs
    jobs = total.of(rows)
    done = jobs - len(open_jobs) - len(dead_jobs)
    return RunProgress(
        JobCounts(jobs, done, len(open_jobs), len(dead_jobs)),
        next((at for at in rows.sent if at == at), None),
        _open_messages(times, rows, start, is_open, now) if rows.open else {},
    )


def _open_messages(
    times: LedgerTimes, rows: LedgerRows, start: int, is_open: bytes, now: float
) -> dict[str, OpenMessages]:
    """Return the open messages of each queue; *is_open* has a 1 for each, from row *start* on."""
    found = list(compress(range(start, len(rows)), is_open))
    queues = list(compress(rows.queue[start:], is_open))
    is_special = map(SPECIAL.__eq__, compress(rows.done[start:], is_open))
    retries: dict[int, list[float]] = {}  # when each retry is due, by number of the queue
    for row in compress(found, is_special):
        due = _retry_due(times, rows.entry(row))
        if due > now:
            retries.setdefault(rows.queue[row], []).append(due)
    opened: dict[str, OpenMessages] = {}
    for number, amount in Counter(queues).items():
        since = times.queued_at(rows.entry(found[queues.index(number)]))
        delays = retries.get(number, [])
        next_retry = min(delays) if delays else None
        opened[rows.queues[number]] = OpenMessages(amount, since, len(delays), next_retry)
    return opened


def _retry_due(times: LedgerTimes, entry: LedgerEntry) -> float:
    """Return when the delay of its retry is over; 0.0 if it waits for none."""
    outcome = entry.outcome
    if outcome is None or outcome.kind != "retried":
        return 0.0
    return times.time(outcome, outcome.ended) + outcome.delay


def last_minute(times: LedgerTimes, rows: LedgerRows) -> tuple[float, dict[str, tuple[int, ...]]]:
    """Return when the last message was settled, and what happened in the 60 seconds before that.

    That is, for each stage, how many of its attempts ended in each second.

    Threads: as long as the ledger is locked.
    """
    ended = rows.ended
    last = max((at for at in ended if at == at), default=0.0)
    start, found = last - MINUTE, dict[str, list[int]]()

    def add(stage: str, at: float) -> None:
        if start < at <= last + 1.0:  # the clock of a worker differs a little
            bars = found.setdefault(stage, [0] * MINUTE)
            bars[min(MINUTE - 1, int(at - start))] += 1

    for row in compress(range(len(ended)), map(start.__lt__, ended)):
        if rows.done[row] != SPECIAL and (handling := rows.handlings[rows.done[row]]):
            add(handling.stage, ended[row])
    for row in rows.special:
        if not ended[row] <= start:  # without an end, it may have failed in that minute
            for outcome in rows.entry(row).outcomes:
                add(outcome.stage, times.time(outcome, outcome.ended))
    return last, {stage: tuple(bars) for stage, bars in found.items()}

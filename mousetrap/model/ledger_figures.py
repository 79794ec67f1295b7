"""What is computed from all messages of a run together, within seconds for a million jobs.

The loops go over the columns of `LedgerRows`; only special messages are looked at as entries.
Nothing here talks to a broker.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress, filterfalse
from math import isnan
from operator import add, ne

from mousetrap.model.error_kinds import ErrorKind, error_kinds
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.model.ledger_rows import CONFIRMED, NEVER, OPEN, PUBLISHED, SPECIAL, LedgerRows
from mousetrap.model.ledger_times import LedgerTimes
from mousetrap.model.special_facts import DEAD, MEMBER, SpecialFacts, StageTimes
from mousetrap.model.summary import RunSummary, StageSummary, percentiles

TIME_PARTS = 256  # that messages are distributed over before they are put in order
MAX_REASONS = 20  # of a summary, the most frequent; each may have a thousand characters
MAX_COMPARED_REASONS = 2000  # that are counted by kind of error, which takes 20 µs for each

_IS_OPEN = bytes(flags & OPEN > 0 for flags in range(256))


@dataclass
class Moments:
    """When jobs were sent, when each stage was done with a message, and when messages died.

    In seconds after the first message was put into its queue, in ascending order.
    """

    sent: array[float]
    stages: list[tuple[str, array[float]]]
    deaths: dict[str, array[float]]  # by stage

    def dead(self) -> array[float]:
        """Return when messages died, in any stage."""
        return array("d", sorted(chain(*self.deaths.values())))


class LedgerFigures:
    """Figures of the messages in *rows*, whose times *times* converts.

    Threads: as long as the ledger is locked, see `Ledger.figures`.
    """

    def __init__(self, times: LedgerTimes, rows: LedgerRows) -> None:
        rows.trim()
        self.times = times
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    # ---- one value for each row ------------------------------------------------------------------

    @cached_property
    def queued(self) -> array[float]:
        """When each message was put into its queue; `NEVER` if that is not known."""
        found, ends = array("d", self.rows.sent), self._ends()
        for row, (flags, parent) in enumerate(zip(self.rows.flags, self.rows.parent, strict=True)):
            if flags & PUBLISHED:
                found[row] = ends[parent - 1]
        for row, at in self._special.queued.items():
            found[row] = at
        return found

    @cached_property
    def _corrections(self) -> dict[int, float]:
        """The seconds to add to the times of each handling, by its number."""
        handlings = enumerate(self.rows.handlings)
        return {n: self.times.correction(each.worker) if each else 0.0 for n, each in handlings}

    def begun(self) -> array[float]:
        """Return when the handling of each plain message began."""
        return self._corrected(self.rows.begun)

    def _ends(self) -> array[float]:
        """Return when the handling of each plain message ended."""
        return self._corrected(array("d", map(add, self.rows.begun, self.rows.seconds)))

    def _corrected(self, times: array[float]) -> array[float]:
        if not any(self._corrections.values()):
            return times
        corrections = self._corrections | {SPECIAL: 0.0}
        return array("d", map(add, times, map(corrections.__getitem__, self.rows.done)))

    @cached_property
    def _states(self) -> bytearray:
        """What is known of the job with the id of each message; 0: no message is of such a job."""
        found, rows = bytearray(len(self)), self.rows
        for job in compress(rows.job, map(SPECIAL.__ne__, rows.done)):
            found[job - 1] = MEMBER
        if 1 in (is_open := bytes(rows.flags).translate(_IS_OPEN)):
            for job, number in compress(zip(rows.job, rows.done, strict=True), is_open):
                if number != SPECIAL:
                    found[job - 1] |= OPEN
        for job, state in self._special.states.items():
            found[job] |= state
        return found

    @cached_property
    def _special(self) -> SpecialFacts:
        return SpecialFacts(self.times, self.rows)

    def known_at(self) -> array[float]:
        """Return when each message was put into its queue, or else began; 0.0 if neither is known.

        `rows_by_time` and `MessageOrder` put the messages in this order.
        """
        found = self.queued
        if any(map(ne, found, found)):  # what is not known differs from itself
            columns = zip(self.rows.done, self.begun(), found, strict=True)
            found = array("d", (
                queued if queued == queued else begun if number and begun == begun else 0.0
                for number, begun, queued in columns
            ))  # fmt: skip
        for row, entry in self.special():
            found[row] = self.times.queued_at(entry) or self.times.begun_at(entry) or 0.0
        return found

    def rows_by_time(self) -> array[int]:
        """Return the rows of all messages by `known_at`, then by id.

        They are put into parts by their time first: in order at once they take four times as much
        memory as their times.
        """
        times, ids = self.known_at(), self.rows.ids
        first, last = self.first_queued_at(), max(times, default=0.0)
        scale = (TIME_PARTS - 1) / (last - first) if last > first else 0.0
        parts = [array("I") for _ in range(TIME_PARTS)]
        for row, at in enumerate(times):
            parts[int((at - first) * scale) if at > first else 0].append(row)
        found = array("I")
        for part in parts:
            found.extend(sorted(part, key=lambda row: (times[row], ids[row])))
        return found

    # ---- figures of the run ----------------------------------------------------------------------

    def first_queued_at(self) -> float:
        """Return when the first message of the run was put into its queue; 0.0 if none was."""
        first = self._first_job
        return min(_known(self.queued), default=0.0) if first is None else first

    @cached_property
    def _first_job(self) -> float | None:
        """When the first job was put into its queue; None if another message may be older.

        It is found without `queued`: no output is older than the first handling that began.
        """
        rows, special, states = self.rows, self._special.queued.items(), self._states
        is_plain = map(SPECIAL.__ne__, rows.done)
        sent = compress(rows.sent, is_plain)  # these are jobs
        first = min(_known(chain(sent, (at for row, at in special if states[row]))), default=None)
        others = chain(self.begun(), (at for row, at in special if not states[row]))
        if first is None or first > min(_known(others), default=first):
            return None
        return first

    def latencies(self) -> array[float]:
        """Return what `Ledger.latencies` returns."""
        rows = self.rows
        last = array("d", [-1.0]) * len(rows)
        for job, number, ended in zip(rows.job, rows.done, rows.ended, strict=True):
            if number and ended > last[job - 1] and number != SPECIAL:
                last[job - 1] = ended
        for row, ended in self._special.last.items():
            last[row] = max(last[row], ended)
        is_done = self._states.translate(bytes(each == MEMBER for each in range(256)))
        columns = zip(compress(last, is_done), compress(rows.sent, is_done), strict=True)
        return array("d", (end - sent for end, sent in columns if end >= 0.0 and sent == sent))

    def summary(self, counts: Mapping[tuple[str, str], int]) -> RunSummary:
        """Return the figures of the run; *counts* are the attempts by stage and outcome."""
        jobs, confirmed = self.jobs(), self._confirmed()
        return RunSummary(
            sent=jobs.total,
            confirmed=confirmed,
            done=jobs.done,
            retried=sum(number for (_, what), number in counts.items() if what == "retried"),
            dead=jobs.dead,
            lost=confirmed - jobs.done - jobs.dead,
            duplicates=self._special.duplicates,
            seconds=self.seconds(),
            latency=percentiles(self.latencies()),
            reasons=self._reasons(),
            stages=self._stages(counts),
            messages=len(self),
            own_sends=len(self._special.own_sends),
        )

    def jobs(self) -> JobCounts:
        """Return what became of the jobs."""
        total = len(self) - self._states.count(0)
        done, dead = self._states.count(MEMBER), self._states.count(MEMBER | DEAD)
        return JobCounts(total, done, total - done - dead, dead)

    def seconds(self) -> float:
        """Return the time from sending the first job to the last outcome of the run."""
        first = self._first_job
        if first is None:
            first = min(_known(compress(self.queued, self._states)), default=0.0)
        last = max(_known(self.rows.ended), default=first)
        return round(max(0.0, last - first), 3)

    def _confirmed(self) -> int:
        rows, states = self.rows, self._states
        plain = sum([
            1 for state, flags, number in zip(states, rows.flags, rows.done, strict=True)
            if state and (number or flags & CONFIRMED) and number != SPECIAL
        ])  # fmt: skip
        return plain + sum(states[row] > 0 for row in self._special.confirmed)

    def _reasons(self) -> dict[str, int]:
        reasons, others = self._special.reasons, 0
        if len(reasons) > MAX_REASONS:  # those of the widest kinds of error are counted together
            most = dict(reasons.most_common(MAX_COMPARED_REASONS))
            others, reasons, names = reasons.total() - sum(most.values()), Counter(most), list(most)
            for kind in sorted(error_kinds(names, list(most.values())), key=_narrowness):
                if len(reasons) > MAX_REASONS and len(kind.members) > 1:
                    for n in kind.members:
                        del reasons[names[n]]
                    reasons[str(kind)] += kind.number
        ranked = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
        rest = others + sum(count for _, count in ranked[MAX_REASONS:])
        return dict(ranked[:MAX_REASONS]) | ({"other reasons": rest} if rest else {})

    def _stages(self, counts: Mapping[tuple[str, str], int]) -> dict[str, StageSummary]:
        found: dict[str, StageSummary] = {}
        begun, special, first = self.begun(), self._special.stages, dict[str, float]()
        done = self._done_by_stage()
        others = ((stage, b"") for stage in special)  # stages without a plain message
        for stage, is_done in chain(done, others):  # one at a time, to need little memory
            if stage in found:
                continue
            times = StageTimes()
            if is_done:
                times.first = min(compress(begun, is_done))
                times.handling.extend(array("d", compress(self.rows.seconds, is_done)))
                columns = zip(compress(begun, is_done), compress(self.queued, is_done), strict=True)
                times.waits = array("d", (at - since if at > since else 0.0
                                          for at, since in columns if since == since))  # fmt: skip
            times.add(special.get(stage, StageTimes()))
            first[stage] = times.first
            found[stage] = StageSummary(
                done=counts.get((stage, "done"), 0),
                retried=counts.get((stage, "retried"), 0),
                dead=counts.get((stage, "dead"), 0),
                wait=percentiles(times.waits),
                handling=percentiles(times.handling),
            )
        return {stage: found[stage] for stage in sorted(first, key=first.__getitem__)}

    def _done_by_stage(self) -> Iterator[tuple[str, bytes]]:
        """Yield each stage, with 1 for each row of a plain message that it has handled, else 0."""
        names = list(dict.fromkeys(each.stage for each in self.rows.handlings if each))
        numbers = {0: 0, SPECIAL: 0}  # of the stage, from 1, by number of the handling
        for number, each in enumerate(self.rows.handlings):
            if each:
                numbers[number] = names.index(each.stage) + 1
        for first in range(0, len(names), 255):  # as many as fit into a byte
            places = {number: at - first if first < at <= first + 255 else 0
                      for number, at in numbers.items()}  # fmt: skip
            column = bytes(map(places.__getitem__, self.rows.done))
            for at, stage in enumerate(names[first : first + 255], start=1):
                is_done = column.translate(bytes(each == at for each in range(256)))
                if 1 in is_done:
                    yield stage, is_done

    # ---- for pictures and lists ------------------------------------------------------------------

    def moments(self) -> Moments:
        """Return when jobs were sent, and when each stage was done with each message."""
        rows, first, special = self.rows, self.first_queued_at(), self._special
        self.__dict__.pop("queued", None)  # 24 MB of a million jobs; made again if it is needed
        all_ends = self._ends()
        ends = {stage: each.ends[:] for stage, each in special.stages.items()}
        for stage, is_done in self._done_by_stage():
            ends.setdefault(stage, array("d")).extend(array("d", compress(all_ends, is_done)))
        del all_ends  # as above; and one stage at a time, for the same reason
        stages = [(name, _after(first, ends.pop(name))) for name in list(ends)]
        stages = [(name, each) for name, each in stages if each]
        sent = _after(first, _known(rows.sent))
        stages.sort(key=lambda stage: stage[1][0])
        deaths = {stage: _after(first, each) for stage, each in special.deaths.items()}
        return Moments(sent, stages, deaths)

    def ends_of_jobs(self, *, is_dead: bool | None = None) -> array[float]:
        """Return when the last message of each settled job was first done or dead, in order.

        In seconds after the first message was put into its queue. With *is_dead* only of the jobs
        that are dead, or of those that are not.
        """
        last = array("d", [NEVER]) * len(self)
        for job, ended in zip(self.rows.job, self.rows.ended, strict=True):
            if ended == ended and not last[job - 1] >= ended:
                last[job - 1] = ended
        states = zip(self._states, last, strict=True)
        settled = [at for state, at in states if at == at and not state & OPEN
                   and (is_dead is None or is_dead == bool(state & DEAD))]  # fmt: skip
        return _after(self.first_queued_at(), settled)

    def by_queue(self) -> dict[str, int]:
        """Return how many messages were put into each queue, by plain name."""
        return {self.rows.queues[number]: n for number, n in Counter(self.rows.queue).items()}

    def number_of_jobs(self, rows: Iterable[int]) -> int:
        """Return of how many jobs the messages in *rows* are."""
        columns, marks, others = self.rows, bytearray(len(self)), set[str]()
        for row in rows:
            if columns.done[row] != SPECIAL:
                marks[columns.job[row] - 1] = 1
            elif (found := columns.ids.find(job := columns.entry(row).of_job)) >= 0:
                marks[found] = 1
            else:
                others.add(job)
        return sum(marks) + len(others)

    def ids_in(self, queues: Collection[str]) -> set[str]:
        """Return the ids of the messages that were put into one of *queues*, by plain name."""
        rows = self.rows
        numbers = {n for n, name in enumerate(rows.queues) if name in queues}
        return {rows.ids[row] for row, number in enumerate(rows.queue) if number in numbers}

    def dead(self) -> list[LedgerEntry]:
        """Return the dead messages, by the time at which they were put into their queues."""
        found = [entry for _, entry in self.rows.special_entries() if entry.is_dead]
        times = self.times
        return sorted(found, key=lambda e: (times.queued_at(e) or times.begun_at(e) or 0.0, e.id))

    def special(self) -> Iterator[tuple[int, LedgerEntry]]:
        """Yield the row and the entry of each message that is not plain."""
        return self.rows.special_entries()


def _narrowness(kind: ErrorKind) -> int:
    return -len(kind.members)


def _known(times: Iterable[float]) -> Iterator[float]:
    """Yield *times* without `NEVER`."""
    return filterfalse(isnan, times)


def _after(first: float, times: Iterable[float]) -> array[float]:
    """Return how long after *first* each of *times* is, at least 0, in ascending order."""
    found = array("d", map((-first).__add__, sorted(times)))
    early = bisect_left(found, 0.0)
    found[:early] = array("d", bytes(8 * early))
    return found

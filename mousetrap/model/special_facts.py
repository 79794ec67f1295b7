"""What the figures of a run need to know of its special messages (see `LedgerRows`)."""

from __future__ import annotations

from array import array
from collections import Counter

from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.ledger_rows import NEVER, OPEN, SPECIAL, LedgerRows
from mousetrap.model.ledger_times import LedgerTimes
from mousetrap.model.outcome import Outcome

MEMBER, DEAD = 1, 8  # of the state of a job, with `OPEN`: it has messages; one of them is dead


class StageTimes:
    """Times of the attempts of one stage, in seconds; `first` is when its first attempt began."""

    def __init__(self) -> None:
        self.waits = array("d")
        self.handling = array("d")
        self.ends = array("d")  # when it was done with each special message
        self.first = float("inf")

    def add(self, other: StageTimes) -> None:
        """Add the times of other attempts."""
        self.waits.extend(other.waits)
        self.handling.extend(other.handling)
        self.first = min(self.first, other.first)


class SpecialFacts:
    """What the figures need to know of the special messages, each of which is unpacked once."""

    def __init__(self, times: LedgerTimes, rows: LedgerRows) -> None:
        self.queued: dict[int, float] = {}  # by row; also of the plain ones that they published
        self.states: dict[int, int] = {}  # of jobs, by row
        self.last: dict[int, float] = {}  # when the last of a job's messages was settled, by row
        self.confirmed: list[int] = []  # rows
        self.stages: dict[str, StageTimes] = {}
        self.reasons: Counter[str] = Counter()
        self.deaths: dict[str, array[float]] = {}  # by stage
        self.own_sends: set[str] = set()
        self.duplicates = 0
        self._times = times
        self._rows = rows
        for row, entry in rows.special_entries():
            self._add(row, entry)
            for outcome in entry.outcomes:
                self._add_outcome(outcome)

    def _add(self, row: int, entry: LedgerEntry) -> None:
        times, outcome = self._times, entry.outcome
        queued = times.queued_at(entry)
        self.queued[row] = NEVER if queued is None else queued
        if (job := self._rows.ids.find(entry.of_job)) >= 0:
            dead = DEAD if entry.is_dead else 0
            state = self._rows.flags[row] & OPEN | MEMBER | dead
            self.states[job] = self.states.get(job, 0) | state
            if entry.outcomes:
                self.last[job] = max(self.last.get(job, 0.0), entry.ended or 0.0)
        if entry.is_confirmed or entry.outcomes:
            self.confirmed.append(row)
        self.duplicates += max(0, entry.finals - 1 - entry.replays)
        if outcome is not None and outcome.is_final:
            end = times.time(outcome, outcome.ended)
            if not entry.is_dead:
                self._stage(outcome.stage).ends.append(end)
            else:
                self.deaths.setdefault(outcome.stage, array("d")).append(end)
                self.reasons[outcome.reason or "no reason given"] += 1
        for attempt, wait in times.waits(entry):
            self._stage(attempt.stage).waits.append(wait)

    def _add_outcome(self, outcome: Outcome) -> None:
        stage, times = self._stage(outcome.stage), self._times
        stage.handling.append(outcome.seconds)
        stage.first = min(stage.first, times.time(outcome, outcome.begun))
        for output in outcome.outputs:
            if output.is_own:
                self.own_sends.add(output.id)
            row = self._rows.ids.find(output.id)
            if row >= 0 and self._rows.done[row] != SPECIAL:
                self.queued[row] = times.time(outcome, outcome.ended)

    def _stage(self, name: str) -> StageTimes:
        if (found := self.stages.get(name)) is None:
            found = self.stages[name] = StageTimes()
        return found

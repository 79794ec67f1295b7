"""The ledger as it would be without any care for memory: one object for each message.

`mousetrap.model.ledger.Ledger` keeps columns of numbers instead, and must answer the same.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from mousetrap.model.ledger_entry import LedgerEntry, precedence
from mousetrap.model.ledger_times import LedgerTimes
from mousetrap.model.message import copy_id
from mousetrap.model.outcome import unpack
from mousetrap.model.summary import RunSummary, StageSummary, percentiles
from mousetrap.model.topology import unrouted


class PlainLedger(LedgerTimes):
    """Has the facts and questions of `Ledger` that the tests compare."""

    def __init__(self, reads, routed=lambda _, __: ()):
        super().__init__()
        self._reads = reads
        self._routed = routed
        self._entries = {}
        self._open = {}
        self._counts = Counter()
        self.published = Counter()
        self.dead = 0

    def sent(self, job, queue, at, body=None, delay=0.0):
        entry = self._entry(job)
        entry.queue, entry.job, entry.delay = queue, job, delay
        entry.sent = at if entry.sent is None else min(entry.sent, at)
        entry.body = body or entry.body
        self._update_open(entry)

    def confirmed(self, job):
        self._entry(job).is_confirmed = True

    def replayed(self, id):
        entry = self._entry(id)
        entry.replays += 1
        self._update_open(entry)

    def add_packed(self, body, at):
        self.add(unpack(body), at)

    def add(self, outcomes, at):
        for outcome in outcomes:
            if any(each.exchange for each in outcome.outputs):
                outcome = self._with_copies(outcome)
            entry = self._entry(outcome.id)
            self.note_clock(outcome.worker, outcome.ended, at)
            if outcome.kind != "retried" and (entry.ended is None or at < entry.ended):
                entry.ended = at
            if outcome not in entry.outcomes:
                self._record(entry, outcome)

    def copies(self, exchange, key, id):
        queues = self._routed(exchange, key)
        return [(each, copy_id(id, each)) for each in queues] or [(unrouted(exchange), id)]

    def _with_copies(self, outcome):
        outputs = []
        for each in outcome.outputs:
            copies = self.copies(each.exchange, each.queue, each.id) if each.exchange else ()
            replace = msgspec.structs.replace
            outputs += [replace(each, id=id, queue=q, exchange="") for q, id in copies] or [each]
        return msgspec.structs.replace(outcome, outputs=tuple(outputs))

    def _record(self, entry, outcome):
        self._counts[outcome.stage, outcome.kind] += 1
        entry.queue, entry.parent, entry.job = (
            outcome.queue,
            outcome.parent,
            outcome.job or outcome.id,
        )
        entry.body = entry.body or outcome.body
        entry.outcomes += (outcome,)
        if (known := entry.outcome) is None:
            entry.outcome = outcome
            self.dead += outcome.kind == "dead"
        else:
            entry.outcome = max(known, outcome, key=precedence)
            self.dead += entry.is_dead - (known.kind == "dead")
        if outcome.kind != "retried":
            entry.finals += 1
        self._update_open(entry)
        for output in outcome.outputs:
            child = self._entry(output.id)
            if not child.origins:
                self.published[output.queue] += 1
            child.queue, child.parent, child.job = output.queue, outcome.id, entry.job
            child.delay = output.delay
            child.origins += (outcome,)
            child.body = child.body or output.body
            self._update_open(child)

    def _entry(self, id):
        if (entry := self._entries.get(id)) is None:
            entry = self._entries[id] = LedgerEntry(id)
        return entry

    def _update_open(self, entry):
        is_read = self._reads is None or entry.queue in self._reads
        if is_read and not (entry.finals and entry.finals >= entry.copies):  # copies are 1 or more
            self._open[entry.id] = entry
        else:
            self._open.pop(entry.id, None)

    def entries(self):
        return sorted(
            self._entries.values(),
            key=lambda e: (self.queued_at(e) or self.begun_at(e) or 0.0, e.id),
        )

    def open_ids(self):
        return set(self._open)

    def counts(self):
        return dict(self._counts)

    def rows(self, reads, order):
        """Return what `messages` has in its rows, in order, with whole ids and no path."""
        rows = [
            (
                each.id, each.job or each.id, next((wait for _, wait in self.waits(each)), None),
                each.outcome and each.outcome.seconds,
                max((one.attempt for one in each.outcomes), default=0),
                each.outcome.kind if each.outcome else "open" if each.queue in reads else "result",
            )
            for each in self.entries()
        ]  # fmt: skip
        if order == "slowest":
            rows.sort(key=lambda row: -((row[2] or 0.0) + (row[3] or 0.0)))
        elif order == "attention":
            ranks = ("dead", "open", "retried", "done", "result")
            rows.sort(key=lambda row: (ranks.index(row[5]), -row[4],
                                       -((row[2] or 0.0) + (row[3] or 0.0))))  # fmt: skip
        return rows

    def latencies(self):
        jobs = self._jobs()
        return [
            max(ends) - root.sent
            for job, family in jobs.items()
            if (root := self._entries[job]).sent is not None
            and self._state(family) == "done"
            and (ends := [entry.ended or 0.0 for entry in family if entry.outcomes])
        ]

    def summary(self):
        jobs = self._jobs()
        outcomes = {job: self._state(family) for job, family in jobs.items()}
        ours = [self._entries[job] for job in jobs]
        first = self._first_queued_at(ours)
        last = max((each.ended or first for each in self._entries.values()), default=first)
        done = sum(outcome == "done" for outcome in outcomes.values())
        dead = sum(outcome == "dead" for outcome in outcomes.values())
        confirmed = sum(entry.is_confirmed or bool(entry.outcomes) for entry in ours)
        return RunSummary(
            sent=len(jobs),
            confirmed=confirmed,
            done=done,
            retried=sum(n for (_, what), n in self._counts.items() if what == "retried"),
            dead=dead,
            lost=confirmed - done - dead,
            duplicates=sum(
                max(0, each.finals - 1 - each.replays) for each in self._entries.values()
            ),
            seconds=round(max(0.0, last - first), 3),
            latency=percentiles(self.latencies()),
            reasons=self._reasons(),
            stages=self._stages(),
            messages=len(self._entries),
            own_sends=len(
                {
                    output.id
                    for entry in self._entries.values()
                    for outcome in entry.outcomes
                    for output in outcome.outputs
                    if output.is_own
                }
            ),
        )

    def _jobs(self):
        families = {}
        for entry in self._entries.values():
            families.setdefault(entry.job or entry.id, []).append(entry)
        return {job: family for job, family in families.items() if job in self._entries}

    def _state(self, family):
        if any(entry.id in self._open for entry in family):
            return "open"
        return "dead" if any(entry.is_dead for entry in family) else "done"

    def _reasons(self):
        counts = {}
        for entry in self._entries.values():
            if entry.is_dead and (outcome := entry.outcome) is not None:
                reason = outcome.reason or "no reason given"
                counts[reason] = counts.get(reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))

    def _stages(self):
        waits = {}
        for entry in self._entries.values():
            for outcome, wait in self.waits(entry):
                waits.setdefault(outcome.stage, []).append(wait)
        outcomes = {}
        for entry in self._entries.values():
            for outcome in entry.outcomes:
                outcomes.setdefault(outcome.stage, []).append(outcome)
        order = sorted(
            outcomes, key=lambda stage: min(self.time(f, f.begun) for f in outcomes[stage])
        )
        return {
            stage: StageSummary(
                done=sum(outcome.kind == "done" for outcome in outcomes[stage]),
                retried=sum(outcome.kind == "retried" for outcome in outcomes[stage]),
                dead=sum(outcome.kind == "dead" for outcome in outcomes[stage]),
                wait=percentiles(waits.get(stage, [])),
                handling=percentiles([outcome.seconds for outcome in outcomes[stage]]),
            )
            for stage in order
        }

    def _first_queued_at(self, entries):
        times = [self.queued_at(each) for each in entries]
        return min((at for at in times if at is not None), default=0.0)

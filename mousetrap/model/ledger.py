"""The ledger of a run: what happened to each message, and which messages are still open.

Bookkeeping only; nothing here talks to a broker. The facts are the jobs that a run sent and the
`Outcome` of each attempt. The same facts give the same ledger, in whatever order and however often
they are added. A message is *settled* when it was done or dead as often as it is known to have been
put into its queue, or when no stage reads that queue. A run is settled when all its messages are.
Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from mousetrap.errors import UndecodableMessage
from mousetrap.model.ledger_entry import LedgerEntry, precedence
from mousetrap.model.message import copy_id
from mousetrap.model.outcome import Outcome, Output, unpack
from mousetrap.model.summary import RunSummary, StageSummary, percentiles
from mousetrap.model.topology import unrouted
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import Waiter

MAX_REASONS = 20  # of a summary, the most frequent; each may have a thousand characters
# Seconds. A worker's clock counts as right if the shortest time from the end of an attempt to the
# arrival of its outcome lies in 0..MAX_CLOCK_ERROR; otherwise the worker's times are corrected.
MAX_CLOCK_ERROR = 0.5
IDLE_BEFORE_CHECK = 0.01  # seconds without an outcome after which `wait_for` checks the ledger
MAX_CHECK_INTERVAL = 0.25  # seconds after which it checks anyway; more often slows the workers down

Routed: TypeAlias = Callable[[str, str], Sequence[str]]
"""Returns the queues that an exchange (by plain name) passes a message with a routing key to."""


class Ledger:
    """Keeps a `LedgerEntry` for each message of a run.

    *reads* are the queues that stages of the run read, by plain name. A message in any other queue
    is a result: no stage handles it, so it is settled once it is there. Without *reads* every
    output is expected to be handled. A message to an exchange is expected in each queue that
    *routed* returns for it, or, if it returns none, as a result in the queue `unrouted` names.

    `add_packed` only stores the bytes; they are decoded when a caller next asks the ledger
    anything. So the ledger costs very little while workers run at full rate.

    Threads: any.
    """

    def __init__(
        self, reads: Collection[str] | None = None, routed: Routed = lambda _, __: ()
    ) -> None:
        self._lock = forks.released_in_child(threads.RLock())
        self._waiter = Waiter()  # notified when facts were added
        self._reads = None if reads is None else frozenset(reads)
        self._routed = routed
        self._entries: dict[str, LedgerEntry] = {}
        self._open: dict[str, LedgerEntry] = {}  # in the order in which they became open
        self._offsets: dict[str, float] = {}  # worker -> shortest time from its `ended` to us
        self._counts: Counter[tuple[str, str]] = Counter()  # attempts by stage and outcome
        self._published: Counter[str] = Counter()  # messages that stages published, by queue
        self._dead = 0
        self._packed: deque[tuple[bytes, float]] = deque()  # not decoded so far
        self._received_at = 0.0  # on the monotonic clock
        self.error: UndecodableMessage | None = None  # a body did not hold outcomes

    # ---- facts -----------------------------------------------------------------------------------

    def sent(
        self, job: str, queue: str, at: float, body: bytes | None = None, delay: float = 0.0
    ) -> None:
        """Record that *job* was given to the publisher at time *at*: for *queue*, in *delay* s."""
        with self._lock:
            entry = self._entry(job)
            entry.queue, entry.job, entry.delay = queue, job, delay
            entry.sent = at if entry.sent is None else min(entry.sent, at)
            entry.body = body or entry.body
            self._update_open(entry)

    def confirmed(self, job: str) -> None:
        """Record that the broker confirmed *job*."""
        with self._lock:
            self._entry(job).is_confirmed = True
        self._waiter.notify_all()

    def add_packed(self, body: bytes, at: float) -> None:
        """Record the packed outcomes in *body*, received at time *at*; never blocks."""
        self._packed.append((body, at))
        self._received_at = clock.monotonic()
        self._waiter.notify_all()

    def add(self, outcomes: Iterable[Outcome], at: float) -> None:
        """Record *outcomes*, received at time *at*; one that is known is not counted again."""
        with self._lock:
            self._add(outcomes, at)
        self._waiter.notify_all()

    def replayed(self, id: str) -> None:
        """Record that message *id*, which was dead, was put into its queue again."""
        with self._lock:
            entry = self._entry(id)
            entry.replays += 1
            self._update_open(entry)

    def _unpack_all(self) -> None:
        """Decode and record the stored bodies; the caller holds `_lock`."""
        for _ in range(len(self._packed)):  # bodies that arrive meanwhile wait for the next call
            body, at = self._packed.popleft()
            try:
                self._add(unpack(body), at)
            except UndecodableMessage as error:  # another program published to our exchange
                self.error = error

    def _add(self, outcomes: Iterable[Outcome], at: float) -> None:
        newest: dict[str, float] = {}
        for outcome in outcomes:
            for each in outcome.outputs:  # a loop, because `any` takes three times as long
                if each.exchange:
                    outcome = self._with_copies(outcome)
                    break
            entry = self._entry(outcome.id)
            ended = outcome.begun + outcome.seconds
            if ended > newest.get(outcome.worker, 0.0):
                newest[outcome.worker] = ended
            if outcome.kind != "retried" and (entry.ended is None or at < entry.ended):
                entry.ended = at
            if outcome not in entry.outcomes:
                self._record(entry, outcome)
        for worker, ended in newest.items():
            self._offsets[worker] = min(self._offsets.get(worker, at - ended), at - ended)

    def copies(self, exchange: str, key: str, id: str) -> list[tuple[str, str]]:
        """Return the queue and the id of each copy of message *id* that *exchange* passes on."""
        queues = self._routed(exchange, key)
        return [(each, copy_id(id, each)) for each in queues] or [(unrouted(exchange), id)]

    def _with_copies(self, outcome: Outcome) -> Outcome:
        """Return *outcome* with the copies in queues in place of the outputs to exchanges."""
        outputs: list[Output] = []
        for each in outcome.outputs:
            copies = self.copies(each.exchange, each.queue, each.id) if each.exchange else ()
            replace = msgspec.structs.replace
            outputs += [replace(each, id=id, queue=q, exchange="") for q, id in copies] or [each]
        return msgspec.structs.replace(outcome, outputs=tuple(outputs))

    def _record(self, entry: LedgerEntry, outcome: Outcome) -> None:
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
            self._dead += outcome.kind == "dead"
        else:
            entry.outcome = max(known, outcome, key=precedence)
            self._dead += entry.is_dead - (known.kind == "dead")
        if outcome.kind != "retried":
            entry.finals += 1
        self._update_open(entry)
        for output in outcome.outputs:
            child = self._entry(output.id)
            if not child.origins:
                self._published[output.queue] += 1
            child.queue, child.parent, child.job = output.queue, outcome.id, entry.job
            child.delay = output.delay
            child.origins += (outcome,)
            child.body = child.body or output.body
            self._update_open(child)

    def _entry(self, id: str) -> LedgerEntry:
        if (entry := self._entries.get(id)) is None:
            entry = self._entries[id] = LedgerEntry(id)
        return entry

    def _update_open(self, entry: LedgerEntry) -> None:
        """Record whether *entry* is open: a stage reads its queue, and a copy is not settled."""
        is_read = self._reads is None or entry.queue in self._reads
        if is_read and not (entry.finals and entry.finals >= entry.copies):  # copies are 1 or more
            self._open[entry.id] = entry
        else:
            self._open.pop(entry.id, None)

    # ---- questions -------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many messages are not settled yet."""
        with self._lock:
            self._unpack_all()
            return len(self._open)

    @property
    def dead(self) -> int:
        """How many messages are dead, as far as is known."""
        with self._lock:
            self._unpack_all()
            return self._dead

    def published(self) -> dict[str, int]:
        """Return how many messages stages have published to each queue, by plain name."""
        with self._lock:
            self._unpack_all()
            return dict(self._published)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return attempts by stage: ``{"fetch": {"done": 88, "retried": 3, "dead": 0}}``."""
        with self._lock:
            self._unpack_all()
            counts = dict(self._counts)
        stages = dict.fromkeys(stage for stage, _ in counts)
        return {
            stage: {
                outcome: counts.get((stage, outcome), 0) for outcome in ("done", "retried", "dead")
            }
            for stage in stages
        }

    def open_entries(self) -> list[LedgerEntry]:
        """Return the messages that are not settled, in the order in which they became open."""
        with self._lock:
            self._unpack_all()
            return list(self._open.values())

    def entries(self) -> list[LedgerEntry]:
        """Return every message, by the time at which it was put into a queue: jobs come first."""
        with self._lock:
            self._unpack_all()
            known = list(self._entries.values())
        return sorted(known, key=lambda e: (self.queued_at(e) or self.begun_at(e) or 0.0, e.id))

    def wait_for(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until *reached* returns True; say whether it did within *timeout* seconds.

        *reached* is called when no outcome has arrived for `IDLE_BEFORE_CHECK`, and at least every
        `MAX_CHECK_INTERVAL`. No fact is added while it runs.
        """
        deadline = clock.monotonic() + timeout
        checked = 0.0

        def check() -> bool:
            nonlocal checked
            latest = min(deadline, checked + MAX_CHECK_INTERVAL)
            while (now := clock.monotonic()) < min(latest, self._received_at + IDLE_BEFORE_CHECK):
                clock.sleep(min(latest, self._received_at + IDLE_BEFORE_CHECK) - now)
            try:
                with self._lock:  # all questions that *reached* asks get answers to the same facts
                    return reached()
            finally:
                checked = clock.monotonic()

        return self._waiter.wait_for(check, timeout)

    def time(self, outcome: Outcome, at: float) -> float:
        """Convert *at* from the clock of *outcome*'s worker to the ledger's clock.

        The shortest time between the end of an attempt of this worker and the arrival of its
        outcome is taken as the difference of the clocks, unless it lies in 0..`MAX_CLOCK_ERROR`.
        """
        offset = self._offsets[outcome.worker]
        return at if 0 <= offset < MAX_CLOCK_ERROR else at + offset

    def queued_at(self, entry: LedgerEntry) -> float | None:
        """Return when *entry* was first put into its queue."""
        times = [self.time(origin, origin.ended) for origin in entry.origins]
        return min([*times, *([] if entry.sent is None else [entry.sent])], default=None)

    def due_at(self, entry: LedgerEntry) -> float | None:
        """Return when *entry* could first be delivered: after its delay."""
        at = self.queued_at(entry)
        return None if at is None else at + entry.delay

    def first_queued_at(self) -> float:
        """Return when the first message of the run was put into its queue; 0.0 if none was."""
        with self._lock:
            self._unpack_all()
            return self._first_queued_at(self._entries.values())

    def _first_queued_at(self, entries: Iterable[LedgerEntry]) -> float:
        times = [self.queued_at(each) for each in entries]
        return min((at for at in times if at is not None), default=0.0)

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

    def latencies(self) -> list[float]:
        """Return, for each done job of this run, the seconds from sending it to its last outcome.

        The last outcome is that of the job or of any message that came from it. A job that was
        sent to a queue that no stage reads has none, and is left out.
        """
        with self._lock:
            self._unpack_all()
            jobs = self._jobs()
        return [
            max(ends) - root.sent
            for job, family in jobs.items()
            if (root := self._entries[job]).sent is not None
            and self._state(family) == "done"
            and (ends := [entry.ended or 0.0 for entry in family if entry.outcomes])
        ]

    def summary(self) -> RunSummary:
        """Return the figures of the run, as far as they are known now."""
        with self._lock:
            self._unpack_all()
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
            )

    def _jobs(self) -> dict[str, list[LedgerEntry]]:
        families: dict[str, list[LedgerEntry]] = {}
        for entry in self._entries.values():
            families.setdefault(entry.job or entry.id, []).append(entry)
        return {job: family for job, family in families.items() if job in self._entries}

    def _state(self, family: list[LedgerEntry]) -> str:
        if any(entry.id in self._open for entry in family):
            return "open"
        return "dead" if any(entry.is_dead for entry in family) else "done"

    def _reasons(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for entry in self._entries.values():
            if entry.is_dead and (outcome := entry.outcome) is not None:
                reason = outcome.reason or "no reason given"
                counts[reason] = counts.get(reason, 0) + 1
        ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        rest = sum(count for _, count in ranked[MAX_REASONS:])
        return dict(ranked[:MAX_REASONS]) | ({"other reasons": rest} if rest else {})

    def _stages(self) -> dict[str, StageSummary]:
        waits: dict[str, list[float]] = {}
        for entry in self._entries.values():
            for outcome, wait in self.waits(entry):
                waits.setdefault(outcome.stage, []).append(wait)
        outcomes: dict[str, list[Outcome]] = {}
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

"""The record of what became of each message: told facts, it says what is still open.

Pure bookkeeping, no broker. The facts are what a run sent and the `Outcome` of each attempt; in any
order and however often they come, the same facts give the same ledger. A message is *settled*
when it is done or dead as often as it is known to have been put into its queue, a run when all its
messages are. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator

import msgspec

from mousetrap.errors import UndecodableMessage
from mousetrap.model.outcome import Outcome, unpack
from mousetrap.model.summary import RunSummary, StageSummary, percentiles
from mousetrap.runtime import clock, threads
from mousetrap.runtime.interrupt import Waiter

MAX_REASONS = 20  # in a record: the most frequent; each may be a thousand characters
SAME_CLOCK = 0.5  # seconds: workers whose clock is less off than that are taken at their word
QUIET = 0.01  # seconds without a fate after which one who waits looks: it may be over
LOOK = 0.25  # seconds after which one looks all the same: who counts takes time from who works

_RANK = {"retried": 0, "dead": 1, "done": 2}


class LedgerEntry(
    msgspec.Struct, gc=False
):  # tuples, not lists: what Python's collector need not visit
    """All that is known of one message. Times are seconds since 1970 on the ledger's clock."""

    id: str
    queue: str = ""  # where it was put first, by plain name
    job: str = ""
    parent: str | None = None
    sent: float | None = None  # when this run sent it
    is_confirmed: bool = False  # sent by this run, and the broker has it
    origins: tuple[Outcome, ...] = ()  # handlings that sent it on
    outcomes: tuple[Outcome, ...] = ()
    replays: int = 0  # how often it was taken out of its dead queue and sent again
    outcome: Outcome | None = (
        None  # the one that counts: done if it ever was, else dead, else the latest
    )
    finals: int = 0  # how often it was done or dead: more than once if it was delivered twice
    ended: float | None = None  # when its first final fate became known
    body: bytes | None = None

    @property
    def copies(self) -> int:
        """How often it is known to have been put into its queue."""
        return ((len(self.origins) + (self.sent is not None)) or 1) + self.replays

    @property
    def is_dead(self) -> bool:
        """It ended in the dead queue, and was never done."""
        return self.outcome is not None and self.outcome.kind == "dead"


class Ledger:
    """Keeps an `LedgerEntry` for each message of a run.

    *reads* are the queues that stages of the run read, by plain name. What is sent to any other
    queue is a result: nobody here will say more of it, so it is settled when it is there. Without
    *reads* every output is expected to be handled.

    Fates that were only heard are entered when somebody asks for anything: while workers are at
    full rate and nobody looks, knowing costs next to nothing.

    Threads: any. `changed` is held while facts are added.
    """

    def __init__(self, reads: Collection[str] | None = None) -> None:
        self.changed = threads.RLock()
        self._bell = Waiter()  # rings when facts were added
        self._reads = None if reads is None else frozenset(reads)
        self._entries: dict[str, LedgerEntry] = {}
        self._open: dict[str, LedgerEntry] = {}  # in the order in which they became open
        self._offsets: dict[str, float] = {}  # worker -> least time from its end of work to us
        self._counts: Counter[tuple[str, str]] = Counter()  # handlings by stage and outcome
        self._sent_to: Counter[str] = Counter()  # messages that stages sent, by queue
        self._deaths = 0
        self._heard: deque[tuple[bytes, float]] = deque()  # not entered so far
        self._heard_at = 0.0  # on the monotonic clock
        self.error: UndecodableMessage | None = None  # something heard was not fates

    # ---- facts -----------------------------------------------------------------------------------

    def sent(self, job: str, queue: str, at: float, body: bytes | None = None) -> None:
        """Note that *job* was handed to the publisher for *queue* at time *at*."""
        with self.changed:
            entry = self._entry(job)
            entry.queue, entry.job = queue, job
            entry.sent = at if entry.sent is None else min(entry.sent, at)
            entry.body = body or entry.body
            self._weigh(entry)

    def confirmed(self, job: str) -> None:
        """Note that the broker has taken responsibility for *job*."""
        with self.changed:
            self._entry(job).is_confirmed = True
        self._bell.notify_all()

    def add_packed(self, body: bytes, at: float) -> None:
        """Note the packed fates in *body*, which became known at time *at*; never blocks."""
        self._heard.append((body, at))
        self._heard_at = clock.monotonic()
        self._bell.notify_all()

    def add(self, outcomes: Iterable[Outcome], at: float) -> None:
        """Note *outcomes*, which became known at time *at*; those known already change nothing."""
        with self.changed:
            self._enter(outcomes, at)
        self._bell.notify_all()

    def replayed(self, id: str) -> None:
        """Note that message *id*, which was dead, was put into its queue once more."""
        with self.changed:
            entry = self._entry(id)
            entry.replays += 1
            self._weigh(entry)

    def _enter_heard(self) -> None:
        """Enter what was heard so far; `changed` is held."""
        for _ in range(len(self._heard)):  # what comes in the meantime is for the next one to ask
            body, at = self._heard.popleft()
            try:
                self._enter(unpack(body), at)
            except UndecodableMessage as error:  # somebody else's message on our exchange
                self.error = error

    def _enter(self, outcomes: Iterable[Outcome], at: float) -> None:
        newest: dict[str, float] = {}
        for outcome in outcomes:
            entry = self._entry(outcome.id)
            ended = outcome.begun + outcome.seconds
            if ended > newest.get(outcome.worker, 0.0):
                newest[outcome.worker] = ended
            if outcome.kind != "retried" and (entry.ended is None or at < entry.ended):
                entry.ended = at
            if outcome not in entry.outcomes:
                self._note(entry, outcome)
        for worker, ended in newest.items():
            self._offsets[worker] = min(self._offsets.get(worker, at - ended), at - ended)

    def _note(self, entry: LedgerEntry, outcome: Outcome) -> None:
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
            self._deaths += outcome.kind == "dead"
        else:
            entry.outcome = max(known, outcome, key=_weight)
            self._deaths += entry.is_dead - (known.kind == "dead")
        if outcome.kind != "retried":
            entry.finals += 1
        self._weigh(entry)
        for output in outcome.outputs:
            child = self._entry(output.id)
            if not child.origins:
                self._sent_to[output.queue] += 1
            child.queue, child.parent, child.job = output.queue, outcome.id, entry.job
            child.origins += (outcome,)
            child.body = child.body or output.body
            self._weigh(child)

    def _entry(self, id: str) -> LedgerEntry:
        if (entry := self._entries.get(id)) is None:
            entry = self._entries[id] = LedgerEntry(id)
        return entry

    def _weigh(self, entry: LedgerEntry) -> None:
        """Say whether *entry* is open: put into a queue that is read more often than settled."""
        is_read = self._reads is None or entry.queue in self._reads
        if is_read and not (entry.finals and entry.finals >= entry.copies):  # copies are 1 or more
            self._open[entry.id] = entry
        else:
            self._open.pop(entry.id, None)

    # ---- questions -------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many messages have no final fate yet."""
        with self.changed:
            self._enter_heard()
            return len(self._open)

    @property
    def dead(self) -> int:
        """How many messages are dead, so far as is known."""
        with self.changed:
            self._enter_heard()
            return self._deaths

    def sent_to(self, queue: str) -> int:
        """How many messages stages have sent to *queue*."""
        with self.changed:
            self._enter_heard()
            return self._sent_to[queue]

    def counts(self) -> dict[str, dict[str, int]]:
        """Handlings by stage and outcome: ``{"fetch": {"done": 88, "retried": 3, "dead": 0}}``."""
        with self.changed:
            self._enter_heard()
            counts = dict(self._counts)
        stages = dict.fromkeys(stage for stage, _ in counts)
        return {
            stage: {
                outcome: counts.get((stage, outcome), 0) for outcome in ("done", "retried", "dead")
            }
            for stage in stages
        }

    def open_entries(self) -> list[LedgerEntry]:
        """The messages without a final fate, in the order in which they became open."""
        with self.changed:
            self._enter_heard()
            return list(self._open.values())

    def entries(self) -> list[LedgerEntry]:
        """Every message, jobs before what came of them, in the order of sending."""
        with self.changed:
            self._enter_heard()
            known = list(self._entries.values())
        return sorted(known, key=lambda e: (self.queued_at(e) or self.begun_at(e) or 0.0, e.id))

    def wait_for(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until *reached*, asked soon after facts were added; say whether it was."""
        deadline = clock.monotonic() + timeout
        looked = 0.0

        def asked() -> bool:
            nonlocal looked
            latest = min(deadline, looked + LOOK)
            while (now := clock.monotonic()) < min(latest, self._heard_at + QUIET):
                clock.sleep(min(latest, self._heard_at + QUIET) - now)
            try:
                with self.changed:  # half-way through a batch of facts, less may be open than is
                    return reached()
            finally:
                looked = clock.monotonic()

        return self._bell.wait_for(asked, timeout)

    def time(self, outcome: Outcome, at: float) -> float:
        """Turn *at* on the worker's clock into the ledger's, should that one be off."""
        offset = self._offsets[outcome.worker]
        return at if 0 <= offset < SAME_CLOCK else at + offset

    def queued_at(self, entry: LedgerEntry) -> float | None:
        """When *entry* was first put into its queue."""
        times = [self.time(origin, origin.ended) for origin in entry.origins]
        return min([*times, *([] if entry.sent is None else [entry.sent])], default=None)

    def first_queued_at(self) -> float:
        """Return when the first message of the run was put into its queue; 0.0 if none was."""
        with self.changed:
            self._enter_heard()
            return self._first_queued_at(self._entries.values())

    def _first_queued_at(self, entries: Iterable[LedgerEntry]) -> float:
        return min(
            (at for each in entries if (at := self.queued_at(each)) is not None), default=0.0
        )

    def begun_at(self, entry: LedgerEntry) -> float | None:
        """When somebody first took *entry* in hand."""
        return min((self.time(outcome, outcome.begun) for outcome in entry.outcomes), default=None)

    def waits(self, entry: LedgerEntry) -> Iterator[tuple[Outcome, float]]:
        """Each handling of *entry*, and how long the message had been waiting for it in seconds.

        A retry waits from the end of its delay. Not before the message was sent on, as far as the
        clocks of two machines can tell.
        """
        ready = self.queued_at(entry)
        for outcome in sorted(entry.outcomes, key=lambda outcome: (outcome.attempt, outcome.begun)):
            if ready is not None:
                yield outcome, max(0.0, self.time(outcome, outcome.begun) - ready)
            ready = None
            if outcome.kind == "retried":
                ready = self.time(outcome, outcome.ended) + outcome.delay

    def latencies(self) -> list[float]:
        """Seconds from sending to the last fate of what came of it, for each job that is done."""
        with self.changed:
            self._enter_heard()
            jobs = self._jobs()
        return [
            max(entry.ended or 0.0 for entry in family if entry.outcomes) - root.sent
            for job, family in jobs.items()
            if (root := self._entries[job]).sent is not None and self._outcome(family) == "done"
        ]

    def summary(self) -> RunSummary:
        """Sum up what is known now."""
        with self.changed:
            self._enter_heard()
            jobs = self._jobs()
            outcomes = {job: self._outcome(family) for job, family in jobs.items()}
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

    def _outcome(self, family: list[LedgerEntry]) -> str:
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


def _weight(outcome: Outcome) -> tuple[int, int, float]:
    return _RANK[outcome.kind], outcome.attempt, outcome.begun

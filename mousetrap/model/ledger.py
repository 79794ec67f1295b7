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
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from mousetrap.errors import UndecodableMessage
from mousetrap.model import ledger_progress
from mousetrap.model.ledger_entry import LedgerEntry, precedence
from mousetrap.model.ledger_figures import LedgerFigures
from mousetrap.model.ledger_progress import JobTotal, RunProgress
from mousetrap.model.ledger_rows import LedgerRows
from mousetrap.model.ledger_times import LedgerTimes
from mousetrap.model.message import copy_id
from mousetrap.model.outcome import DecodedBatch, Outcome, Output, unpack_batch
from mousetrap.model.summary import RunSummary
from mousetrap.model.topology import unrouted
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import Waiter

MAX_BACKLOG = 250_000  # bytes of outcomes, decoded in some 20 ms, while nobody asks
IDLE_BEFORE_CHECK = 0.01  # seconds without an outcome after which `wait_for` checks the ledger
MAX_CHECK_INTERVAL = 0.25  # seconds after which it checks anyway; more often slows the workers down

Routed: TypeAlias = Callable[[str, str], Sequence[str]]
"""Returns the queues that an exchange (by plain name) passes a message with a routing key to."""


class Ledger(LedgerTimes):
    """Keeps a `LedgerEntry` for each message of a run.

    *reads* are the queues that stages of the run read, by plain name. A message in any other queue
    is a result: no stage handles it, so it is settled once it is there. Without *reads* every
    output is expected to be handled. A message to an exchange is expected in each queue that
    *routed* returns for it, or, if it returns none, as a result in the queue `unrouted` names.

    `add_packed` only stores the bytes; they are decoded when a caller next asks the ledger
    anything, or by a thread when they are many. What is known about a message takes 73 bytes for
    nearly all of them (see `LedgerRows`); an entry is made of them when one is asked for.

    Threads: any.
    """

    def __init__(
        self, reads: Collection[str] | None = None, routed: Routed = lambda _, __: ()
    ) -> None:
        super().__init__()
        self._lock = forks.released_in_child(threads.RLock())
        self._waiter = Waiter()  # notified when facts were added
        self._routed = routed
        self._rows = LedgerRows(None if reads is None else frozenset(reads))
        self._counts: Counter[tuple[str, str]] = Counter()  # attempts by stage and outcome
        self._published: Counter[str] = Counter()  # messages that stages published, by queue
        self._jobs = JobTotal()
        self._dead: set[int] = set()  # rows of the messages that are dead
        self._packed: deque[tuple[bytes, float]] = deque()  # not decoded so far
        self._backlog = 0  # bytes that were received since the last decoding began
        self._received_at = 0.0  # on the monotonic clock
        self.error: UndecodableMessage | None = None  # a body did not hold outcomes

    # ---- facts -----------------------------------------------------------------------------------

    def sent(
        self, job: str, queue: str, at: float, body: bytes | None = None, delay: float = 0.0
    ) -> None:
        """Record that *job* was given to the publisher at time *at*: for *queue*, in *delay* s."""
        with self._lock:
            if not (body or delay) and self._rows.add_sent(job, queue, at):
                return
            entry = self._rows.take(job)
            entry.queue, entry.job, entry.delay = queue, job, delay
            entry.sent = at if entry.sent is None else min(entry.sent, at)
            entry.body = body or entry.body
            self._put(entry)

    def confirmed(self, job: str) -> None:
        """Record that the broker confirmed *job*."""
        with self._lock:
            if not self._rows.confirm(job):
                entry = self._rows.take(job)
                entry.is_confirmed = True
                self._rows.put(entry)
        self._waiter.notify_all()

    def add_packed(self, body: bytes, at: float) -> None:
        """Record the packed outcomes in *body*, received at time *at*; never blocks."""
        self._packed.append((body, at))
        self._backlog += len(body)
        if self._backlog > MAX_BACKLOG:
            self._backlog = 0
            threads.Thread(target=self._decode, name="mousetrap-ledger", daemon=True).start()
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
            entry = self._rows.take(id)
            entry.replays += 1
            self._put(entry)

    def _decode(self) -> None:
        with self._lock:
            self._unpack_all()

    def _unpack_all(self) -> None:
        """Decode and record the stored bodies; the caller holds `_lock`."""
        for _ in range(len(self._packed)):  # bodies that arrive meanwhile wait for the next call
            body, at = self._packed.popleft()
            self._backlog = 0
            try:
                batch = unpack_batch(body)
            except UndecodableMessage as error:  # another program published to our exchange
                self.error = error
                continue
            self._add_done(batch, at)
            self._add(batch.others, at)

    def _add_done(self, batch: DecodedBatch, at: float) -> None:
        """Record the outcomes that are done; most of them without making an `Outcome`."""
        if not batch.done:
            return
        common = self._rows.batch(batch.stage, batch.queue, batch.worker, batch.writes)
        special = [each for each in batch.done if not self._rows.add_done(common, each, at)]
        if number := len(batch.done) - len(special):
            self._counts[batch.stage, "done"] += number
            for queue in batch.writes:
                self._published[queue] += number
        self.note_clock(batch.worker, max([each.begun + each.seconds for each in batch.done]), at)
        self._add(map(batch.outcome, special), at)

    def _add(self, outcomes: Iterable[Outcome], at: float) -> None:
        newest: dict[str, float] = {}
        for outcome in outcomes:
            for each in outcome.outputs:  # a loop, because `any` takes three times as long
                if each.exchange:
                    outcome = self._with_copies(outcome)
                    break
            entry = self._rows.take(outcome.id)
            newest[outcome.worker] = max(outcome.ended, newest.get(outcome.worker, 0.0))
            if outcome.kind != "retried" and (entry.ended is None or at < entry.ended):
                entry.ended = at
            if outcome in entry.outcomes:
                self._rows.put(entry)
            else:
                self._record(entry, outcome)
        for worker, ended in newest.items():
            self.note_clock(worker, ended, at)

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
        # Taken before the outcome is added to *entry*, from which an entry may know its origins.
        children = {each.id: self._rows.take(each.id) for each in outcome.outputs}
        entry.queue, entry.parent, entry.job = (
            outcome.queue,
            outcome.parent,
            outcome.job or outcome.id,
        )
        entry.body = entry.body or outcome.body
        entry.outcomes += (outcome,)
        known = entry.outcome
        entry.outcome = outcome if known is None else max(known, outcome, key=precedence)
        if outcome.kind == "dead" or (known is not None and known.kind == "dead"):
            change = self._dead.add if entry.is_dead else self._dead.discard
            change(self._rows.ids.find(entry.id))
        if outcome.kind != "retried":
            entry.finals += 1
        for output in outcome.outputs:
            child = children[output.id]
            if not child.origins:
                self._published[output.queue] += 1
            child.queue, child.parent, child.job = output.queue, outcome.id, entry.job
            child.delay = output.delay
            child.origins += (outcome,)
            child.body = child.body or output.body
        for each in ({entry.id: entry} | children).values():
            self._put(each)

    def _put(self, entry: LedgerEntry) -> None:
        """Keep *entry*; it is open if a stage reads its queue, and a copy is not settled."""
        is_settled = entry.finals and entry.finals >= entry.copies  # copies are 1 or more
        self._rows.put(entry, is_open=self._rows.reads(entry.queue) and not is_settled)

    # ---- questions -------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many messages are not settled yet."""
        with self._lock:
            self._unpack_all()
            return self._rows.open

    @property
    def dead(self) -> int:
        """How many messages are dead, as far as is known."""
        with self._lock:
            self._unpack_all()
            return len(self._dead)

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

    def progress(self) -> RunProgress:
        """Return how far the run is now: its jobs, and the open messages of each queue."""
        with self._lock:
            self._unpack_all()
            return ledger_progress.progress(
                self, self._rows, self._dead, self._jobs, clock.steady_time()
            )

    def last_minute(self) -> tuple[float, dict[str, tuple[int, ...]]]:
        """Return when the last message was settled, and the attempts of the 60 s before that.

        Those are the numbers that ended in each second, by stage.
        """
        with self._lock:
            self._unpack_all()
            return ledger_progress.last_minute(self, self._rows)

    def open_entries(self) -> list[LedgerEntry]:
        """Return the messages that are not settled, in the order in which they became known."""
        return list(self.each_open())

    def each_open(self) -> Iterator[LedgerEntry]:
        """Yield the messages that are not settled, one at a time; they may be settled meanwhile."""
        with self._lock:
            self._unpack_all()
            rows = self._rows.open_rows()
        return self.each_of(rows)

    def entry(self, id: str) -> LedgerEntry | None:
        """Return what is known about the message *id*; None if nothing is."""
        with self._lock:
            row = self._rows.ids.find(id)
            return None if row < 0 else self._rows.entry(row)

    def dead_entries(self) -> list[LedgerEntry]:
        """Return the dead messages, by the time at which they were put into their queues."""
        with self.figures() as figures:
            return figures.dead()

    def entries(self) -> list[LedgerEntry]:
        """Return every message, by the time at which it was put into a queue: jobs come first.

        That takes a kilobyte for each; `figures` and `each_entry` do not.
        """
        return list(self.each_entry()[1])

    def each_entry(self) -> tuple[int, Iterator[LedgerEntry]]:
        """Return how many messages there are, and yield them as `entries` returns them.

        Each is as it is known when it is yielded.
        """
        with self.figures() as figures:
            rows = figures.rows_by_time()
        return len(rows), self.each_of(rows)

    def each_of(self, rows: Iterable[int]) -> Iterator[LedgerEntry]:
        """Yield the message in each of *rows*, which `figures` returned, as it is known then."""
        for row in rows:
            with self._lock:
                entry = self._rows.entry(row)
            yield entry

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

    def first_queued_at(self) -> float:
        """Return when the first message of the run was put into its queue; 0.0 if none was."""
        with self.figures() as figures:
            return figures.first_queued_at()

    def latencies(self) -> list[float]:
        """Return, for each done job of this run, the seconds from sending it to its last outcome.

        The last outcome is that of the job or of any message that came from it. A job that was
        sent to a queue that no stage reads has none, and is left out.
        """
        with self.figures() as figures:
            return list(figures.latencies())

    def summary(self) -> RunSummary:
        """Return the figures of the run, as far as they are known now."""
        with self.figures() as figures:
            return figures.summary(self._counts)

    @contextmanager
    def figures(self) -> Iterator[LedgerFigures]:
        """Enter with what is computed from all messages; no fact is added until the exit."""
        with self._lock:
            self._unpack_all()
            yield LedgerFigures(self, self._rows)

"""The messages of a run as columns of numbers: 73 bytes for each one that is like most others.

A message is *plain* if it was sent or published once and, so far, not handled or done at the first
delivery that became known. What is known about it fits in columns. Any other message is *special*:
it is kept as a `LedgerEntry` while it is open, and packed when it is settled. Which of the two it
is makes no difference to anyone: `take` returns the same entry.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from mousetrap.model.entry_packing import EntryPacking
from mousetrap.model.id_index import IdIndex
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.message import child_key
from mousetrap.model.outcome import DoneRow, Outcome, outputs_of

CONFIRMED, PUBLISHED, OPEN = 1, 2, 4  # flags: confirmed job; the output of its parent; not settled
SPECIAL = 0xFFFF  # in the column `done`
MAX_NUMBER = 0xFFFF  # of queues, and of kinds of handlings
NEVER = float("nan")
ROOM = 1024  # rows that are added to the columns at a time


class HandlingKind(NamedTuple):
    """What the outcomes of many messages have in common."""

    stage: str
    queue: str
    worker: str
    writes: tuple[str, ...]  # the queue of each output


class DoneBatch(NamedTuple):
    """A `HandlingKind` with numbers in place of names, and its own number."""

    number: int
    stage: str
    queue: int
    writes: tuple[int, ...]


class LedgerRows:
    """What is known about each message; *reads* as in `Ledger`. A row is a number from 0.

    Threads: one at a time.
    """

    def __init__(self, reads: Collection[str] | None) -> None:
        self.ids = IdIndex()
        self.queue = array("H")  # a number of `queues`
        self.parent = array("I")  # row + 1; 0 for none
        self.job = array("I")  # row + 1
        self.flags = bytearray()
        self.done = array("H")  # a number of `handlings`; 0: no outcome; `SPECIAL`
        self.attempt = bytearray()
        self.sent = array("d")  # this and the next three: seconds; `NEVER`
        self.begun = array("d")
        self.seconds = array("d")
        self.ended = array("d")
        never = array("d", [NEVER]) * ROOM
        self._columns: list[tuple[Any, Any]] = [
            (self.queue, array("H", bytes(2 * ROOM))), (self.done, array("H", bytes(2 * ROOM))),
            (self.parent, array("I", bytes(4 * ROOM))), (self.job, array("I", bytes(4 * ROOM))),
            (self.flags, bytes(ROOM)), (self.attempt, bytes(ROOM)),
            (self.sent, never), (self.begun, never), (self.seconds, never), (self.ended, never),
        ]  # fmt: skip
        self.queues: list[str] = []
        self.is_read: list[bool] = []  # by number of the queue: a stage reads it
        self.handlings: list[HandlingKind | None] = [None]
        self.special: dict[int, LedgerEntry | bytes] = {}
        self.open = 0  # messages that are not settled
        self._reads = reads
        self._queue_numbers: dict[str, int] = {}
        self._handling_numbers: dict[HandlingKind, int] = {}
        self._first_open = 0  # no row before it is open
        self._packing = EntryPacking(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    # ---- any message -----------------------------------------------------------------------------

    def take(self, id: str) -> LedgerEntry:
        """Return the entry of message *id*, to be changed and then given to `put`."""
        if (row := self.ids.find(id)) < 0:
            row = self.ids.add(id)
            self._add(row, 0, 0, row + 1, 0)
            self.done[row] = SPECIAL
            self.special[row] = entry = LedgerEntry(id)
            return entry
        entry = self.entry(row)
        self.done[row] = SPECIAL
        self.special[row] = entry
        return entry

    def put(self, entry: LedgerEntry, *, is_open: bool | None = None) -> None:
        """Keep *entry*, which `take` returned, in as little memory as possible.

        Without *is_open* it is open or settled as before.
        """
        row = self.ids.find(entry.id)
        if is_open is not None:
            self._set_open(row, is_open=is_open)
        self.sent[row] = NEVER if entry.sent is None else entry.sent
        self.ended[row] = NEVER if entry.ended is None else entry.ended
        if self._put_plain(row, entry):
            del self.special[row]
        elif not self.flags[row] & OPEN:
            is_derived = bool(entry.origins) and entry.origins == self._origins(row, entry)
            self.special[row] = self._packing.pack(entry, with_origins=not is_derived)

    def entry(self, row: int) -> LedgerEntry:
        """Return what is known about the message in *row*; do not change it."""
        if self.done[row] == SPECIAL:
            found = self.special[row]
            if isinstance(found, LedgerEntry):
                return found
            entry, has_origins = self._packing.unpack(found)
            if not has_origins:
                entry.origins = self._origins(row, entry)
            return entry
        flags, parent = self.flags[row], self.parent[row]
        entry = LedgerEntry(
            self.ids[row], self.queues[self.queue[row]], self.ids[self.job[row] - 1],
            self.ids[parent - 1] if parent else None, is_confirmed=bool(flags & CONFIRMED),
        )  # fmt: skip
        if (sent := self.sent[row]) == sent:
            entry.sent = sent
        if flags & PUBLISHED:
            entry.origins = self._origins(row, entry)
        if self.done[row]:
            entry.outcome = self.outcome(row)
            entry.outcomes = (entry.outcome,)
            entry.finals = 1
            entry.ended = self.ended[row]
        return entry

    def outcome(self, row: int) -> Outcome:
        """Return the outcome of the plain message in *row*, which is done."""
        handling = self.handlings[self.done[row]]
        assert handling is not None
        id, parent, job = self.ids[row], self.parent[row], self.job[row] - 1
        return Outcome(
            id, "done", handling.stage, handling.queue, handling.worker, self.begun[row],
            self.seconds[row], self.attempt[row], "" if job == row else self.ids[job],
            self.ids[parent - 1] if parent else None,
            outputs_of(id, handling.stage, handling.writes),
        )  # fmt: skip

    def entries(self) -> Iterator[LedgerEntry]:
        """Yield what is known about each message, one at a time."""
        return map(self.entry, range(len(self)))

    def open_rows(self) -> list[int]:
        """Return the rows that are not settled, in the order in which they became known."""
        flags, first, end = self.flags, self._first_open, len(self)
        while first < end and not flags[first] & OPEN:
            first += 1
        self._first_open = first
        return [row for row in range(first, end) if flags[row] & OPEN]

    def special_entries(self) -> Iterator[tuple[int, LedgerEntry]]:
        """Yield the row and the entry of each special message."""
        return ((row, self.entry(row)) for row in list(self.special))

    def reads(self, queue: str) -> bool:
        """Return whether a stage reads this queue."""
        return self._reads is None or queue in self._reads

    def queue_of(self, row: int) -> str:
        """Return the plain name of the queue of the message in *row*."""
        return self.queues[self.queue[row]]

    def number_of_queue(self, name: str) -> int:
        """Return the number of queue *name*; `MAX_NUMBER` if there are too many."""
        if (number := self._queue_numbers.get(name)) is None:
            if (number := len(self.queues)) == MAX_NUMBER:
                return MAX_NUMBER
            self._queue_numbers[name] = number
            self.queues.append(name)
            self.is_read.append(self.reads(name))
        return number

    def _add(self, row: int, queue: int, parent: int, job: int, flags: int) -> None:
        """Fill *row*, which is new."""
        if row >= len(self.flags):
            self._make_room()
        self.queue[row] = queue
        self.parent[row] = parent
        self.job[row] = job
        if flags:
            self.flags[row] = flags
            self.open += flags & OPEN and 1

    def _make_room(self) -> None:
        for column, empty in self._columns:
            column += empty

    def trim(self) -> None:
        """Let all columns end with the last message, so that they can be read as a whole."""
        for column, _ in self._columns:
            del column[len(self.ids) :]

    def _set_open(self, row: int, *, is_open: bool) -> None:
        if bool(self.flags[row] & OPEN) != is_open:
            self.flags[row] ^= OPEN
            self.open += 1 if is_open else -1
            if is_open:
                self._first_open = min(self._first_open, row)

    def _origins(self, row: int, entry: LedgerEntry) -> tuple[Outcome, ...]:
        """Return the outcomes of the entry's parent that published it."""
        parent = -1 if entry.parent is None else self.ids.find(entry.parent)
        if parent < 0 or parent == row:
            return ()
        known: tuple[Outcome, ...]
        if self.done[parent] != SPECIAL:
            known = (self.outcome(parent),) if self.done[parent] else ()
        elif isinstance(special := self.special[parent], LedgerEntry):
            known = special.outcomes
        else:
            known = self._packing.unpack(special)[0].outcomes
        return tuple([o for o in known for each in o.outputs if each.id == entry.id])

    def _put_plain(self, row: int, entry: LedgerEntry) -> bool:
        """Write *entry* into the columns if it is plain; return whether it is."""
        queue = self.number_of_queue(entry.queue)
        job = self.ids.find(entry.job)
        parent = -1 if entry.parent is None else self.ids.find(entry.parent)
        self.queue[row] = queue
        self.job[row] = (job if job >= 0 else row) + 1
        if (
            entry.replays or entry.delay or entry.body is not None or job < 0
            or queue == MAX_NUMBER or (entry.parent is not None and parent < 0)
            or len(entry.outcomes) > 1 or len(entry.origins) > 1
        ):  # fmt: skip
            return False
        if entry.origins and (entry.sent is not None or entry.origins != self._origins(row, entry)):
            return False
        number = 0
        if entry.outcomes:
            number = self._number_of_plain(entry)
            if not number:
                return False
            outcome = entry.outcomes[0]
            self.begun[row], self.seconds[row] = outcome.begun, outcome.seconds
            self.attempt[row] = outcome.attempt
        self.done[row] = number
        self.parent[row] = parent + 1
        flags = self.flags[row] & OPEN
        flags |= (CONFIRMED if entry.is_confirmed else 0) | (PUBLISHED if entry.origins else 0)
        self.flags[row] = flags
        return True

    def _number_of_plain(self, entry: LedgerEntry) -> int:
        """Return the number of the handling of *entry*'s only outcome; 0 if it is not plain."""
        outcome = entry.outcomes[0]
        writes = tuple([each.queue for each in outcome.outputs])
        if (
            outcome.kind != "done" or outcome.reason or outcome.traceback or outcome.delay
            or outcome.body is not None or not 0 <= outcome.attempt <= 255
            or outcome.queue != entry.queue or outcome.parent != entry.parent
            or outcome.job == entry.id
            or (outcome.job or outcome.id) != entry.job
            or outcome.outputs != outputs_of(entry.id, outcome.stage, writes)
        ):  # fmt: skip
            return 0
        return self.number_of_handling(
            HandlingKind(outcome.stage, outcome.queue, outcome.worker, writes)
        )

    # ---- most messages, without an entry ---------------------------------------------------------

    def number_of_handling(self, handling: HandlingKind) -> int:
        """Return the number of *handling*; 0 if there are too many."""
        if (number := self._handling_numbers.get(handling)) is None:
            if (number := len(self.handlings)) == MAX_NUMBER:
                return 0
            self._handling_numbers[handling] = number
            self.handlings.append(handling)
        return number

    def batch(self, stage: str, queue: str, worker: str, writes: tuple[str, ...]) -> DoneBatch:
        """Return what `add_done` needs to know of the outcomes of these handlings."""
        number = self.number_of_handling(HandlingKind(stage, queue, worker, writes))
        return DoneBatch(number, stage, self.number_of_queue(queue),
                         tuple([self.number_of_queue(each) for each in writes]))  # fmt: skip

    def add_sent(self, id: str, queue: str, at: float) -> bool:
        """Record a new job; return False, and change nothing, if it is known or not plain."""
        number = self.number_of_queue(queue)
        if number == MAX_NUMBER or self.ids.find(id) >= 0:
            return False
        row = self.ids.add(id)
        self._add(row, number, 0, row + 1, OPEN if self.is_read[number] else 0)
        self.sent[row] = at
        return True

    def confirm(self, id: str) -> bool:
        """Record that the broker confirmed job *id*; return False if it is not plain."""
        row = self.ids.find(id)
        if row < 0 or self.done[row] == SPECIAL:
            return False
        self.flags[row] |= CONFIRMED
        return True

    def add_done(self, batch: DoneBatch, done: DoneRow, at: float) -> bool:
        """Record that a message is done; return False, and change nothing, if it is not plain.

        Its outputs are new, or their own outcomes came first.
        """
        ids = self.ids
        row, parent, job = ids.find(done.id), 0, 0
        if done.job:
            if done.parent is None or done.job == done.id:
                return False
            job = ids.find(done.job) + 1
            parent = ids.find(done.parent) + 1 if done.parent else job
            if not job or not parent:
                return False
        elif done.parent is not None:
            return False
        if row >= 0 and (
            self.done[row] or self.queue[row] != batch.queue or self.parent[row] != parent
            or self.job[row] != (job or row + 1)
        ):  # fmt: skip
            return False
        if not batch.number or not 0 <= done.attempt <= 255:
            return False
        outputs = []
        for n, queue in enumerate(batch.writes):
            output = ids.find_key(key := child_key(done.id, batch.stage, n))
            if output >= 0 and (
                row < 0 or not self._is_orphan(output, queue, row + 1, job or row + 1)
            ):
                return False
            outputs.append((key, output, queue))
        if row < 0:
            row = ids.add(done.id)
            self._add(row, batch.queue, parent, job or row + 1, 0)
        elif self.flags[row] & OPEN:
            self.flags[row] ^= OPEN
            self.open -= 1
        self.done[row], self.attempt[row] = batch.number, done.attempt
        self.begun[row], self.seconds[row], self.ended[row] = done.begun, done.seconds, at
        for key, output, queue in outputs:
            if output >= 0:
                self.flags[output] |= PUBLISHED
            else:
                flags = PUBLISHED | OPEN if self.is_read[queue] else PUBLISHED
                self._add(ids.add_key(key), queue, row + 1, job or row + 1, flags)
        return True

    def _is_orphan(self, row: int, queue: int, parent: int, job: int) -> bool:
        """Return whether all that is missing is the outcome of its parent, which published it."""
        return (
            self.done[row] != SPECIAL
            and not self.flags[row] & PUBLISHED
            and self.sent[row] != self.sent[row]
            and (self.queue[row], self.parent[row], self.job[row]) == (queue, parent, job)
        )

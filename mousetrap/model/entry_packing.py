"""Packs what is known about one message into bytes, in which texts that repeat are numbers.

The ledger keeps the settled messages so that are not like most others: retried, dead, delivered
twice, or with a body.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mousetrap.model.id_index import IdIndex
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.outcome import Outcome, OutcomeKind, Output, outputs_of

_KINDS: tuple[OutcomeKind, ...] = ("done", "retried", "dead")


class EntryPacking:
    """Packs and unpacks a `LedgerEntry`; *ids* turns the ids in it into row numbers.

    Reasons and tracebacks that were packed once are kept.

    Threads: one at a time.
    """

    def __init__(self, ids: IdIndex) -> None:
        self._ids = ids
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def pack(self, entry: LedgerEntry, *, with_origins: bool) -> bytes:
        """Return *entry* as bytes; *with_origins* is false if the caller can find its origins."""
        return msgspec.msgpack.encode((
            self._id(entry.id), self._text(entry.queue), self._id(entry.job),
            self._id(entry.parent), entry.sent, entry.delay, entry.is_confirmed,
            [self._outcome(each) for each in entry.origins] if with_origins else None,
            [self._outcome(each) for each in entry.outcomes],
            entry.replays,
            None if entry.outcome is None else entry.outcomes.index(entry.outcome),
            entry.finals, entry.ended, entry.body,
        ))  # fmt: skip

    def unpack(self, packed: bytes) -> tuple[LedgerEntry, bool]:
        """Return the entry, and whether its origins are in it."""
        id, queue, job, parent, sent, delay, is_confirmed, origins, outcomes, *rest = (
            msgspec.msgpack.decode(packed)
        )
        replays, decisive, finals, ended, body = rest
        found = tuple([self._unpacked(each) for each in outcomes])
        entry = LedgerEntry(
            id=self._id_of(id), queue=self._texts[queue], job=self._id_of(job),
            parent=None if parent is None else self._id_of(parent), sent=sent, delay=delay,
            is_confirmed=is_confirmed,
            origins=tuple([self._unpacked(each) for each in origins or ()]),
            outcomes=found, replays=replays,
            outcome=None if decisive is None else found[decisive],
            finals=finals, ended=ended, body=body,
        )  # fmt: skip
        return entry, origins is not None

    def _outcome(self, outcome: Outcome) -> tuple[Any, ...]:
        usual = outputs_of(outcome.id, outcome.stage, [each.queue for each in outcome.outputs])
        outputs = (
            [self._text(each.queue) for each in outcome.outputs]
            if outcome.outputs == usual
            else [self._output(each) for each in outcome.outputs]
        )
        return (
            self._id(outcome.id), _KINDS.index(outcome.kind), self._text(outcome.stage),
            self._text(outcome.queue), self._text(outcome.worker), outcome.begun, outcome.seconds,
            outcome.attempt, self._id(outcome.job), self._id(outcome.parent), outputs,
            self._text(outcome.reason), self._text(outcome.traceback), outcome.delay, outcome.body,
        )  # fmt: skip

    def _unpacked(self, packed: list[Any]) -> Outcome:
        id, kind, stage, queue, worker, begun, seconds, attempt, job, parent, outputs, *rest = (
            packed
        )
        reason, traceback, delay, body = rest
        texts, own = self._texts, self._id_of(id)
        if outputs and isinstance(outputs[0], int):
            made = outputs_of(own, texts[stage], [texts[each] for each in outputs])
        else:
            made = tuple([self._made(each) for each in outputs])
        return Outcome(
            own, _KINDS[kind], texts[stage], texts[queue], texts[worker], begun, seconds, attempt,
            self._id_of(job), None if parent is None else self._id_of(parent), made,
            texts[reason], texts[traceback], delay, body,
        )  # fmt: skip

    def _output(self, output: Output) -> tuple[Any, ...]:
        return (self._id(output.id), self._text(output.queue), output.body,
                self._text(output.exchange), output.delay, output.is_own)  # fmt: skip

    def _made(self, packed: list[Any]) -> Output:
        id, queue, body, exchange, delay, is_own = packed
        texts = self._texts
        return Output(self._id_of(id), texts[queue], body, texts[exchange], delay, is_own)

    def _id(self, id: str | None) -> int | None:
        """Return the row of *id*; for an id without a row, a negative number of its text.

        MessagePack could not hold the text of each id: one of another program may be no UTF-8.
        """
        if id is None:
            return None
        row = self._ids.find(id)
        return row if row >= 0 else -1 - self._text(id)

    def _id_of(self, packed: int) -> str:
        return self._ids[packed] if packed >= 0 else self._texts[-1 - packed]

    def _text(self, text: str) -> int:
        if (number := self._numbers.get(text)) is None:
            number = self._numbers[text] = len(self._texts)
            self._texts.append(text)
        return number

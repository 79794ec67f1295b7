"""Saves what happened in a run to a file, replays it, and compares the result with the record.

The file is JSON Lines: one line about the whole, then one line for each message. If it contains the
bodies (``mousetrap.run(..., keep_bodies=10_000)``), any stage can be replayed without a broker, and
a recording becomes a pytest test in one line::

    test_monday = Recording.load("tests/monday.jsonl").test(fetch, process)

Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import base64
import dataclasses
import pprint
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from mousetrap.display.formats import counted
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import SettingsError, UndecodableMessage
from mousetrap.flows.edges import routed
from mousetrap.flows.stage import Stage
from mousetrap.model.decoding import decode
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.message import Message
from mousetrap.model.retry_policy import reason_of
from mousetrap.runtime.atomic_file import write_atomically

RECORDING_FORMAT = 1  # version of the file format
_HEAD = "mousetrap-recording"  # key of the version in the first line


@dataclasses.dataclass(frozen=True)
class RecordedMessage:
    """One message of a recording, with its outcome."""

    id: str
    queue: str
    job: str
    parent: str | None = None
    at: float = 0.0  # when it was put into its queue, in seconds after the first message
    body: bytes | None = None  # None: it was not kept
    outcome: str = "result"  # done, dead, result, or open
    attempt: int = 1  # the number of the attempt with this outcome, from 1
    reason: str = ""  # why it died
    outputs: tuple[str, ...] = ()  # ids of the messages that its handler sent


_FIELDS = tuple(each.name for each in dataclasses.fields(RecordedMessage))


class Recording:
    """The messages of a run by id, in the order in which they were sent."""

    def __init__(self, messages: Iterable[RecordedMessage]) -> None:
        self.messages = {each.id: each for each in messages}

    @classmethod
    def of(cls, ledger: Ledger, reads: Iterable[str]) -> Recording:
        """Return what *ledger* knows of a flow whose stages read the queues *reads*."""
        return cls(recorded(ledger, reads)[1])

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a recording that `save` wrote.

        Raises:
            SettingsError: the file does not exist, or is incomplete, or a line of it, which the
                error names, is not of a recording.
        """
        path = Path(path)
        try:
            head, *lines = path.read_bytes().splitlines()
        except OSError as error:
            raise SettingsError(f"there is no recording {path}: {error.strerror}") from None
        except ValueError:
            raise SettingsError(f"{path} is empty: it is not a recording") from None
        found = []
        for number, line in enumerate([head, *lines], start=1):
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
                if number == 1:
                    if (format := row.get(_HEAD)) != RECORDING_FORMAT:
                        raise ValueError(f"format {format}, not {RECORDING_FORMAT}")
                    expected = row.get("messages", len(lines))
                    continue
                found.append(_from_row(row))
            except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
                where = f"{path}, line {number}"
                raise SettingsError(f"{where}, is not of a recording: {error}") from None
        if len(found) != expected:
            raise SettingsError(
                f"{path} has {counted(len(found), 'message')}, and its first line says "
                f"{expected:,}: lines are missing, or were added; save the recording again, or "
                f"copy the whole file"
            )
        return cls(found)

    def save(self, path: str | Path) -> Path:
        """Write the recording to *path*, readable by its owner only; return *path*.

        Raises:
            OSError: the file cannot be written; *path* is as it was before, and no temporary file
                is left.
        """
        return save_recorded(path, len(self.messages), self.messages.values())

    @property
    def jobs(self) -> list[RecordedMessage]:
        """The messages that were sent to the flow, not by one of its stages, in order."""
        return [each for each in self.messages.values() if each.parent is None]

    def replay(self, *stages: Stage[..., Any]) -> Recording:
        """Call each stage with the messages that it handled, without a broker; record what happens.

        Each message is handled once, with its recorded body and the number of the attempt that had
        the final outcome. One that a stage sends has the body that the stage returns now.

        Raises:
            SettingsError: a body was not kept, or none of these stages handled a message.
        """
        by_queue = {stage.queue.name: stage for stage in stages}
        ours = [
            each for each in self.messages.values()
            if each.queue in by_queue and each.outcome in ("done", "dead")
        ]  # fmt: skip
        if not ours:
            queues = ", ".join(by_queue)
            raise SettingsError(
                f"no message of this recording was handled from {queues}: give the stages whose "
                f"messages it has, or record a run of these"
            )
        missing = sum(each.body is None for each in ours)
        if missing:
            raise SettingsError(
                f"{missing:,} of {len(ours):,} bodies were not kept: record the run again, with "
                f"keep_bodies=100_000"
            )
        recorded: dict[str, list[tuple[str, str]]] = {}  # copies by the id of their original
        for each in self.messages.values():
            recorded.setdefault(each.id.removesuffix(f"@{each.queue}"), []).append(
                (each.queue, each.id)
            )
        ledger = Ledger(routed=lambda exchange, key: routed(stages, exchange, key))

        def copies(exchange: str, key: str, id: str) -> list[tuple[str, str]]:
            return recorded.get(id) or ledger.copies(exchange, key, id)

        found: dict[str, RecordedMessage] = {}
        for each in ours:
            handled, *outputs = _handled(each, by_queue[each.queue], copies)
            if sent := found.get(handled.id):  # by a stage before: its body is what it returns now
                handled = dataclasses.replace(handled, body=sent.body)
            found[handled.id] = handled
            for output in outputs:
                known = found.get(output.id)
                found[output.id] = dataclasses.replace(known, body=output.body) if known else output
        return Recording(found.values())

    def differences(self, other: Recording) -> Table:
        """Return a row for each difference: outcome, outputs or body of a message of *other*.

        Messages that only this recording has are not listed.
        """
        rows: list[tuple[Any, ...]] = []
        for new in other.messages.values():
            old = self.messages.get(new.id)
            if old is None:
                rows.append((new.id[:8], new.queue, "message", "not there", new.outcome))
                continue
            if new.outcome in ("done", "dead"):
                if (old.outcome, old.reason) != (new.outcome, new.reason):
                    was, now = (f"{e.outcome} {e.reason}".strip() for e in (old, new))
                    rows.append((new.id[:8], new.queue, "outcome", was, now))
                elif sorted(old.outputs) != sorted(new.outputs):  # threads send in any order
                    was, now = (counted(len(each.outputs), "message") for each in (old, new))
                    rows.append((new.id[:8], new.queue, "outputs", was, now))
            if None not in (old.body, new.body) and _value(old.body) != _value(new.body):
                sizes = (f"{len(each.body or b''):,} bytes" for each in (old, new))
                rows.append((new.id[:8], new.queue, "body", *sizes))
        columns = ("message", "queue", "what", "recorded", "now")
        return Table(columns, rows, counted(len(rows), "difference"))

    def test(self, *stages: Stage[..., Any]) -> Callable[[], None]:
        """Return a test function that replays the recording and fails if there are differences."""

        def test_recording() -> None:
            differences = self.differences(self.replay(*stages))
            assert not differences, f"the replay differs from the recording\n{differences!r}"

        return test_recording

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        kept = sum(each.body is not None for each in self.messages.values())
        jobs, messages = counted(len(self.jobs), "job"), counted(len(self), "message")
        return f"<Recording of {jobs}, {messages}, {kept:,} with bodies>"


def recorded(ledger: Ledger, reads: Iterable[str]) -> tuple[int, Iterator[RecordedMessage]]:
    """Return how many messages *ledger* knows of a flow that reads *reads*, and yield each."""
    number, entries = ledger.each_entry()
    return number, _recorded(ledger, set(reads), entries)


def save_recorded(path: str | Path, number: int, messages: Iterable[RecordedMessage]) -> Path:
    """Write *number* *messages* to *path*, one at a time, as `Recording.save` does."""
    path = Path(path)
    head = msgspec.json.encode({_HEAD: RECORDING_FORMAT, "messages": number})
    rows = chain([head], (msgspec.json.encode(_to_row(each)) for each in messages))
    write_atomically(path, (row + b"\n" for row in rows))
    return path


def _recorded(
    ledger: Ledger, reads: Collection[str], entries: Iterator[LedgerEntry]
) -> Iterator[RecordedMessage]:
    first = ledger.first_queued_at()
    for entry in entries:
        outcome = entry.outcome if entry.outcome and entry.outcome.is_final else None
        unhandled = "open" if entry.queue in reads else "result"
        yield RecordedMessage(
            id=entry.id,
            queue=entry.queue,
            job=entry.job or entry.id,
            parent=entry.parent,
            at=round((ledger.queued_at(entry) or first) - first, 6),
            body=entry.body,
            outcome=outcome.kind if outcome else unhandled,
            attempt=outcome.attempt if outcome else 1,
            reason=outcome.reason if outcome else "",
            outputs=tuple(each.id for each in outcome.outputs) if outcome else (),
        )


def test_module(messages: Iterable[Message], module: str, name: str) -> str:
    """Return a Python module that tests the stage *name* of *module* with each of *messages*."""
    entries = []
    for each in messages:
        body = pprint.pformat(each.readable_body, width=80).replace("\n", "\n        ")
        fields = f"attempt={each.attempt}, job={each.job!a}, parent={each.parent!a}"
        entries.append(
            f"    # {safe(each.reason or 'no reason given', 90)}\n"
            f"    Message(\n        body={body},\n        id={each.id!a},\n"
            f"        {fields},\n    ),\n"
        )
    return f'''"""Calls {name} with messages that died in it, as a worker does, without a broker."""

import pytest
from {module} import {name}

from mousetrap import Message

DEAD_LETTERS = [
{"".join(entries)}]


@pytest.mark.parametrize("message", DEAD_LETTERS, ids=lambda message: message.short_id)
def test_{name}_handles_a_dead_letter(message):
    """The comment above each message is the reason why it died; now {name} does not raise."""
    {name}.handle(message)
'''


def _handled(
    recorded: RecordedMessage,
    stage: Stage[..., Any],
    copies: Callable[[str, str, str], list[tuple[str, str]]],
) -> list[RecordedMessage]:
    """Call *stage* with a message; return the message with its outcome, then its outputs.

    *copies* returns the queue and the id of each copy of an output to an exchange.
    """
    message = Message(
        body=recorded.body, id=recorded.id, attempt=recorded.attempt, parent=recorded.parent,
        job=recorded.job,
    )  # fmt: skip
    try:
        outputs = stage.outputs(message)
    except Exception as error:  # noqa: BLE001 -- a handler may raise anything
        return [dataclasses.replace(recorded, outcome="dead", reason=reason_of(error), outputs=())]
    sent_on = [
        RecordedMessage(id, queue, each.job, each.parent, body=each.body)
        for each, target, *_ in outputs
        for queue, id in (
            [(target, each.id)] if isinstance(target, str)
            else copies(target.exchange.name, str(target.key), each.id)
        )
    ]  # fmt: skip
    ids = tuple(each.id for each in sent_on)
    now = dataclasses.replace(recorded, outcome="done", reason="", outputs=ids)
    return [now, *sent_on]


def _value(body: bytes | None) -> Any:
    try:
        return decode(body or b"")
    except UndecodableMessage:
        return body


def _to_row(message: RecordedMessage) -> dict[str, Any]:
    row: dict[str, Any] = {key: value for key in _FIELDS
                           if (value := getattr(message, key)) is not None}  # fmt: skip
    if message.body is not None:
        try:
            row["body"] = message.body.decode()
        except UnicodeDecodeError:
            del row["body"]
            row["body64"] = base64.b64encode(message.body).decode()
    return row


def _from_row(row: dict[str, Any]) -> RecordedMessage:
    if "body64" in row:
        row["body"] = base64.b64decode(row.pop("body64"), validate=True)
    elif "body" in row:
        row["body"] = row["body"].encode()
    row["outputs"] = tuple(row.get("outputs", ()))
    return RecordedMessage(**row)

"""What happened in a run, kept in a file: to be read, replayed, and held against what happens now.

A ``.jsonl`` file: a line about the whole, then a line for each message. With the bodies in it
(``mousetrap.run(..., keep_bodies=10_000)``), any stage can be replayed without a broker, and a case
is a pytest test in one line::

    test_monday = Case.load("tests/monday.jsonl").test(fetch, process)

Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import base64
import dataclasses
import pprint
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import SettingsError, UndecodableMessage
from mousetrap.flows.stage import Stage
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message, decode
from mousetrap.model.retry_policy import reason_of
from mousetrap.runtime.atomic_file import write_atomically

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class RecordedMessage:
    """One message of a case. `at` is seconds since the first one was sent; no `body`: not kept."""

    id: str
    queue: str
    job: str
    parent: str | None = None
    at: float = 0.0
    body: bytes | None = None
    outcome: str = "result"  # done, dead, result, or open
    attempt: int = 1  # the one with this outcome
    reason: str = ""
    outputs: tuple[str, ...] = ()  # ids


class Recording:
    """The messages of a run by id, jobs first, as they were sent."""

    def __init__(self, messages: Iterable[RecordedMessage]) -> None:
        self.messages = {each.id: each for each in messages}

    @classmethod
    def of(cls, ledger: Ledger, reads: Iterable[str]) -> Recording:
        """Take over what *ledger* knows of a flow that reads these queues."""
        reads = set(reads)
        entries = ledger.entries()
        first = ledger.first_queued_at()
        found = []
        for entry in entries:
            outcome = entry.outcome if entry.outcome and entry.outcome.is_final else None
            found.append(
                RecordedMessage(
                    id=entry.id,
                    queue=entry.queue,
                    job=entry.job or entry.id,
                    parent=entry.parent,
                    at=round((ledger.queued_at(entry) or first) - first, 6),
                    body=entry.body,
                    outcome=outcome.kind
                    if outcome
                    else "open"
                    if entry.queue in reads
                    else "result",
                    attempt=outcome.attempt if outcome else 1,
                    reason=outcome.reason if outcome else "",
                    outputs=tuple(each.id for each in outcome.outputs) if outcome else (),
                )
            )
        return cls(found)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a case that `save` wrote.

        Raises:
            SettingsError: there is no such file, or it is no case; names the line.
        """
        path = Path(path)
        try:
            head, *lines = path.read_bytes().splitlines()
        except OSError as error:
            raise SettingsError(f"there is no case {path}: {error.strerror}") from None
        except ValueError:
            raise SettingsError(f"{path} is empty: no case was saved there") from None
        found = []
        for number, line in enumerate([head, *lines], start=1):
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
                if number == 1:
                    if row["mousetrap-case"] != FORMAT:
                        raise ValueError(f"format {row['mousetrap-case']}, not {FORMAT}")
                    continue
                found.append(_from_row(row))
            except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
                raise SettingsError(f"{path}, line {number}, is not of a case: {error}") from None
        return cls(found)

    def save(self, path: str | Path) -> Path:
        """Write the case to *path*, readable by its owner only; return it.

        Raises:
            OSError: it cannot be written; *path* is as it was, and nothing half written is left.
        """
        path = Path(path)
        head = {"mousetrap-case": FORMAT, "messages": len(self.messages)}
        rows = [head, *(_to_row(each) for each in self.messages.values())]
        write_atomically(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        return path

    @property
    def jobs(self) -> list[RecordedMessage]:
        """The messages that were sent from outside, in their order."""
        return [each for each in self.messages.values() if each.parent is None]

    def replay(self, *stages: Stage[..., Any]) -> Recording:
        """Call each stage on the messages that it handled, without a broker; return what comes.

        Each message is handled once, as the attempt that had its outcome.

        Raises:
            SettingsError: a body was not kept, or no message is one of these stages'.
        """
        by_queue = {stage.queue.name: stage for stage in stages}
        ours = [
            each for each in self.messages.values()
            if each.queue in by_queue and each.outcome in ("done", "dead")
        ]  # fmt: skip
        if not ours:
            raise SettingsError(f"no message of this case was handled from {', '.join(by_queue)}")
        missing = sum(each.body is None for each in ours)
        if missing:
            raise SettingsError(
                f"{missing:,} of {len(ours):,} bodies were not kept: record the run anew, with "
                f"keep_bodies=100_000"
            )
        found: dict[str, RecordedMessage] = {}
        for each in ours:
            for message in _handled(each, by_queue[each.queue]):
                found[message.id] = message
        return Recording(found.values())

    def differences(self, other: Recording) -> Table:
        """One row for each message of *other* that fared otherwise here: outcome, outputs, body."""
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
                elif old.outputs != new.outputs:
                    was, now = f"{len(old.outputs)} messages", f"{len(new.outputs)} messages"
                    rows.append((new.id[:8], new.queue, "outputs", was, now))
            if None not in (old.body, new.body) and _value(old.body) != _value(new.body):
                sizes = (f"{len(each.body or b''):,} bytes" for each in (old, new))
                rows.append((new.id[:8], new.queue, "body", *sizes))
        columns = ("message", "queue", "what", "recorded", "now")
        return Table(columns, rows, f"{len(rows):,} differences")

    def test(self, *stages: Stage[..., Any]) -> Callable[[], None]:
        """Return a test function that replays the case and fails with the differences."""

        def test_case() -> None:
            differences = self.differences(self.replay(*stages))
            assert not differences, f"the case is not what it was\n{differences!r}"

        return test_case

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        kept = sum(each.body is not None for each in self.messages.values())
        return f"<Case of {len(self.jobs):,} jobs, {len(self):,} messages, {kept:,} with bodies>"


def test_module(letters: Iterable[Message], module: str, name: str) -> str:
    """Return a Python module that tests the stage *name* of *module* on each of *letters*."""
    entries = []
    for each in letters:
        body = pprint.pformat(each.body, width=80).replace("\n", "\n        ")
        family = f"attempt={each.attempt}, job={each.job!a}, parent={each.parent!a}"
        entries.append(
            f"    # {safe(each.reason or 'no reason given', 90)}\n"
            f"    Message(\n        body={body},\n        id={each.id!a},\n"
            f"        {family},\n    ),\n"
        )
    return f'''"""Messages that died in {name}, each handled as a worker would, without a broker."""

import pytest
from {module} import {name}

from mousetrap import Message

LETTERS = [
{"".join(entries)}]


@pytest.mark.parametrize("letter", LETTERS, ids=lambda letter: letter.short_id)
def test_{name}_handles_what_it_once_died_of(letter):
    """What stands above each message is what it died of; it raises no more."""
    {name}.handle(letter)
'''


def _handled(recorded: RecordedMessage, stage: Stage[..., Any]) -> list[RecordedMessage]:
    """What *stage* makes of a message now: the message with its outcome, then its outputs."""
    message = Message(
        body=recorded.body, id=recorded.id, attempt=recorded.attempt, parent=recorded.parent,
        job=recorded.job,
    )  # fmt: skip
    try:
        outputs = stage.handle(message)
    except Exception as error:  # noqa: BLE001 -- whatever a handler raises is its outcome
        return [dataclasses.replace(recorded, outcome="dead", reason=reason_of(error), outputs=())]
    ids = tuple(each.id for each in outputs)
    now = dataclasses.replace(recorded, outcome="done", reason="", outputs=ids)
    sent_on = [
        RecordedMessage(each.id, stage.writes or "", each.job, each.parent, body=each.body)
        for each in outputs
    ]
    return [now, *sent_on]


def _value(body: bytes | None) -> Any:
    try:
        return decode(body or b"")
    except UndecodableMessage:
        return body


def _to_row(message: RecordedMessage) -> dict[str, Any]:
    row = {key: value for key, value in dataclasses.asdict(message).items() if value is not None}
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

"""The messages in the queue of a join, and those that are made of them when a group ends.

A group ends as a message with the list of its parts, which the join's handler gets, or as a dead
letter with all that arrived of it. That one can be replayed: then the group goes on. Nothing here
talks to a broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from mousetrap.errors import SettingsError, UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import MAX_BODY_BYTES
from mousetrap.model.headers import EDITED, REPLAYED, without_failure_headers
from mousetrap.model.join_headers import (
    JOINED,
    JOINS,
    NOTICE,
    JoinEntry,
    Missing,
    entries_of,
    with_entries,
)
from mousetrap.model.join_tree import Leaf, Path, ReportKind
from mousetrap.model.message import Message, child_id

DEFAULT_AGE = 86_400.0  # seconds: a day, as the longest retry delay
MAX_AGE = 30 * 86_400.0  # seconds; a guess
MAX_GROUP_BYTES = MAX_BODY_BYTES - 100_000  # of all reports of a group: its message has them all
_MISSING = "mousetrap-missing"  # the only field of a missing part in the list of the parts
_MISSING_PREFIX = b'{"%b":' % _MISSING.encode()
_REPORT_BYTES = 40  # of the JSON around a report, beside its body, id and path

_NOT_OF_GROUP = (NOTICE, JOINED, REPLAYED, EDITED)  # headers of one message alone

OnMissing = Literal["fail", "pass"]
EndKind = Literal["joined", "joined without parts", "failed"]


@dataclass(frozen=True)
class Join:
    """Which stage's outputs a join waits for, and what happens if they do not all come.

    The join's function is called when all that came of one message of *stage* is there, was dropped
    or was dead-lettered. What goes to a queue that does not lead to the join counts as dropped. The
    parts are in the order in which the stages returned them, those of each message in its place;
    the list may be empty. The `job` of the output is that of the message of *stage*.

    *missing* says what to do if a part was dead-lettered: ``"fail"`` dead-letters the group,
    ``"pass"`` calls the function with a `Missing` in its place, so annotate the parameter as
    ``list[Part | Missing]``. A group that is not complete after *timeout* seconds is dead-lettered.

    Raises:
        SettingsError: a value is not allowed.
    """

    stage: str
    missing: OnMissing = "fail"
    timeout: float = DEFAULT_AGE

    def __post_init__(self) -> None:
        if not isinstance(self.stage, str) or not self.stage:
            raise SettingsError(f"joins {self.stage!r}: give the name of the stage that splits")
        if self.missing not in ("fail", "pass"):
            raise SettingsError(f"missing is {self.missing!r}: use 'fail' or 'pass'")
        if not 0 < self.timeout <= MAX_AGE:
            raise SettingsError(
                f"a join waits {self.timeout} s: give seconds above 0 and up to {MAX_AGE:g}"
            )


class Report(NamedTuple):
    """What became of one leaf: a part, with its body as JSON; nothing; or why it is dead."""

    id: str
    path: Path
    kind: ReportKind
    body: bytes

    @property
    def size(self) -> int:
        """How many bytes it takes, at most, in the message of its group."""
        return len(self.body) + len(self.id) + 24 * len(self.path) + _REPORT_BYTES


class Received(NamedTuple):
    """A message of a join's queue: its group, and what it says of it.

    `ended`: the group ended before; *reports* is empty then.
    """

    entry: JoinEntry
    reports: Sequence[Report]
    ended: EndKind | None = None


class _BundledReport(msgspec.Struct, array_like=True):
    id: str
    path: Path
    kind: ReportKind
    body: msgspec.Raw


def received(message: Message, queue: str) -> Received:
    """Return what *message* in the join queue *queue* says.

    Raises:
        UndecodableMessage: it belongs to no group of this join, or it is damaged.
    """
    entry = next((each for each in entries_of(message.headers) if each.queue == queue), None)
    if entry is None:
        raise UndecodableMessage(f"it carries no header of the join that collects from {queue!r}")
    kind = message.headers.get(NOTICE)
    if kind is None:
        return Received(entry, [_part(message, entry)])
    if kind == "nothing":
        return Received(entry, [Report(message.id, entry.path, ReportKind.NOTHING, b"")])
    if kind == "dead":
        decode(message.content, Missing)
        return Received(entry, [Report(message.id, entry.path, ReportKind.DEAD, message.content)])
    if kind == "ended":
        ended: EndKind = decode(message.content, EndKind)
        return Received(entry, (), ended)
    if kind == "bundle":
        bundled: list[_BundledReport] = decode(message.content, list[_BundledReport])
        return Received(entry, [Report(e.id, e.path, e.kind, bytes(e.body)) for e in bundled])
    raise UndecodableMessage(f"its header {NOTICE} has an unknown value")


def _part(message: Message, entry: JoinEntry) -> Report:
    """Return the report of a part; one that is no JSON counts as dead, with that reason."""
    try:
        content = message.content or b"null"
        msgspec.json.decode(content, type=msgspec.Raw)
    except (msgspec.DecodeError, UndecodableMessage):
        missing = Missing("its body is not JSON", entry.reads, message.id)
        return Report(message.id, entry.path, ReportKind.DEAD, msgspec.json.encode(missing))
    return Report(message.id, entry.path, ReportKind.PART, content)


def joined(entry: JoinEntry, leaves: Iterable[Leaf[Report]], source: Message) -> Message:
    """Return the message with the list of the parts; *source* is a message of the group.

    A missing part is an object with the one field ``mousetrap-missing``.
    """
    bodies, missing = [], 0
    for kind, report in leaves:
        if kind is ReportKind.DEAD:
            missing += 1
            bodies.append(_MISSING_PREFIX + report.body + b"}")
        elif kind is ReportKind.PART:
            bodies.append(report.body)
    body = b"[" + b",".join(bodies) + b"]"
    return _of_group(entry, source, body, {JOINED: missing}, entry.outer)


def bundle(entry: JoinEntry, reports: Iterable[Report], source: Message) -> Message:
    """Return the message with the *reports* of a group that is not to be joined now.

    It has none of dead parts: when it is replayed, the group waits for theirs.
    """
    bundled = [
        _BundledReport(each.id, each.path, each.kind, msgspec.Raw(each.body or b"null"))
        for each in reports
        if each.kind is not ReportKind.DEAD
    ]
    body = msgspec.json.encode(bundled)
    entry = msgspec.structs.replace(entry, path=())
    return _of_group(entry, source, body, {NOTICE: "bundle"}, [entry])


def end_mark(entry: JoinEntry, source: Message, end: EndKind) -> Message:
    """Return the message by which the join's queue remembers that a group has ended."""
    entry = msgspec.structs.replace(entry, path=())
    mark = _of_group(entry, source, msgspec.json.encode(end), {NOTICE: "ended"}, [entry])
    mark.id = child_id(mark.id, "\x1cended", 0)
    return mark


def _of_group(
    entry: JoinEntry,
    source: Message,
    body: bytes,
    ours: Mapping[str, Any],
    entries: Iterable[JoinEntry],
) -> Message:
    headers = without_failure_headers(source.headers)
    headers = {key: value for key, value in headers.items() if key not in _NOT_OF_GROUP}
    return Message(
        body=body, id=entry.group, parent=entry.source, job=source.job,
        past_retries=source.retries, headers=with_entries(headers, entries) | dict(ours),
        correlation_id=source.correlation_id,
    )  # fmt: skip


def is_for_collection(message: Message) -> bool:
    """Return whether *message* belongs in the join's queue: a report that was replayed."""
    return JOINED not in message.headers and JOINS in message.headers


def has_missing_parts(content: bytes) -> bool:
    """Return whether one of the parts in the list *content* may be `Missing`."""
    return _MISSING_PREFIX in content


def parts(content: bytes, type: Any) -> list[Any]:
    """Return the parts in the list *content*, decoded to *type*, and a `Missing` for each other.

    Raises:
        UndecodableMessage: it is no list, or a part is not of *type*.
    """
    found: list[Any] = []
    for position, raw in enumerate(decode(content, list[msgspec.Raw])):
        body = bytes(raw)
        if body.startswith(_MISSING_PREFIX):
            found.append(decode(body, dict[str, Missing])[_MISSING])
            continue
        try:
            found.append(decode(body, type))
        except UndecodableMessage as error:
            raise UndecodableMessage(f"part {position}: {error}") from None
    return found

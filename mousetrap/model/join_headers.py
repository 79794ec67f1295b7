"""The header by which messages belong to joins, and what a handling does with it.

The stage that a join names gives each of its outputs on the way there an entry: which message they
came of, which queue the join collects from, which queues lead there, and the path of this output in
the tree of that message (`mousetrap.model.join_tree`). Every handling on the way gives its outputs
the entry with their own paths. An output to the queue that the join reads goes to the queue that it
collects from instead. A handling that sends nothing that leads there, or a dead letter, sends a
notice to that queue. So each leaf of the tree is reported, and nothing else is sent. Nothing here
talks to a broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from mousetrap.errors import Reject
from mousetrap.model.headers import carried
from mousetrap.model.join_tree import Path
from mousetrap.model.message import Message, child_id
from mousetrap.model.targets import Address

JOINS = "mousetrap-joins"  # the entries of a message, as JSON
NOTICE = "mousetrap-notice"  # what a message to a join is, if it is not a part
JOINED = "mousetrap-joined"  # of a message with the parts of a group: how many of them are missing

MAX_PARTS = 10_000  # of one group; its message has their bodies, so 16 MB end most groups before
MAX_BRANCHINGS = 50  # of one path: more is a circle of stages that does not end
MAX_JOINS = 16  # entries of one message, and how deep joins are nested; a guess


class JoinEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One group that a message belongs to; all names are plain.

    `source` is the id of the message that was split, `queue` the one that the join collects from,
    `reads` the one that the flow's stages write, `ways` those that lead there, `reads` among them.
    `outer` are the entries of the source: of the joins around this one.
    """

    source: str
    queue: str
    reads: str
    ways: tuple[str, ...]
    path: Path = ()
    outer: tuple[JoinEntry, ...] = ()

    @property
    def group(self) -> str:
        """The id of the message with the parts: the same however often the source is handled."""
        return child_id(self.source, f"{self.queue}\x1cjoin", 0)

    def below(self, index: int, count: int) -> JoinEntry:
        """Return the entry of the *index*-th of *count* outputs.

        Raises:
            Reject: the path has too many branchings.
        """
        if count == 1:
            return self
        if count > MAX_PARTS:
            raise Reject(
                f"{count:,} outputs lead to the join of {self.reads!r}; a join takes up to "
                f"{MAX_PARTS:,} parts of one message: send fewer, larger ones"
            )
        if len(self.path) >= MAX_BRANCHINGS:
            raise Reject(
                f"{MAX_BRANCHINGS} handlings one after the other have multiplied this message on "
                f"its way to the join of {self.reads!r}: do its stages form a circle without end?"
            )
        return msgspec.structs.replace(self, path=(*self.path, (index, count)))


@dataclass(frozen=True)
class JoinPoint:
    """A join as the stage that it names knows it: see `JoinEntry` for the fields."""

    queue: str
    reads: str
    ways: tuple[str, ...]


class JoinQueue(str):
    """The plain name of a queue that a join collects from, which has arguments of its own."""

    __slots__ = ()


class Missing(msgspec.Struct, frozen=True):
    """A part that a join does not have, because it was dead-lettered: why, where, and its id.

    `queue` is the plain name of the work queue that it was read from; it is in the dead queue of
    that one.
    """

    reason: str
    queue: str = ""
    id: str = ""


class Routed(NamedTuple):
    """The outputs of a handling, each with where it goes, and the notices to publish with them."""

    outputs: list[tuple[Message, Address]]
    notices: list[tuple[Message, str]]


_decode = msgspec.json.Decoder(tuple[JoinEntry, ...]).decode
_encode = msgspec.json.Encoder().encode


def entries_of(headers: Mapping[str, Any]) -> tuple[JoinEntry, ...]:
    """Return the entries in *headers*; none if the header is not ours, as any client can set it."""
    text = headers.get(JOINS)
    if isinstance(text, str):
        with suppress(msgspec.DecodeError, RecursionError):
            return _decode(text)
    return ()


def with_entries(headers: Mapping[str, Any], entries: Iterable[JoinEntry]) -> dict[str, Any]:
    """Return *headers* with these *entries* in place of others."""
    kept = {key: value for key, value in headers.items() if key != JOINS}
    found = tuple(entries)
    return kept | {JOINS: _encode(found).decode()} if found else kept


def route(
    message: Message,
    stage: str,
    joins: Sequence[JoinPoint],
    outputs: Sequence[tuple[Message, Address]],
) -> Routed:
    """Give the *outputs* of *message*, which *stage* handled, their entries, paths and queues.

    *joins* are the joins that name *stage*. The headers of the outputs are changed.

    Raises:
        Reject: more outputs than a join takes, or too many joins around each other.
    """
    around = entries_of(message.headers)
    if joins and len(joins) + len(around) + _depth(around) > MAX_JOINS:
        raise Reject(f"more than {MAX_JOINS} joins are around each other: a circle of stages?")
    entries: list[list[JoinEntry]] = [[] for _ in outputs]
    outer: list[list[JoinEntry]] = [[] for _ in joins]
    notices = []
    inside = [any(to in each.ways for each in joins) for _, to in outputs]
    for entry in around:
        # An inner join stands for all that it collects, also if that is nothing; it comes last.
        below = [
            *(
                entries[n]
                for n, (_, to) in enumerate(outputs)
                if to in entry.ways and not inside[n]
            ),
            *(outer[n] for n, each in enumerate(joins) if each.reads in entry.ways),
        ]
        for index, found in enumerate(below):
            found.append(entry.below(index, len(below)))
        if not below:
            notices.append(_notice(message, f"{stage}\x1cnothing", entry, "nothing"))
    for join, its_outer in zip(joins, outer, strict=True):
        entry = JoinEntry(message.id, join.queue, join.reads, join.ways, (), tuple(its_outer))
        parts = [found for found, (_, to) in zip(entries, outputs, strict=True) if to in join.ways]
        for index, found in enumerate(parts):
            found.append(entry.below(index, len(parts)))
        if not parts:
            notices.append(_notice(message, f"{stage}\x1cnothing", entry, "nothing"))
    routed = [_routed(each, to, found) for (each, to), found in zip(outputs, entries, strict=True)]
    return Routed(routed, notices)


def _routed(output: Message, target: Address, entries: list[JoinEntry]) -> tuple[Message, Address]:
    arrived = [each for each in entries if each.reads == target]
    if entries:
        output.headers = with_entries(output.headers, arrived[:1] or entries)
    return output, JoinQueue(arrived[0].queue) if arrived else target


def death_notices(message: Message, queue: str, reason: str) -> list[tuple[Message, str]]:
    """Return the notices that *message*, read from *queue*, was dead-lettered for *reason*."""
    body = msgspec.json.encode(Missing(reason, queue, message.id))
    return [
        _notice(message, f"{queue}\x1cdead", each, "dead", body)
        for each in entries_of(message.headers)
    ]


def _notice(
    message: Message, stem: str, entry: JoinEntry, kind: str, body: bytes = b""
) -> tuple[Message, str]:
    headers = with_entries(carried(message.headers, ()), [entry]) | {NOTICE: kind}
    notice = Message(
        body=body, id=child_id(message.id, f"{stem}\x1c{entry.queue}", 0), parent=message.id,
        job=message.job, past_retries=message.retries, headers=headers,
        correlation_id=message.correlation_id,
    )  # fmt: skip
    return notice, JoinQueue(entry.queue)


def _depth(entries: Sequence[JoinEntry]) -> int:
    return 1 + max(map(_depth, (each.outer for each in entries)), default=0) if entries else 0

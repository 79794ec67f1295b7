"""Compares the types of connected stages: what one stage sends with what the next one reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from mousetrap.flows.edges import AnyStage, Edge
from mousetrap.flows.finding import FlowFinding
from mousetrap.model.composed_types import is_union
from mousetrap.model.message import Message
from mousetrap.model.targets import Send
from mousetrap.model.type_comparison import Comparison, compare

# What a stage sends is not of these types: bytes are a ready-made body.
_NOT_COMPARED = (Message, bytes, bytearray, memoryview)


def check_types(connected: Sequence[Edge]) -> Iterator[FlowFinding]:
    """Compare what is sent over each connection with what the stage that reads it takes.

    A plain output goes to every target in ``writes``. To a route goes only a `Send`, whose type is
    known if the annotation has it, as in ``Iterator[Score | Send[Visit]]``.
    """
    for each in connected:
        if each.reader is None or each.reader.message_type is Message:
            continue
        found = _compared_sends(each) if each.is_route else _compared_plain(each)
        if found is not None:
            yield found


def members(type: Any) -> tuple[Any, ...]:
    """Return the members of a union; another type is its only member."""
    return get_args(type) if is_union(type) else (type,)


def is_send(type: Any) -> bool:
    """Return whether *type* is `Send` or ``Send[T]``."""
    return type is Send or get_origin(type) is Send


def plain_type(stage: AnyStage) -> Any:
    """Return the type of the plain outputs of *stage*: of those that are no `Send`; or Any."""
    kept = [each for each in members(stage.handler.output_type) if not is_send(each)]
    return _union(kept)


def sent_type(stage: AnyStage) -> Any:
    """Return the type of the values that *stage* sends by a `Send`; Any if it is not known."""
    sends = [each for each in members(stage.handler.output_type) if is_send(each)]
    return _union([get_args(each)[0] for each in sends]) if all(map(get_args, sends)) else Any


def _compared_plain(each: Edge) -> FlowFinding | None:
    written = _comparable(plain_type(each.writer))
    if written is Any:
        return None
    found = compare(written, _read(each))
    if each.is_certain:
        return _finding(each, found, "returns", written)
    # the key of each message decides which of the bound queues gets it
    return _finding(each, found.at_most("may fail"), "returns", written) if found.rank > 1 else None


def _compared_sends(each: Edge) -> FlowFinding | None:
    """Compare the types of Sends: one of them has to fit a route, the others may go elsewhere."""
    sent = _comparable(sent_type(each.writer))
    if sent is Any:
        return None
    found = [compare(one, _read(each)) for one in members(sent)]
    best = min(found, key=lambda one: one.rank)
    return _finding(each, best if each.is_certain else best.at_most("may fail"), "sends", sent)


def _read(each: Edge) -> Any:
    """Return the type of the messages that come to the reader: of the parts, if it joins."""
    assert each.reader is not None
    return getattr(each.reader.handler, "part_type", each.reader.message_type)


def _comparable(type: Any) -> Any:
    """Return *type* without what is not compared; Any if there is nothing else."""
    return _union([each for each in members(type) if each not in _NOT_COMPARED])


def _union(types: list[Any]) -> Any:
    found = types[0] if types else Any
    for each in types[1:]:
        found |= each
    return found


def _finding(each: Edge, found: Comparison, verb: str, written: Any) -> FlowFinding | None:
    if not found.rank:
        return None
    writer, reader = each.writer, each.reader
    assert reader is not None
    never = found.finding == "never fits"
    what = "can never" if never else "may not always"
    through = "" if each.exchange is None else f", through the exchange {each.exchange.name!r},"
    return FlowFinding(
        "error" if never else "warning",
        f"what {writer.name} writes to {reader.queue.name!r}{through} {what} be decoded by "
        f"{reader.name}: {found.why} ({writer.name} {verb} {type_name(written)}, {reader.name} "
        f"takes {type_name(reader.message_type)}); change one of the two annotations",
    )


def type_name(type: Any) -> str:
    """Return the name of *type* as people write it."""
    return str(type) if get_args(type) else str(getattr(type, "__name__", type))

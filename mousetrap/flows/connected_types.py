"""Compares the types of connected stages: what one sends with what the next one reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, get_args

from mousetrap.display.safe_text import safe
from mousetrap.errors import SettingsError
from mousetrap.flows.stage import Stage
from mousetrap.model.composed_types import is_union
from mousetrap.model.message import Message
from mousetrap.model.targets import Send
from mousetrap.model.type_comparison import compare
from mousetrap.worker.signature import output_type

# What a stage sends is not of these types: bytes are a ready-made body.
_NOT_COMPARED = (Message, Send, bytes, bytearray, memoryview)


def check_types(stages: Sequence[Stage[..., Any]]) -> None:
    """Compare what each stage sends to a queue with what the stage that reads it takes.

    A pair of which some values cannot be decoded is warned of.

    Raises:
        SettingsError: no value that one stage sends can be decoded by the next one.
    """
    readers = {each.queue.name: each for each in stages}
    for stage in stages:
        written = _compared(output_type(stage.function))
        for queue in stage.targets.writes if written is not Any else ():
            reader = readers.get(queue) if isinstance(queue, str) else None
            if reader is not None and reader.message_type is not Message:
                _check(stage, reader, written, reader.message_type)


def _compared(type: Any) -> Any:
    """Return *type* without what is not compared; Any if there is nothing else."""
    for member in get_args(type) if is_union(type) else (type,):
        if member in _NOT_COMPARED:
            kept = [each for each in get_args(type) if each not in _NOT_COMPARED]
            return _union(kept) if kept else Any
    return type


def _union(members: list[Any]) -> Any:
    found = members[0]
    for each in members[1:]:
        found |= each
    return found


def _check(writer: Stage[..., Any], reader: Stage[..., Any], written: Any, read: Any) -> None:
    found = compare(written, read)
    if not found.rank:
        return
    never = found.finding == "never fits"
    what = "can never" if never else "may not always"
    text = safe(
        f"what {writer.name} writes to {reader.queue.name!r} {what} be decoded by {reader.name}: "
        f"{found.why} ({writer.name} returns {_name(written)}, {reader.name} takes {_name(read)}); "
        f"change one of the two annotations"
    )
    if never:
        raise SettingsError(text)
    warnings.warn(text, stacklevel=5)


def _name(type: Any) -> str:
    return str(type) if get_args(type) else str(getattr(type, "__name__", type))

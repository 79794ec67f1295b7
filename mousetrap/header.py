"""The properties of our own messages as AMQP bytes, written and read without pika's help.

Nearly every message has the same five properties and the same few headers. Field by field, writing
them takes a third of the time of a publish, and reading them a third of that of a delivery. What
is not of that form goes pika's way, with the same result: `tests/test_wire.py`. Prototyped in
``notebooks/bench_flow.ipynb``.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import pika
from pika import data, spec

from mousetrap.message import ATTEMPT, JOB, PARENT, RETRIES, Message

PERSISTENT = 2
_JSON = "application/json"
# A content header's payload (AMQP 0-9-1, section 4.2.6.1) is class, weight and size of the body,
# then two bytes that say which properties follow, then these.
_CLASS = struct.pack(">HH", spec.BasicProperties.INDEX, 0)
_SIZE_END = 12  # where the flags begin
_FLAGS = struct.pack(
    ">H",
    spec.BasicProperties.FLAG_CONTENT_TYPE | spec.BasicProperties.FLAG_HEADERS
    | spec.BasicProperties.FLAG_DELIVERY_MODE | spec.BasicProperties.FLAG_MESSAGE_ID
    | spec.BasicProperties.FLAG_TIMESTAMP,
)  # fmt: skip


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


@lru_cache(maxsize=100)  # attempts and retries are small numbers
def _number(name: str, value: int) -> bytes:
    pieces: list[bytes] = [_short(name)]
    data.encode_value(pieces, value)
    return b"".join(pieces)


_START = _FLAGS + _short(_JSON)
_JOB = _short(JOB) + b"S"  # a long string (section 4.2.5.5): four bytes of length, then the text
_PARENT = _short(PARENT) + b"S"
_FIRST = _number(ATTEMPT, 1) + _JOB  # how the headers of most messages begin


def properties(
    message: Message, sent: int, base: pika.BasicProperties | None
) -> pika.BasicProperties:
    """Return the properties of *message*, first sent at *sent*, on top of those of *base*."""
    ours: Any = base or pika.BasicProperties()  # type: ignore[no-untyped-call]  # pika's
    ours.message_id = message.id
    ours.headers = message.wire_headers()
    ours.delivery_mode = PERSISTENT
    if ours.timestamp is None:  # a retry keeps the first one
        ours.timestamp = sent
    ours.content_type = ours.content_type or _JSON
    return ours  # type: ignore[no-any-return]  # as above


def encode(message: Message, size: int, sent: int, base: pika.BasicProperties | None) -> bytes:
    """Return the payload of the content header frame of *message*, whose body has *size* bytes.

    Raises:
        Exception: a header or property cannot be sent; whatever pika raises for it.
    """
    if base is not None or message.headers:
        pieces = properties(message, sent, base).encode()  # type: ignore[no-untyped-call]  # pika's
        return b"".join((_CLASS, size.to_bytes(8, "big"), *pieces))
    id = message.id.encode()
    job = id if message.job is message.id else message.job.encode()
    table = _number(ATTEMPT, message.attempt) + _JOB + len(job).to_bytes(4, "big") + job
    if message.parent is not None:
        parent = message.parent.encode()
        table += _PARENT + len(parent).to_bytes(4, "big") + parent
    if message.past_retries:
        table += _number(RETRIES, message.past_retries)
    return b"%b%b%b%b%b\x02%c%b%b" % (
        _CLASS, size.to_bytes(8, "big"), _START, len(table).to_bytes(4, "big"), table,
        len(id), id, sent.to_bytes(8, "big"),
    )  # fmt: skip


def decode(payload: bytes) -> pika.BasicProperties:
    """Return the properties that the *payload* of a content header frame tells.

    Raises:
        Exception: it tells nothing that makes sense; whatever pika raises then.
    """
    found: Any = pika.BasicProperties()  # type: ignore[no-untyped-call]  # pika's
    try:
        if payload.startswith(_START, _SIZE_END) and _read(payload, found):
            return found  # type: ignore[no-any-return]  # as above
    except (IndexError, UnicodeDecodeError):
        pass  # pika knows what to make of it
    found.decode(payload, _SIZE_END)
    return found  # type: ignore[no-any-return]  # as above


def _read(payload: bytes, found: Any) -> bool:
    """Read our five properties into *found*; False if these are not, just so, what is there."""
    start = _SIZE_END + len(_START) + 4
    end = start + int.from_bytes(payload[start - 4 : start], "big")  # of the headers
    last = len(payload) - 8  # where the timestamp begins
    if end + 2 + payload[end + 1] != last or not payload.startswith(_FIRST, start):
        return False
    start += len(_FIRST) + 4
    stop = start + int.from_bytes(payload[start - 4 : start], "big")
    headers: dict[str, Any] = {ATTEMPT: 1, JOB: payload[start:stop].decode()}
    if stop < end and payload.startswith(_PARENT, stop):
        start = stop + len(_PARENT) + 4
        stop = start + int.from_bytes(payload[start - 4 : start], "big")
        headers[PARENT] = payload[start:stop].decode()
    if stop != end:
        return False
    found.content_type, found.headers = _JSON, headers
    found.delivery_mode, found.message_id = payload[end], payload[end + 2 : last].decode()
    found.timestamp = int.from_bytes(payload[last:], "big")
    return True

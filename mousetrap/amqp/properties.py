"""The properties of our own messages as AMQP bytes, written and read without pika's help.

Nearly every message has the same five properties and the same few headers. Field by field, writing
them takes a third of the time of a publish, and reading them a third of that of a delivery. What
is not of that form goes pika's way, with the same result (`tests/amqp/test_fast_connection.py`).

Prototyped in ``notebooks/bench_flow.ipynb``.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, TypeAlias

import pika
from pika import data, spec

from mousetrap.model.message import ATTEMPT, JOB, PARENT, Message

AMQPProperties: TypeAlias = pika.BasicProperties
"""The type of a message's AMQP properties, for the other folders, which do not import pika."""

PERSISTENT = 2
# A quorum queue throws away what it has given out 20 times in vain, unless it is told another limit
# (measured on RabbitMQ 4.0 and 4.3). From half of that on it is better published anew.
NEAR_DELIVERY_LIMIT = 10
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


def _first_attempt() -> bytes:
    pieces: list[bytes] = [_short(ATTEMPT)]
    data.encode_value(pieces, 1)
    return b"".join(pieces)


_START = _FLAGS + _short(_JSON)
# a long string (section 4.2.5.5) is the letter S and four bytes of length, then the text
_FIRST = _first_attempt() + _short(JOB) + b"S"  # how the headers of most messages begin
_PARENT = _short(PARENT) + b"S"
_NONE = -1  # the length of a parent that is not there


@lru_cache(maxsize=1000)  # our own ids have one length, another program's a few
def _form(id: int, job: int, parent: int) -> tuple[struct.Struct, int]:
    """Return the layout of a payload whose ids have these lengths in bytes, and its table's size.

    The fields: `_CLASS`, size of the body, `_START`, size of the table, `_FIRST`, length of the
    job's id, that id, then, if there is a parent, `_PARENT` and the same of it, then delivery mode,
    length of the id, id, timestamp.
    """
    table = f"{len(_FIRST)}sI{job}s" + f"{len(_PARENT)}sI{parent}s" * (parent != _NONE)
    layout = struct.Struct(f">4sQ{len(_START)}sI{table}BB{id}sQ")
    return layout, struct.calcsize(f">{table}")


def is_near_delivery_limit(properties: AMQPProperties) -> bool:
    """Say whether a quorum queue has given this out so often that it will throw it away soon."""
    count = (properties.headers or {}).get("x-delivery-count")
    return isinstance(count, int) and count >= NEAR_DELIVERY_LIMIT


def kept_properties(properties: AMQPProperties) -> AMQPProperties:
    """Keep what another client set, less what would lose the message or be refused."""
    kept: Any = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
        content_type=properties.content_type, content_encoding=properties.content_encoding,
        priority=properties.priority, correlation_id=properties.correlation_id,
        reply_to=properties.reply_to, timestamp=properties.timestamp, type=properties.type,
        app_id=properties.app_id,
    )  # fmt: skip
    return kept  # type: ignore[no-any-return]  # as above


def request_properties(reply_to: str | None, ttl: int) -> AMQPProperties:
    """Return properties for a message that expires after *ttl* ms and asks for a reply.

    The reply goes to the queue *reply_to*; None: no reply is asked for.
    """
    ours: Any = pika.BasicProperties(reply_to=reply_to, expiration=str(ttl))  # type: ignore[no-untyped-call]  # pika's
    return ours  # type: ignore[no-any-return]  # as above


def basic_properties(message: Message, sent: int, base: AMQPProperties | None) -> AMQPProperties:
    """Return the properties of *message*, first sent at *sent*, on top of those of *base*."""
    ours: Any = base or pika.BasicProperties()  # type: ignore[no-untyped-call]  # pika's
    ours.message_id = message.id
    ours.headers = message.wire_headers()
    ours.delivery_mode = PERSISTENT
    if ours.timestamp is None:  # a retry keeps the first one
        ours.timestamp = sent
    ours.content_type = ours.content_type or _JSON
    return ours  # type: ignore[no-any-return]  # as above


def encode_properties(message: Message, size: int, sent: int, base: AMQPProperties | None) -> bytes:
    """Return the payload of the content header frame of *message*, whose body has *size* bytes.

    Raises:
        Exception: a header or property cannot be sent; whatever pika raises for it.
    """
    if base is None and not message.headers and message.attempt == 1 and not message.past_retries:
        id = message.id.encode()
        job = id if message.job is message.id else message.job.encode()
        if message.parent is None:
            form, table = _form(len(id), len(job), _NONE)
            return form.pack(_CLASS, size, _START, table, _FIRST, len(job), job,
                             PERSISTENT, len(id), id, sent)  # fmt: skip
        parent = message.parent.encode()
        form, table = _form(len(id), len(job), len(parent))
        return form.pack(_CLASS, size, _START, table, _FIRST, len(job), job,
                         _PARENT, len(parent), parent, PERSISTENT, len(id), id, sent)  # fmt: skip
    pieces = basic_properties(message, sent, base).encode()  # type: ignore[no-untyped-call]  # pika's
    return b"".join((_CLASS, size.to_bytes(8, "big"), *pieces))


def decode_properties(payload: bytes) -> AMQPProperties:
    """Return the properties that the *payload* of a content header frame tells.

    Raises:
        Exception: it tells nothing that makes sense; whatever pika raises then.
    """
    found: Any = pika.BasicProperties()  # type: ignore[no-untyped-call]  # pika's
    try:
        if payload.startswith(_START, _SIZE_END) and _read(payload, found):
            return found  # type: ignore[no-any-return]  # as above
    except (IndexError, UnicodeDecodeError, struct.error):
        pass  # pika knows what to make of it
    found.decode(payload, _SIZE_END)
    return found  # type: ignore[no-any-return]  # as above


def _read(payload: bytes, found: Any) -> bool:
    """Read our five properties into *found*; False if these are not, just so, what is there."""
    job = payload[_JOB_LENGTH]  # the last of four bytes: longer ids are not ours
    after = _JOB_LENGTH + 1 + job
    parent, mode = _NONE, after
    if payload.startswith(_PARENT, after):
        parent = payload[after + len(_PARENT) + 3]
        mode = after + len(_PARENT) + 4 + parent
    form, table = _form(payload[mode + 1], job, parent)
    fields = form.unpack(payload)
    if fields[3:6] != (table, _FIRST, job):
        return False
    job_id = fields[6].decode()
    found.headers = {ATTEMPT: 1, JOB: job_id}
    if parent != _NONE:
        if fields[8] != parent:
            return False
        found.headers[PARENT] = fields[9].decode()
    found.delivery_mode, _, id, found.timestamp = fields[-4:]
    found.message_id = job_id if id == fields[6] else id.decode()
    found.content_type = _JSON
    return True


_JOB_LENGTH = _SIZE_END + len(_START) + 4 + len(_FIRST) + 3  # where it is, if there is one

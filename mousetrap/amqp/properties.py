"""A message's AMQP properties: made, kept, encoded and decoded.

Nearly every message of ours has the same five properties and the same few headers. pika encodes and
decodes them field by field, which takes a third of the time of a publish and a third of the time of
a delivery. So this module itself encodes and decodes the properties of such messages, and leaves
all others to pika; the result is the same (`tests/amqp/test_properties.py`).

Prototyped in ``notebooks/bench_flow.ipynb``.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, TypeAlias

import pika
from pika import data, spec

from mousetrap.model.headers import ATTEMPT, JOB, PARENT
from mousetrap.model.message import Message

AMQPProperties: TypeAlias = pika.BasicProperties
"""The type of a message's AMQP properties, for the other folders, which do not import pika."""

PERSISTENT = 2
REPLY_TO = "amq.rabbitmq.reply-to"  # the broker replaces it by a name of the channel
# Deliveries of one message. A quorum queue drops a message after 20 deliveries that were not acked,
# unless it has another limit (measured on RabbitMQ 4.0 and 4.3). From half of that on we publish a
# copy, whose count starts at 0.
NEAR_DELIVERY_LIMIT = 10
_JSON = "application/json"
# The payload of a content header (AMQP 0-9-1, section 4.2.6.1) has a class, a weight and the body
# size, then two bytes of flags that say which properties follow, then those properties.
_CLASS = struct.pack(">HH", spec.BasicProperties.INDEX, 0)
_SIZE_END = 12  # the offset of the flags
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
# a long string (section 4.2.5.5) is the letter S, four bytes of length and the text
_FIRST = _first_attempt() + _short(JOB) + b"S"  # the start of most messages' headers
_PARENT = _short(PARENT) + b"S"
_NONE = -1  # in place of a length: the message has no parent


@lru_cache(maxsize=1000)  # our own ids have one length, those of other clients a few
def _form(id: int, job: int, parent: int) -> tuple[struct.Struct, int]:
    """Return the layout of a payload with ids of these lengths in bytes, and its table's size.

    The fields: `_CLASS`, body size, `_START`, table size, `_FIRST`, length of the job's id, that
    id; if there is a parent: `_PARENT`, length of its id, that id; then delivery mode, length of
    the message's id, that id, timestamp.
    """
    table = f"{len(_FIRST)}sI{job}s" + f"{len(_PARENT)}sI{parent}s" * (parent != _NONE)
    layout = struct.Struct(f">4sQ{len(_START)}sI{table}BB{id}sQ")
    return layout, struct.calcsize(f">{table}")


def is_near_delivery_limit(properties: AMQPProperties) -> bool:
    """Return whether a quorum queue has delivered this so often that it will drop it soon."""
    return delivery_count(properties) >= NEAR_DELIVERY_LIMIT


def delivery_count(properties: AMQPProperties) -> int:
    """Return how often a quorum queue has delivered this before; 0 in any other queue."""
    count = (properties.headers or {}).get("x-delivery-count")
    return count if isinstance(count, int) else 0


def kept_properties(properties: AMQPProperties) -> AMQPProperties:
    """Return the properties of another client that a copy of its message keeps.

    Not kept are those that would make the broker drop the copy (expiration) or refuse it (user id),
    and those that `basic_properties` sets.
    """
    kept: Any = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
        content_type=properties.content_type, content_encoding=properties.content_encoding,
        priority=properties.priority, correlation_id=properties.correlation_id,
        reply_to=properties.reply_to, timestamp=properties.timestamp, type=properties.type,
        app_id=properties.app_id,
    )  # fmt: skip
    return kept  # type: ignore[no-any-return]  # as above


def request_properties(reply_to: str | None, ttl: int) -> AMQPProperties:
    """Return properties of a message that expires after *ttl* milliseconds.

    *reply_to* names the queue for the reply; None: no reply is expected.
    """
    properties: Any = pika.BasicProperties(reply_to=reply_to, expiration=str(ttl))  # type: ignore[no-untyped-call]  # pika's
    return properties  # type: ignore[no-any-return]  # as above


def call_properties(correlation_id: str, priority: int | None) -> AMQPProperties:
    """Return the properties of a request; the channel that publishes it gets the answer."""
    properties: Any = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
        reply_to=REPLY_TO, correlation_id=correlation_id, priority=priority
    )
    return properties  # type: ignore[no-any-return]  # as above


def answer_properties(correlation_id: str | None) -> AMQPProperties:
    """Return properties of the answer to a request with this *correlation_id*."""
    properties: Any = pika.BasicProperties(correlation_id=correlation_id)  # type: ignore[no-untyped-call]  # pika's
    return properties  # type: ignore[no-any-return]  # as above


def sent_properties(priority: int) -> AMQPProperties:
    """Return properties of a message with this *priority*."""
    return pika.BasicProperties(priority=priority)  # type: ignore[no-untyped-call]  # pika's


def basic_properties(message: Message, sent: int, base: AMQPProperties | None) -> AMQPProperties:
    """Return the properties of *message*, first published at *sent*; *base* is changed to them."""
    properties: Any = base or pika.BasicProperties()  # type: ignore[no-untyped-call]  # pika's
    if properties.content_encoding is None:
        properties.content_encoding = message.content_encoding
    if properties.correlation_id is None:
        properties.correlation_id = message.correlation_id
    properties.message_id = message.id
    properties.headers = message.wire_headers()
    properties.delivery_mode = PERSISTENT
    if properties.timestamp is None:  # a retry keeps the time of the first publish
        properties.timestamp = sent
    properties.content_type = properties.content_type or _JSON
    return properties  # type: ignore[no-any-return]  # as above


def encode_properties(message: Message, size: int, sent: int, base: AMQPProperties | None) -> bytes:
    """Return the payload of the content header frame of *message*, whose body has *size* bytes.

    Raises:
        Exception: a header or property cannot be encoded; whatever pika raises for it.
    """
    if (
        base is None
        and not message.headers
        and message.attempt == 1
        and not message.past_retries
        and message.correlation_id is None
        and message.content_encoding is None
    ):
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
    """Return the properties in the *payload* of a content header frame.

    Raises:
        Exception: it cannot be decoded; whatever pika raises for it.
    """
    found: Any = pika.BasicProperties()  # type: ignore[no-untyped-call]  # pika's
    try:
        if payload.startswith(_START, _SIZE_END) and _read(payload, found):
            return found  # type: ignore[no-any-return]  # as above
    except (IndexError, UnicodeDecodeError, struct.error):
        pass  # not of our form: pika decodes it, or raises
    found.decode(payload, _SIZE_END)
    return found  # type: ignore[no-any-return]  # as above


def _read(payload: bytes, found: Any) -> bool:
    """Read our five properties into *found*; False if the payload has not exactly that form."""
    job = payload[_JOB_LENGTH]  # the last of four bytes: ids of 256 bytes and more are not ours
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


_JOB_LENGTH = _SIZE_END + len(_START) + 4 + len(_FIRST) + 3  # the offset of the length's last byte

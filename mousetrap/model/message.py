"""A message: a plain JSON body, with everything of ours in AMQP properties and headers.

So a plain pika consumer can read our messages with ``json.loads(body)``, and our workers can handle
messages that plain pika sent. Nothing here talks to a broker. Prototyped in
``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from mousetrap.display.formats import age
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import UndecodableMessage
from mousetrap.model.content_encoding import decompressed
from mousetrap.model.decoding import decode as decode  # re-exported: the reverse of `encode`
from mousetrap.model.encoding import check_size
from mousetrap.model.encoding import encode as encode
from mousetrap.model.headers import (
    ATTEMPT,
    DEAD_SINCE,
    EDITED,
    FIELD_HEADERS,
    JOB,
    LOSSES,
    ORIGIN,
    PARENT,
    REASON,
    REPLAYED,
    RETRIES,
    TIMEOUTS,
    TRACEBACK,
    arrived,
)
from mousetrap.runtime import clock, randomness

MAX_ID_BYTES = 255  # AMQP sends an id as a short string, which has at most 255 bytes
MAX_CLOCK_LEAD = 86_400.0  # seconds: a day; a time further in the future is not believed
MAX_ATTEMPT = 1000  # of every count in a header; a guess: no queue has a thousand retry delays
ID_NAMESPACE = bytes.fromhex("a3b1c9f26a0e5d8b9d0a6d6f75736574")  # of output ids; never changes


class _Mark(enum.Enum):
    NOT_DECODED = 0


# In place of data, because None is valid data. An enum is the same object in a copied message.
_NOT_DECODED: Any = _Mark.NOT_DECODED

current_message: ContextVar[Message] = ContextVar("mousetrap.current")
"""The message that is being handled in this thread or coroutine; unset outside a worker."""


class Properties(Protocol):
    """The AMQP properties that a message is read from, by their standard names.

    An AMQP client's own object, such as pika's `BasicProperties`, can be passed as it is. To read
    one more property, add it here and use it in `Message.from_wire`; callers pass the whole object
    and need no change.
    """

    @property
    def message_id(self) -> str | None:
        """The message's id."""

    @property
    def headers(self) -> Mapping[str, Any] | None:
        """The table of headers, ours and those of other clients."""

    @property
    def correlation_id(self) -> str | None:
        """The id by which the sender knows what belongs together."""

    @property
    def content_encoding(self) -> str | None:
        """How the body is compressed, if it is."""

    @property
    def timestamp(self) -> int | None:
        """When the message was first published, in seconds since 1970."""


class Message:
    """A body with an id, an attempt number, and the ids of its parent and its job.

    ``Message({"seed": 1})`` is a new job with a random id. ``parent.child(data, "fetch", 0)`` is
    the first output of stage ``fetch`` for the message *parent*; its id is the same each time
    *parent* is handled. `data` and `body` are the decoded and the encoded form of the same value;
    each is computed on first use. `sent` is when the message was first put into a queue, in seconds
    since 1970 on the sender's clock; None if the message does not say. `correlation_id` is passed
    on to the outputs. `content` is the body without its `content_encoding`.

    Raises:
        ValueError: *id* or *correlation_id* is longer than `MAX_ID_BYTES`, or *body* than
            `MAX_BODY_BYTES`.

    Threads: any can read it; its values do not change after it was made.
    """

    __slots__ = ("_body", "_data", "attempt", "content_encoding", "correlation_id", "headers", "id",
                 "job", "parent", "past_retries", "sent")  # fmt: skip

    def __init__(
        self,
        data: Any = _NOT_DECODED,
        *,
        body: bytes | None = None,
        id: str | None = None,
        attempt: int = 1,
        parent: str | None = None,
        job: str | None = None,
        past_retries: int = 0,
        headers: Mapping[str, Any] | None = None,
        sent: int | None = None,
        correlation_id: str | None = None,
        content_encoding: str | None = None,
    ) -> None:
        if body is not None:
            check_size(body)
        if id is not None and len(id.encode()) > MAX_ID_BYTES:
            raise ValueError(
                f"the message id has more than {MAX_ID_BYTES} bytes: use a shorter one"
            )
        if correlation_id is not None and len(correlation_id.encode()) > MAX_ID_BYTES:
            raise ValueError(
                f"the correlation id has more than {MAX_ID_BYTES} bytes: use a shorter one"
            )
        self._data = data
        self._body = b"" if data is _NOT_DECODED and body is None else body
        self.id = id or randomness.new_id()
        self.attempt = attempt
        self.parent = parent
        self.job = job or self.id
        self.past_retries = past_retries  # of its ancestors
        self.headers: Mapping[str, Any] = headers or {}
        self.sent = sent
        self.correlation_id = correlation_id
        self.content_encoding = content_encoding

    @property
    def short_id(self) -> str:
        """The beginning of its id, made safe for a log: other clients choose their ids freely."""
        return safe(self.id[:8])

    @property
    def body(self) -> bytes:
        """The bytes on the wire; encoded on first use (see `encode`)."""
        if self._body is None:
            self._body = encode(self._data)
        return self._body

    @property
    def content(self) -> bytes:
        """The body without its content encoding; `body` stays as it arrived.

        Raises:
            UndecodableMessage: it is damaged or too large; see `content_encoding.decompressed`.
        """
        if self.content_encoding is None:
            return self.body
        return decompressed(self.body, self.content_encoding)

    @property
    def readable_body(self) -> bytes:
        """The content for people and recordings; the body if that cannot be decompressed."""
        try:
            return self.content
        except UndecodableMessage:
            return self.body

    @property
    def data(self) -> Any:
        """The decoded body as plain Python values; None for an empty body.

        Raises:
            UndecodableMessage: the body is not JSON.
        """
        if self._data is _NOT_DECODED:
            content = self.content
            self._data = decode(content) if content else None
        return self._data

    @property
    def retries(self) -> int:
        """How many attempts at this message and its ancestors failed and were retried."""
        return self.past_retries + self.attempt - 1

    @property
    def reason(self) -> str | None:
        """Why it was dead-lettered, as ``ValueError: no luck``; None if it was not."""
        return _text(self.headers.get(REASON))

    @property
    def traceback(self) -> str | None:
        """The traceback of the handler that failed; None if it was not dead-lettered."""
        return _text(self.headers.get(TRACEBACK))

    @property
    def origin(self) -> str | None:
        """Plain name of the work queue it was dead-lettered from; None if it was not."""
        return _text(self.headers.get(ORIGIN))

    @property
    def dead_since(self) -> int | None:
        """When it was dead-lettered, in seconds since 1970 on the worker's clock."""
        at = self.headers.get(DEAD_SINCE)
        return at if isinstance(at, int) and not isinstance(at, bool) else None

    @property
    def replayed(self) -> int:
        """How often it was sent again from the dead queue; absurd values are clamped."""
        return _clamped(self.headers.get(REPLAYED), 0)

    @property
    def losses(self) -> int:
        """How often a worker was lost while it held this message; absurd values are clamped."""
        return _clamped(self.headers.get(LOSSES), 0)

    @property
    def timeouts(self) -> int:
        """How often its ack timed out; absurd values are clamped."""
        return _clamped(self.headers.get(TIMEOUTS), 0)

    @property
    def is_edited(self) -> bool:
        """A person changed its body before it was sent again."""
        return bool(self.headers.get(EDITED))

    def age_at(self, now: float) -> float | None:
        """Return the seconds since it was dead-lettered or, if it was not, since it was sent.

        None if the message does not say when, or if the time is absurd. The time comes from another
        machine's clock; if it is later than *now* by at most `MAX_CLOCK_LEAD`, the age is 0.
        """
        since = self.sent if self.dead_since is None else self.dead_since
        if since is None or not 0 <= since <= now + MAX_CLOCK_LEAD:
            return None
        return max(0.0, now - since)

    def child(self, data: Any, stage: str, index: int) -> Message:
        """Return the *index*-th output of *stage* for this message; it always has the same id."""
        id = child_id(self.id, stage, index)
        return Message(data, id=id, parent=self.id, job=self.job, past_retries=self.retries)

    def in_queue(self, queue: str) -> Message:
        """Return this message as the copy of it that an exchange passed to *queue* (plain name).

        It has an id of its own, because other queues may have copies as well (see `copy_id`).
        """
        message = self.copy(self.attempt, self.headers)
        message.id = copy_id(self.id, queue)
        message.job = message.id if self.job == self.id else self.job
        return message

    def copy(self, attempt: int, headers: Mapping[str, Any], body: bytes | None = None) -> Message:
        """Return a copy with the same id, for attempt number *attempt*, with *body* if given."""
        message = Message(
            id=self.id,
            attempt=attempt,
            parent=self.parent,
            job=self.job,
            past_retries=self.past_retries,
            headers=headers,
            sent=self.sent,
            correlation_id=self.correlation_id,
            content_encoding=self.content_encoding if body is None else None,
        )
        message._body = self.body if body is None else body
        return message

    def wire_headers(self) -> dict[str, Any]:
        """Return all headers to send: `headers` and those for attempt, job, parent and retries."""
        ours = {ATTEMPT: self.attempt, JOB: self.job}
        if self.parent is not None:
            ours[PARENT] = self.parent
        if self.past_retries:
            ours[RETRIES] = self.past_retries
        return {**self.headers, **ours}

    @classmethod
    def from_wire(cls, body: bytes, properties: Properties) -> Message:
        """Return the message that arrived with *body* and *properties*.

        Any client can set our headers. A count that is not an integer or out of range is clamped; a
        text that is not a string is ignored.
        """
        headers, sent = properties.headers or {}, properties.timestamp
        correlation_id, encoding = properties.correlation_id, properties.content_encoding
        attempt, retries = headers.get(ATTEMPT), headers.get(RETRIES)
        message = cls(
            id=_text(properties.message_id),
            attempt=1 if attempt == 1 else _clamped(attempt, 1),
            parent=_id(headers.get(PARENT)),
            job=_id(headers.get(JOB)),
            past_retries=0 if retries is None else _clamped(retries, 0),
            headers=None if headers.keys() <= FIELD_HEADERS else arrived(headers),
            sent=sent if isinstance(sent, int) else None,
            correlation_id=None if correlation_id is None else _id(correlation_id),
            content_encoding=None if encoding is None else _text(encoding),
        )
        message._body = body  # no size check: this broker has accepted it
        return message

    def __repr__(self) -> str:
        """Return facts about the message; a body is never shown without a request for it."""
        size = "" if self._body is None else f", {len(self._body):,} bytes"
        reason = f", dead: {self.reason!r}" if self.reason else ""
        return f"<Message {self.short_id}, attempt {self.attempt}{size}{reason}>"

    def _repr_html_(self) -> str:
        seconds = self.age_at(clock.time())
        since = None if seconds is None else age(seconds)
        facts = {
            "message": self.id,
            "job": None if self.job == self.id else self.job,
            "parent": self.parent,
            "correlation id": self.correlation_id,
            "attempt": self.attempt,
            "size": f"{len(self.body):,} bytes",
            "age" if self.dead_since is None else "dead for": since,
            "reason": self.reason,
            "replayed": self.replayed or None,
            "headers": ", ".join(str(key) for key in self.headers if key not in _OURS) or None,
        }
        rows = [(name, fact) for name, fact in facts.items() if fact is not None]
        return Table(("", ""), rows)._repr_html_()


_OURS = FIELD_HEADERS | {REASON, TRACEBACK, ORIGIN, DEAD_SINCE, REPLAYED, LOSSES, TIMEOUTS}


def child_id(parent: str, stage: str, index: int) -> str:
    """Return the id of the *index*-th output of *stage* for the message with the id *parent*.

    It is ``uuid.uuid5(UUID(bytes=ID_NAMESPACE), f"{parent}/{stage}/{index}").hex`` (RFC 9562,
    section 5.5), in a third of the time.
    """
    return child_key(parent, stage, index).hex()


def child_key(parent: str, stage: str, index: int) -> bytes:
    """Return the 16 bytes of which `child_id` returns the hexadecimal digits."""
    name = f"{parent}/{stage}/{index}".encode()
    digest = bytearray(hashlib.sha1(ID_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50  # the version
    digest[8] = digest[8] & 0x3F | 0x80  # the variant
    return bytes(digest)


def copy_id(id: str, queue: str) -> str:
    """Return the id of the copy of message *id* that an exchange passed to *queue* (plain name).

    It is ``ID@QUEUE``, or computed from both if that is too long for a message id.
    """
    text = f"{id}@{queue}"
    return text if len(text.encode()) <= MAX_ID_BYTES else child_id(id, f"@{queue}", 0)


def _clamped(value: Any, low: int) -> int:
    sane = isinstance(value, int) and not isinstance(value, bool)
    return min(max(value, low), MAX_ATTEMPT) if sane else low


def _id(value: Any) -> str | None:
    """Return the id in a header; one that is longer than an id of ours is ignored."""
    is_id = isinstance(value, str) and 0 < len(value.encode()) <= MAX_ID_BYTES
    return value if is_id else None


def _text(value: Any) -> str | None:
    """Return a header's value if it is a string, cut to 20,000 characters; any other is ignored."""
    return value[:20_000] if isinstance(value, str) and value else None

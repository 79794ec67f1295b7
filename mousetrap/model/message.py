"""What travels: a plain JSON body, and everything of ours in AMQP properties and headers.

So ``json.loads(body)`` in a plain pika consumer works on our messages, and a message that plain
pika sent is one we can handle. Nothing here talks to a broker. Prototyped in
``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table, age
from mousetrap.errors import UndecodableMessage
from mousetrap.runtime import clock, randomness

MAX_BODY = 16 * 1024 * 1024  # bytes; what RabbitMQ 4 accepts unless told otherwise
MAX_ID = 255  # bytes of a short string of AMQP
DAY = 86_400.0  # seconds; clocks that differ by more tell nothing
MAX_ATTEMPT = 1000  # a guess at "absurd": nobody configures a thousand retry delays
ID_NAMESPACE = bytes.fromhex("a3b1c9f26a0e5d8b9d0a6d6f75736574")  # of derived ids: never changes
_NOT_YET: Any = object()
_OFFSET = re.compile(r"\(byte (\d+)\)")

ATTEMPT, PARENT, JOB = "mousetrap-attempt", "mousetrap-parent", "mousetrap-job"
RETRIES = "mousetrap-retries"
REASON, TRACEBACK, ORIGIN = "mousetrap-reason", "mousetrap-traceback", "mousetrap-origin"
DEAD_SINCE, REPLAYED, DROPPED = "mousetrap-died", "mousetrap-replayed", "mousetrap-dropped"
EDITED = "mousetrap-edited"
LOSSES, TIMEOUTS = "mousetrap-losses", "mousetrap-timeouts"
COUNTS = ("x-delivery-count", "x-acquired-count")  # of a quorum queue

current_message: ContextVar[Message] = ContextVar("mousetrap.current")
"""The message that is being handled in this thread or coroutine; unset outside a worker."""


class Properties(Protocol):
    """The AMQP properties that a message is read from, by their standard names.

    An AMQP client's own object, such as pika's `BasicProperties`, can be passed as it is. A
    property that messages begin to use is added here and in `Message.from_wire`; the callers pass
    the whole object on and need no change.
    """

    @property
    def message_id(self) -> str | None:
        """The message's id."""

    @property
    def headers(self) -> Mapping[str, Any] | None:
        """The table of headers, ours and those of other clients."""

    @property
    def timestamp(self) -> int | None:
        """When the message was first published, in seconds since 1970."""


class Message:
    """A body with an id, an attempt number and a family tree.

    ``Message({"seed": 1})`` is a new job with a random id; ``parent.child(data, "fetch", 0)`` is
    its first output, whose id is the same each time that job is done again. `data` and `body` are
    two views of the same thing, converted when first asked for. `sent` is when it was first put
    into a queue, in seconds since 1970 on the clock of whoever did; None where that was not told.

    Threads: read from any; not changed after it was made.
    """

    __slots__ = ("_body", "_data", "attempt", "headers", "id", "job", "parent", "past_retries",
                 "sent")  # fmt: skip

    def __init__(
        self,
        data: Any = _NOT_YET,
        *,
        body: bytes | None = None,
        id: str | None = None,
        attempt: int = 1,
        parent: str | None = None,
        job: str | None = None,
        past_retries: int = 0,
        headers: Mapping[str, Any] | None = None,
        sent: int | None = None,
    ) -> None:
        if body is not None:
            _check_size(body)
        if id is not None and len(id.encode()) > MAX_ID:
            raise ValueError(f"a message id of more than {MAX_ID} bytes: AMQP has no room for it")
        self._data = data
        self._body = b"" if data is _NOT_YET and body is None else body
        self.id = id or randomness.new_id()
        self.attempt = attempt
        self.parent = parent
        self.job = job or self.id
        self.past_retries = past_retries  # of its ancestors
        self.headers: Mapping[str, Any] = headers or {}
        self.sent = sent

    @property
    def short_id(self) -> str:
        """The beginning of its id, fit for a log: ids may come from anybody."""
        return safe(self.id[:8])

    @property
    def body(self) -> bytes:
        """The bytes on the wire; encoded on first use (see `encode`)."""
        if self._body is None:
            self._body = encode(self._data)
        return self._body

    @property
    def data(self) -> Any:
        """What the body says, as plain Python values; an empty body says None.

        Raises:
            UndecodableMessage: the body is not JSON.
        """
        if self._data is _NOT_YET:
            self._data = decode(self.body) if self.body else None
        return self._data

    @property
    def retries(self) -> int:
        """How many handlings of this message and its ancestors failed and were tried again."""
        return self.past_retries + self.attempt - 1

    @property
    def reason(self) -> str | None:
        """Why it died, as ``ValueError: no luck``; None for the living."""
        return _text(self.headers.get(REASON))

    @property
    def traceback(self) -> str | None:
        """Where in the handler it died."""
        return _text(self.headers.get(TRACEBACK))

    @property
    def origin(self) -> str | None:
        """The queue it was read from when it failed."""
        return _text(self.headers.get(ORIGIN))

    @property
    def dead_since(self) -> int | None:
        """When it died, in seconds since 1970 on the clock of the worker that buried it."""
        at = self.headers.get(DEAD_SINCE)
        return at if isinstance(at, int) and not isinstance(at, bool) else None

    @property
    def replayed(self) -> int:
        """How often it was taken out of the dead queue and sent again."""
        return _clamped(self.headers.get(REPLAYED), 0)

    @property
    def losses(self) -> int:
        """How often a worker was lost while it had this message; absurd values are clamped."""
        return _clamped(self.headers.get(LOSSES), 0)

    @property
    def timeouts(self) -> int:
        """How often it was in hand for longer than the broker allows; absurd values are clamped."""
        return _clamped(self.headers.get(TIMEOUTS), 0)

    @property
    def is_edited(self) -> bool:
        """A person changed its body before it was sent again."""
        return bool(self.headers.get(EDITED))

    def age_at(self, now: float) -> float | None:
        """Seconds since it died or, for the living, since it was sent; None: not told, or absurd.

        Both are told by other clocks than *now*, which may be a little ahead of it.
        """
        since = self.sent if self.dead_since is None else self.dead_since
        return None if since is None or not 0 <= since <= now + DAY else max(0.0, now - since)

    def child(self, data: Any, stage: str, index: int) -> Message:
        """Return the *index*-th output of *stage* for this message; always with the same id."""
        id = child_id(self.id, stage, index)
        return Message(data, id=id, parent=self.id, job=self.job, past_retries=self.retries)

    def copy(self, attempt: int, headers: Mapping[str, Any], body: bytes | None = None) -> Message:
        """Return the same message, same id and, unless given anew, *body*, as another try."""
        message = Message(
            id=self.id,
            attempt=attempt,
            parent=self.parent,
            job=self.job,
            past_retries=self.past_retries,
            headers=headers,
            sent=self.sent,
        )
        message._body = self.body if body is None else body
        return message

    def wire_headers(self) -> dict[str, Any]:
        """All headers to send, ours included."""
        ours = {ATTEMPT: self.attempt, JOB: self.job}
        if self.parent is not None:
            ours[PARENT] = self.parent
        if self.past_retries:
            ours[RETRIES] = self.past_retries
        return {**self.headers, **ours}

    @classmethod
    def from_wire(cls, body: bytes, properties: Properties) -> Message:
        """Return the message that arrived with *body* and *properties*.

        Forged or absurd values of our headers are clamped, never trusted.
        """
        headers, sent = properties.headers or {}, properties.timestamp
        attempt, retries = headers.get(ATTEMPT), headers.get(RETRIES)
        message = cls(
            id=_text(properties.message_id),
            attempt=1 if attempt == 1 else _clamped(attempt, 1),
            parent=_text(headers.get(PARENT)),
            job=_text(headers.get(JOB)),
            past_retries=0 if retries is None else _clamped(retries, 0),
            headers=None
            if headers.keys() <= _FAMILY
            else {key: value for key, value in headers.items() if key not in _FAMILY},
            sent=sent if isinstance(sent, int) else None,
        )
        message._body = body  # past the size check: this broker has shown that it takes it
        return message

    def __repr__(self) -> str:
        """Say what it is, not what it says: a body appears nowhere unless asked for."""
        size = "" if self._body is None else f", {len(self._body):,} bytes"
        died = f", died of {self.reason!r}" if self.reason else ""
        return f"<Message {self.short_id}, attempt {self.attempt}{size}{died}>"

    def _repr_html_(self) -> str:
        seconds = self.age_at(clock.time())
        since = None if seconds is None else age(seconds)
        facts = {
            "message": self.id,
            "job": None if self.job == self.id else self.job,
            "parent": self.parent,
            "attempt": self.attempt,
            "size": f"{len(self.body):,} bytes",
            "age" if self.dead_since is None else "dead for": since,
            "reason": self.reason,
            "replayed": self.replayed or None,
            "headers": ", ".join(key for key in self.headers if key not in _OURS) or None,
        }
        rows = [(name, fact) for name, fact in facts.items() if fact is not None]
        return Table(("", ""), rows)._repr_html_()


_FAMILY = frozenset((ATTEMPT, PARENT, JOB, RETRIES))
_OURS = _FAMILY | {REASON, TRACEBACK, ORIGIN, DEAD_SINCE, REPLAYED, LOSSES, TIMEOUTS}


def child_id(parent: str, stage: str, index: int) -> str:
    """Return the id of the *index*-th output of *stage* for the message with the id *parent*.

    It is ``uuid.uuid5(UUID(bytes=ID_NAMESPACE), f"{parent}/{stage}/{index}").hex`` (RFC 9562,
    section 5.5), in a third of the time.
    """
    name = f"{parent}/{stage}/{index}".encode()
    digest = bytearray(hashlib.sha1(ID_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50  # the version
    digest[8] = digest[8] & 0x3F | 0x80  # the variant
    return digest.hex()


def without_delivery_counts(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return *headers* less what a quorum queue has counted."""
    return {key: value for key, value in headers.items() if key not in COUNTS}


def without_failure_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return *headers* less what deaths left: our reason, our counts, the broker's own history.

    We count attempts ourselves, because the broker's counts differ by version and queue type.
    """
    ours = (REASON, TRACEBACK, ORIGIN, DEAD_SINCE, LOSSES, TIMEOUTS)
    brokers = ("x-death", "x-first-death-", "x-last-death-", *COUNTS)
    return {
        key: value
        for key, value in headers.items()
        if key not in ours and not key.startswith(brokers)
    }


def encode(data: Any) -> bytes:
    """Return *data* as JSON bytes; None is the empty body, bytes are taken as they are.

    Beside plain values: dataclasses, `msgspec.Struct`, times, UUIDs and what else msgspec writes,
    and models of pydantic.

    Raises:
        TypeError: JSON has no such value.
        ValueError: not finite (NaN, infinity): JSON has no such number; nested too deep; or larger
            than `MAX_BODY`.
    """
    if data is None:
        return b""
    try:
        body = data if isinstance(data, bytes) else _written(data)
    except RecursionError:
        raise ValueError("nested too deep for JSON: flatten it") from None
    _check_size(body)
    if isinstance(data, bytes):
        return body
    # msgspec writes NaN and infinity as null: silently another value. Only a body with a null in
    # it can hide one, and the strict writer of the standard library finds it.
    if b"null" in body:
        import json

        json.dumps(msgspec.to_builtins(data, enc_hook=_plain), allow_nan=False)
    return body


def _plain(value: Any) -> Any:
    """Return a pydantic model as plain values; it is known by its method, not by an import."""
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    raise TypeError(f"JSON has no such value: {type(value).__name__}; send plain values instead")


_written = msgspec.json.Encoder(enc_hook=_plain).encode


def _check_size(body: bytes) -> None:
    if len(body) > MAX_BODY:  # the broker would close the channel, with everybody's messages on it
        raise ValueError(
            f"a body of {len(body):,} bytes: brokers take up to {MAX_BODY:,}; store it elsewhere "
            f"and send the way to it"
        )


def decode(body: bytes, type: Any = Any) -> Any:
    """Return *body* as a value of *type* (whatever `msgspec` can validate: dataclasses, ...).

    Raises:
        UndecodableMessage: not JSON, not UTF-8, nested too deep, or not of *type*; says where.
    """
    try:
        return _decoder(type).decode(body)
    except msgspec.ValidationError as error:
        raise UndecodableMessage(f"wrong type: {error}") from None
    except msgspec.DecodeError as error:
        found = _OFFSET.search(str(error))
        reason = _OFFSET.sub("", str(error)).strip().removeprefix("JSON is malformed: ")
        raise UndecodableMessage(
            f"not JSON: {reason}", int(found[1]) if found else len(body)
        ) from None
    except UnicodeDecodeError as error:
        raise UndecodableMessage(f"not UTF-8: {error.reason}", _first_bad_byte(body)) from None
    except (RecursionError, ValueError) as error:
        raise UndecodableMessage(f"not usable JSON: {error}") from None


@lru_cache(maxsize=256)
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


def _first_bad_byte(body: bytes) -> int | None:
    # msgspec decodes each string by itself and counts from its beginning
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def _clamped(value: Any, low: int) -> int:
    sane = isinstance(value, int) and not isinstance(value, bool)
    return min(max(value, low), MAX_ATTEMPT) if sane else low


def _text(value: Any) -> str | None:
    """Header values may be anything: keep short strings, drop the rest."""
    return value[:20_000] if isinstance(value, str) and value else None

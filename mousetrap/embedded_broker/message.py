"""A message as the embedded broker stores it; its properties stay the bytes that the client sent.

Only what routing, expiry and dead-lettering need is decoded, and only when it is needed. A property
is found by reading the property flags (AMQP 0-9-1, 4.2.6.1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from mousetrap.embedded_broker import codec

# in the order of their flags, from bit 15 down: name and type
PROPERTIES = [
    ("content_type", "short"), ("content_encoding", "short"), ("headers", "table"),
    ("delivery_mode", "octet"), ("priority", "octet"), ("correlation_id", "short"),
    ("reply_to", "short"), ("expiration", "short"), ("message_id", "short"), ("timestamp", "8"),
    ("type", "short"), ("user_id", "short"), ("app_id", "short"), ("cluster_id", "short"),
]  # fmt: skip
FLAG = {name: 1 << 15 - n for n, (name, _) in enumerate(PROPERTIES)}
OVERHEAD_BYTES = 250  # memory that a stored message takes beside its content; a guess

_numbers = itertools.count()


@dataclass(frozen=True)
class DeathHistory:
    """How a dead letter got here. The broker keeps this, because clients can forge its headers."""

    deaths: tuple[dict[str, Any], ...]  # as in the header x-death, newest first
    first: dict[str, str]  # of the first death: reason, queue, exchange
    acquired_count: int = 0  # in the last queue: how often it was delivered and not acked
    delivery_count: int = 0  # in the last queue: how many of these count as failed
    is_rerouted: bool = False  # a queue gave it a new routing key, which replaces those in CC too


class Message:
    """A message: exchange, routing key, encoded properties, body.

    It does not change any more once its content is complete, so that queues can share it.
    """

    __slots__ = ("_headers", "body", "exchange", "history", "properties", "routing_key")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        history: DeathHistory | None = None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties  # flags and values, as in a content header
        self.body = body
        self.history = history
        self._headers: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """The bytes of memory that it takes, estimated."""
        return len(self.body) + len(self.properties) + OVERHEAD_BYTES

    @property
    def routing_keys(self) -> list[str]:
        """The routing key and those in the headers CC and BCC, each once.

        If a queue gave a dead letter another routing key, only that one.
        """
        keys = [self.routing_key]
        if b"CC" in self.properties and not (self.history and self.history.is_rerouted):
            for name in ("CC", "BCC"):
                keys += [key for key in self.headers.get(name, []) if isinstance(key, str)]
        return list(dict.fromkeys(keys))

    def has(self, name: str) -> bool:
        """Whether the property *name* is set."""
        return bool(int.from_bytes(self.properties[:2], "big") & FLAG[name])

    def get(self, name: str) -> Any:
        """Return a property, a short string as str; None if it is not set."""
        if not self.has(name):
            return None
        start, end = self.property_offsets()[name]
        part = self.properties[start:end]
        kind = dict(PROPERTIES)[name]
        if kind == "short":
            return codec.read_short_text(part, 0)[0]
        return codec.read_table(part, 0)[0] if kind == "table" else int.from_bytes(part, "big")

    @property
    def headers(self) -> dict[str, Any]:
        """The headers table, decoded once; empty if there is none."""
        if self._headers is None:
            self._headers = self.get("headers") or {}
        return self._headers

    def property_offsets(self) -> dict[str, tuple[int, int]]:
        """Return where each property that is set starts and ends.

        Raises:
            Malformed: the bytes are not the properties of a message.
        """
        flags = int.from_bytes(codec.read_bytes(self.properties, 0, 2), "big")
        if flags & 3:
            raise codec.Malformed("there is no property for the last flags")
        offsets, offset = {}, 2
        for name, kind in PROPERTIES:
            if flags & FLAG[name]:
                start = offset
                if kind == "short":
                    offset += 1 + codec.read_bytes(self.properties, offset, 1)[0]
                elif kind == "table":
                    offset = codec.read_long_bytes(self.properties, offset)[1]
                else:
                    offset += 1 if kind == "octet" else 8
                offsets[name] = start, offset
        if offset != len(self.properties):
            raise codec.Malformed("the properties are longer or shorter than their flags say")
        return offsets

    def with_reply_to(self, name: str) -> Message:
        """Return a copy of this message, which has the property ``reply_to``, with another one."""
        start, end = self.property_offsets()["reply_to"]
        properties = self.properties[:start] + codec.short_text(name) + self.properties[end:]
        return Message(self.exchange, self.routing_key, properties, self.body, self.history)

    def replace(
        self,
        *,
        headers: dict[str, Any],
        drop_expiration: bool = False,
        history: DeathHistory | None = None,
        **address: str,
    ) -> Message:
        """Return a copy with some headers replaced; the value None removes a header.

        *address* may hold another ``exchange`` and ``routing_key``. Headers that are not named keep
        their bytes.
        """
        parts = {name: self.properties[a:b] for name, (a, b) in self.property_offsets().items()}
        if drop_expiration:
            parts.pop("expiration", None)
        kept = codec.encoded_fields(parts["headers"][4:]) if "headers" in parts else {}
        merged = {name: value for name, value in (kept | headers).items() if value is not None}
        parts["headers"] = codec.table(merged)
        flags = sum(FLAG[name] for name in parts)
        encoded = b"".join(parts[name] for name, _ in PROPERTIES if name in parts)
        return Message(
            address.get("exchange", self.exchange),
            address.get("routing_key", self.routing_key),
            flags.to_bytes(2, "big") + encoded,
            self.body,
            history or self.history,
        )


class QueuedMessage:
    """A message in one queue, with what that queue knows of it."""

    __slots__ = (
        "acquired_count", "delivery_count", "expiry", "is_redelivered", "message", "number",
        "priority",
    )  # fmt: skip

    def __init__(self, message: Message, expiry: float | None, priority: int) -> None:
        self.message = message
        self.expiry = expiry  # by the server's clock
        self.priority = priority
        self.number = next(_numbers)  # the order in which messages were published to queues
        history = message.history
        self.acquired_count = history.acquired_count if history else 0  # deliveries without an ack
        self.delivery_count = history.delivery_count if history else 0  # those that count as failed
        self.is_redelivered = False

    def __lt__(self, other: QueuedMessage) -> bool:
        return self.number < other.number

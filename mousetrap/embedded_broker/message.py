"""A message as the embedded broker keeps it: its properties stay the bytes that came.

Only what routing, expiry and dead-lettering need is decoded, and only when it is needed. A property
is found by walking the flags (AMQP 0-9-1, 4.2.6.1).
"""

from __future__ import annotations

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
OVERHEAD = 250  # bytes that a waiting message takes beside its content; a guess


@dataclass(frozen=True)
class Past:
    """What the broker itself remembers of a dead letter; what a client tells is not believed."""

    deaths: tuple[dict[str, Any], ...]  # as in x-death, newest first
    first: dict[str, str]  # of the first death: reason, queue, exchange
    acquired: int = 0  # how often it was delivered, if that was the end of it
    failed: int = 0
    is_rerouted: bool = False  # to a routing key of the queue's: CC counts no more


class Message:
    """What was published: where to, the encoded properties and the body. Never changed."""

    __slots__ = ("_headers", "body", "exchange", "past", "properties", "routing_key")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        past: Past | None = None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties  # flags and values, as in a content header
        self.body = body
        self.past = past
        self._headers: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return len(self.body) + len(self.properties) + OVERHEAD

    @property
    def routing_keys(self) -> list[str]:
        """The routing key and those in the headers CC and BCC, each once."""
        keys = [self.routing_key]
        if b"CC" in self.properties and not (self.past and self.past.is_rerouted):
            for name in ("CC", "BCC"):
                keys += [key for key in self.headers.get(name, []) if isinstance(key, str)]
        return list(dict.fromkeys(keys))

    def has(self, name: str) -> bool:
        """Whether a property was set."""
        return bool(int.from_bytes(self.properties[:2], "big") & FLAG[name])

    def get(self, name: str) -> Any:
        """Return a property, short strings as str; None if it was not set."""
        if not self.has(name):
            return None
        start, end = self.places()[name]
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

    def places(self) -> dict[str, tuple[int, int]]:
        """Where each property that is set starts and ends.

        Raises:
            Malformed: these are no properties of a message.
        """
        flags = int.from_bytes(codec.take(self.properties, 0, 2), "big")
        if flags & 3:
            raise codec.Malformed("there is no property for the last flags")
        found, offset = {}, 2
        for name, kind in PROPERTIES:
            if flags & FLAG[name]:
                start = offset
                if kind == "short":
                    offset += 1 + codec.take(self.properties, offset, 1)[0]
                elif kind == "table":
                    offset = codec.read_long_bytes(self.properties, offset)[1]
                else:
                    offset += 1 if kind == "octet" else 8
                found[name] = start, offset
        if offset != len(self.properties):
            raise codec.Malformed("the properties are longer or shorter than their flags say")
        return found

    def but(
        self,
        *,
        headers: dict[str, Any],
        drop_expiration: bool = False,
        past: Past | None = None,
        **place: str,
    ) -> Message:
        """Return the message with other headers (None removes one), and another *place* if given.

        Headers that are not named stay as they came.
        """
        parts = {name: self.properties[a:b] for name, (a, b) in self.places().items()}
        if drop_expiration:
            parts.pop("expiration", None)
        kept = codec.entries(parts["headers"][4:]) if "headers" in parts else {}
        merged = {name: value for name, value in (kept | headers).items() if value is not None}
        parts["headers"] = codec.table(merged)
        flags = sum(FLAG[name] for name in parts)
        encoded = b"".join(parts[name] for name, _ in PROPERTIES if name in parts)
        return Message(
            place.get("exchange", self.exchange),
            place.get("routing_key", self.routing_key),
            flags.to_bytes(2, "big") + encoded,
            self.body,
            past or self.past,
        )

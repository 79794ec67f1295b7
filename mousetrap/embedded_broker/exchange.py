"""Exchanges: which of their bindings a message matches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mousetrap.embedded_broker.message import Message

TYPES = ("direct", "fanout", "topic", "headers")
PREDECLARED = {
    "": "direct", "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic",
    "amq.headers": "headers", "amq.match": "headers",
}  # fmt: skip


@dataclass(frozen=True)
class Binding:
    """A binding from an exchange to a queue or to another exchange, compared by value."""

    source: str
    kind: str  # of the destination: "queue" or "exchange"
    destination: str
    routing_key: str
    arguments: tuple[tuple[str, Any], ...] = field(default=(), hash=False)  # sorted


@dataclass
class Exchange:
    """An exchange and the bindings from it."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    bindings: dict[Binding, None] = field(default_factory=dict)  # a set that keeps its order

    def matches(self, message: Message, routing_key: str) -> list[Binding]:
        """Return the bindings that *message* matches with *routing_key*."""
        if self.type == "fanout":
            return list(self.bindings)
        if self.type == "direct":
            return [each for each in self.bindings if each.routing_key == routing_key]
        if self.type == "topic":
            words = tuple(routing_key.split(".")) if routing_key else ()  # as in RabbitMQ: no words
            return [each for each in self.bindings if topic_matches(each.routing_key, words)]
        headers = message.headers
        return [each for each in self.bindings if headers_match(dict(each.arguments), headers)]


@lru_cache(maxsize=10_000)
def topic_matches(pattern: str, words: tuple[str, ...]) -> bool:
    """Whether the words match *pattern*: ``*`` is one word, ``#`` is any number of words.

    It takes time proportional to the product of both lengths, so that a pattern with many ``#``
    cannot stop the broker.
    """
    reached = {0}  # how many words the pattern so far can match
    for part in pattern.split(".") if pattern else ():
        if part == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {n + 1 for n in reached if n < len(words) and part in ("*", words[n])}
        if not reached:
            return False
    return len(words) in reached


def headers_match(wanted: dict[str, Any], headers: dict[str, Any]) -> bool:
    """Whether *headers* match the binding's arguments; ``x-match`` says whether all or any must.

    An argument with the value None only requires that the header exists. Without ``-with-x``,
    arguments that start with ``x-`` are ignored.
    """
    mode = wanted.get("x-match", "all")
    conditions = {
        key: value
        for key, value in wanted.items()
        if key != "x-match" and (mode.endswith("-with-x") or not key.startswith("x-"))
    }
    matches = (
        key in headers and (value is None or _is_same_value(headers[key], value))
        for key, value in conditions.items()
    )
    return any(matches) if mode.startswith("any") else all(matches)


def _is_same_value(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other

"""Exchanges: which bindings a message matches."""

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
    """From an exchange to a queue or another exchange; equal ones are one."""

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
        """Return the bindings that *message* goes along."""
        if self.type == "fanout":
            return list(self.bindings)
        if self.type == "direct":
            return [each for each in self.bindings if each.routing_key == routing_key]
        if self.type == "topic":
            words = tuple(routing_key.split(".")) if routing_key else ()  # as RabbitMQ: none
            return [each for each in self.bindings if topic_matches(each.routing_key, words)]
        headers = message.headers
        return [each for each in self.bindings if headers_match(dict(each.arguments), headers)]


@lru_cache(maxsize=10_000)
def topic_matches(pattern: str, words: tuple[str, ...]) -> bool:
    """Whether *pattern* fits: ``*`` is one word, ``#`` any number of them.

    In time of the product of both lengths: a pattern of many ``#`` must not stop the broker.
    """
    reached = {0}  # how many words the pattern so far can have used up
    for part in pattern.split(".") if pattern else ():
        if part == "#":
            reached = set(range(min(reached), len(words) + 1))
        else:
            reached = {n + 1 for n in reached if n < len(words) and part in ("*", words[n])}
        if not reached:
            return False
    return len(words) in reached


def headers_match(wanted: dict[str, Any], headers: dict[str, Any]) -> bool:
    """Whether *headers* fit the binding's arguments; ``x-match`` says all or any.

    A wanted value of None asks only that the header is there. Without ``-with-x``, arguments that
    start with ``x-`` do not count.
    """
    mode = wanted.get("x-match", "all")
    asked = {
        key: value
        for key, value in wanted.items()
        if key != "x-match" and (mode.endswith("-with-x") or not key.startswith("x-"))
    }
    fits = (
        key in headers and (value is None or _same(headers[key], value))
        for key, value in asked.items()
    )
    return any(fits) if mode.startswith("any") else all(fits)


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other

"""Exchanges as values, and which bindings a routing key matches.

``orders = Exchange("orders", "topic")`` names an exchange; ``orders["order.paid"]`` is a target of
messages, or, with a pattern as its key, a binding of a queue. Nothing here talks to a broker.
Prototyped in ``notebooks/09_shapes.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mousetrap.errors import SettingsError
from mousetrap.model.names import name_problem

EXCHANGE_TYPES = ("direct", "topic", "fanout")
MAX_KEY_BYTES = 255  # AMQP sends a routing key as a short string
UNROUTED = ".unrouted"  # ends the name of a run's queue for what an exchange has no binding for
Key: TypeAlias = str | Callable[[Any], str]
"""A routing key: a text, or a function that returns it for the value that is sent."""


@dataclass(frozen=True)
class Exchange:
    """An exchange, which passes a copy of each message to every queue that is bound by its key.

    *type* is ``direct`` (the key of the binding is the message's), ``topic`` (it is a pattern of
    words between dots: ``*`` is one word, ``#`` any number of them) or ``fanout`` (every binding
    matches, the key is not looked at). An exchange that does not exist is declared durable.

    Raises:
        SettingsError: the exchange cannot have that name or type.
    """

    name: str
    type: str = "topic"

    def __post_init__(self) -> None:
        if problem := name_problem(self.name and self.name + UNROUTED):
            raise SettingsError(f"exchange name {self.name[:60]!r} {problem}; use a short word")
        if self.type not in EXCHANGE_TYPES:
            raise SettingsError(
                f"exchange {self.name!r} has the type {self.type!r}: use one of "
                f"{', '.join(EXCHANGE_TYPES)}"
            )

    def __getitem__(self, key: Key) -> RoutingKey:
        """Return this exchange with *key*: a target of messages, or a binding of a queue.

        Raises:
            SettingsError: *key* is neither a text of at most 255 bytes nor a function.
        """
        return RoutingKey(self, key)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class RoutingKey:
    """An exchange with a routing key, as ``exchange[key]`` makes it."""

    exchange: Exchange
    key: Key

    def __post_init__(self) -> None:
        if callable(self.key):
            return
        if problem := key_problem(self.key):
            raise SettingsError(f"the routing key for exchange {self.exchange.name!r} {problem}")

    @property
    def is_fixed(self) -> bool:
        """Whether the key is a text, and not a function of the value."""
        return isinstance(self.key, str)

    def of(self, value: Any) -> RoutingKey:
        """Return this exchange with the key for *value*.

        Raises:
            SettingsError: the function of the key returned no text of at most 255 bytes.
            Exception: whatever that function raises.
        """
        if isinstance(self.key, str):
            return self
        key = self.key(value)
        if problem := key_problem(key):
            name = getattr(self.key, "__name__", type(self.key).__name__)
            raise SettingsError(
                f"the routing key that {name} returned for exchange {self.exchange.name!r} "
                f"{problem}"
            )
        return RoutingKey(self.exchange, key)

    def matches(self, key: str) -> bool:
        """Return whether a message with the routing key *key* matches, if this is a binding."""
        if self.exchange.type == "fanout":
            return True
        if self.exchange.type == "direct":
            return self.key == key
        return isinstance(self.key, str) and _topic_matches(self.key, key)

    def __str__(self) -> str:
        key = self.key if isinstance(self.key, str) else f"{_function_name(self.key)}(...)"
        return f"{self.exchange.name}[{key}]"


if TYPE_CHECKING:

    class Bindings:
        """The bindings of a `Queue`, for type checkers: what it takes, and what it then has."""

        def __get__(self, queue: object, owner: object = None) -> tuple[RoutingKey, ...]: ...

        def __set__(
            self, queue: object, given: Sequence[RoutingKey | Exchange] | RoutingKey | Exchange
        ) -> None: ...

else:
    Bindings = tuple


def key_problem(key: Any) -> str | None:
    """Return what is wrong with a routing key; None if nothing is."""
    if not isinstance(key, str):
        return f"is a {type(key).__name__}: give a text, or a function that returns one"
    try:
        return None if len(key.encode()) <= MAX_KEY_BYTES else "is longer than 255 bytes"
    except UnicodeEncodeError:
        return "is not valid UTF-8"


def _topic_matches(pattern: str, key: str) -> bool:
    # imported here: only a topic exchange needs it, and it brings the whole broker
    from mousetrap.embedded_broker.exchange import topic_matches

    return topic_matches(pattern, tuple(key.split(".")) if key else ())


def _function_name(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "key" if name == "<lambda>" else str(name)

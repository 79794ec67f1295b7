"""The optional arguments of a queue declaration: which exist, and which values are valid.

The rules are RabbitMQ's ``rabbit_amqqueue:declare_args`` and the lists of each queue type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mousetrap.embedded_broker.amqp_error import AmqpError

OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
# a second declaration must have the same values: ``rabbit_amqqueue:assert_args_equivalence``
CHECKED_FOR_EQUIVALENCE = (
    "x-expires", "x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key",
    "x-max-length", "x-max-length-bytes", "x-max-priority", "x-overflow", "x-queue-mode",
    "x-single-active-consumer", "x-queue-type", "x-delivery-limit",
)  # fmt: skip
# arguments that RabbitMQ knows and that a type of queue does not have: RabbitMQ rejects them
NOT_ALLOWED = {
    "quorum": ("x-max-priority", "x-queue-mode", "x-queue-version", "x-max-age",
               "x-stream-max-segment-size-bytes"),
    "classic": ("x-delivery-limit", "x-quorum-initial-group-size", "x-dead-letter-strategy",
                "x-max-age", "x-max-in-memory-length", "x-max-in-memory-bytes",
                "x-stream-max-segment-size-bytes", "x-initial-cluster-size", "x-consumer-timeout"),
}  # fmt: skip
MAX_MILLISECONDS = 315_360_000_000  # ten years, for TTLs and expiries


@dataclass(frozen=True)
class QueueArguments:
    """The checked arguments of a queue; times are in seconds."""

    type: str = "classic"
    expires: float | None = None
    ttl: float | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = "drop-head"
    max_priority: int = 0
    single_active: bool = False
    delivery_limit: int | None = None
    keeps_dead_letters: bool = False  # until their targets have accepted them


class _Reader:
    """Reads the arguments of one declaration, one by one, and checks their types and values."""

    def __init__(self, given: dict[str, Any], queue: str, vhost: str) -> None:
        self._given = given
        self._queue = queue
        self._vhost = vhost

    def invalid(self, name: str, why: str) -> AmqpError:
        where = f"queue '{self._queue}' in vhost '{self._vhost}'"
        return AmqpError(406, f"invalid arg '{name}' for {where}: {why}")

    def number(self, name: str, minimum: int, maximum: int | None = None) -> int | None:
        if name not in self._given:
            return None
        value = self._given[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.invalid(name, "it is not a whole number")
        if value < minimum or (maximum is not None and value > maximum):
            raise self.invalid(name, f"{{value_out_of_range,{value}}}")
        return value

    def seconds(self, name: str, minimum: int) -> float | None:
        """Read a number of milliseconds."""
        value = self.number(name, minimum, MAX_MILLISECONDS)
        return None if value is None else value / 1000

    def text(self, name: str, allowed: tuple[str, ...] = ()) -> str | None:
        if name not in self._given:
            return None
        value: str = self._given[name]
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise self.invalid(name, f"{value!r} is not one of its values")
        return value

    def boolean(self, name: str) -> bool:
        value = self._given.get(name, False)
        if not isinstance(value, bool):
            raise self.invalid(name, "it is not a boolean")
        return value


def parse(given: dict[str, Any], queue: str, vhost: str) -> QueueArguments:
    """Check and return the arguments of the declaration of *queue*.

    Raises:
        AmqpError: 406, an argument is invalid; 540, the type of queue is not implemented here.
    """
    reader = _Reader(given, queue, vhost)
    kind = reader.text("x-queue-type") or "classic"
    if kind == "stream":
        raise AmqpError(540, "the embedded broker has no streams: use RabbitMQ for them")
    if kind not in ("classic", "quorum"):
        raise AmqpError(406, f"invalid arg 'x-queue-type' for queue '{queue}': unknown {kind!r}")
    exchange = reader.text("x-dead-letter-exchange")
    routing_key = reader.text("x-dead-letter-routing-key")
    if routing_key is not None and exchange is None:
        raise reader.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")
    expires, ttl = reader.seconds("x-expires", 1), reader.seconds("x-message-ttl", 0)
    single_active = reader.boolean("x-single-active-consumer")
    for name in NOT_ALLOWED[kind]:
        if name in given:
            raise reader.invalid(name, f"a {kind} queue does not have it")
    overflow = reader.text("x-overflow", OVERFLOWS) or "drop-head"
    if (kind, overflow) == ("quorum", "reject-publish-dlx"):
        overflow = "drop-head"  # as in RabbitMQ, which logs a warning
    strategy = reader.text("x-dead-letter-strategy", ("at-most-once", "at-least-once"))
    limit = given.get("x-delivery-limit")
    arguments = QueueArguments(
        type=kind,
        expires=expires,
        ttl=ttl,
        dead_letter_exchange=exchange,
        dead_letter_routing_key=routing_key,
        max_length=reader.number("x-max-length", 0),
        max_bytes=reader.number("x-max-length-bytes", 0),
        overflow=overflow,
        max_priority=reader.number("x-max-priority", 0, 255) or 0,
        single_active=single_active,
        delivery_limit=limit if type(limit) is int else None,  # other types are ignored
        # RabbitMQ falls back to at-most-once without the right x-overflow
        keeps_dead_letters=strategy == "at-least-once" and overflow == "reject-publish",
    )
    reader.text("x-queue-leader-locator", ("client-local", "balanced"))
    if given.get("x-queue-version", 2) not in (1, 2):
        raise reader.invalid("x-queue-version", "unsupported queue version")
    return arguments

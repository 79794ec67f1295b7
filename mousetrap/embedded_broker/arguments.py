"""The optional arguments of a queue declaration: which exist, and which values are valid.

The rules are RabbitMQ's ``rabbit_amqqueue:declare_args`` and the lists of each queue type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mousetrap.embedded_broker.amqp_error import AmqpError

OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
# a second declaration must repeat these: ``rabbit_amqqueue:assert_args_equivalence``
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
                "x-stream-max-segment-size-bytes", "x-initial-cluster-size"),
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


def _invalid(name: str, queue: str, vhost: str, why: str) -> AmqpError:
    return AmqpError(406, f"invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {why}")


def parse(given: dict[str, Any], queue: str, vhost: str) -> QueueArguments:
    """Check and return the arguments of the declaration of *queue*.

    Raises:
        AmqpError: 406, an argument is invalid; 540, the type of queue is not implemented here.
    """

    def number(name: str, minimum: int, maximum: int | None = None) -> int | None:
        if name not in given:
            return None
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise _invalid(name, queue, vhost, "it is not a whole number")
        if value < minimum or (maximum is not None and value > maximum):
            raise _invalid(name, queue, vhost, f"{{value_out_of_range,{value}}}")
        return value

    def text(name: str, allowed: tuple[str, ...] = ()) -> str | None:
        if name not in given:
            return None
        value: str = given[name]
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise _invalid(name, queue, vhost, f"{value!r} is not one of its values")
        return value

    kind = text("x-queue-type") or "classic"
    if kind == "stream":
        raise AmqpError(540, "the embedded broker has no streams: use RabbitMQ for them")
    if kind not in ("classic", "quorum"):
        raise AmqpError(406, f"invalid arg 'x-queue-type' for queue '{queue}': unknown {kind!r}")
    exchange = text("x-dead-letter-exchange")
    routing_key = text("x-dead-letter-routing-key")
    if routing_key is not None and exchange is None:
        why = "routing_key_but_no_dlx_defined"
        raise _invalid("x-dead-letter-routing-key", queue, vhost, why)
    expires, ttl = (
        number("x-expires", 1, MAX_MILLISECONDS),
        number("x-message-ttl", 0, MAX_MILLISECONDS),
    )
    is_single = given.get("x-single-active-consumer", False)
    if not isinstance(is_single, bool):
        raise _invalid("x-single-active-consumer", queue, vhost, "it is not a boolean")
    for name in NOT_ALLOWED[kind]:
        if name in given:
            raise _invalid(name, queue, vhost, f"a {kind} queue does not have it")
    overflow = text("x-overflow", OVERFLOWS) or "drop-head"
    if (kind, overflow) == ("quorum", "reject-publish-dlx"):
        overflow = "drop-head"  # as in RabbitMQ, which logs a warning
    limit = given.get("x-delivery-limit")
    found = QueueArguments(
        type=kind,
        expires=None if expires is None else expires / 1000,
        ttl=None if ttl is None else ttl / 1000,
        dead_letter_exchange=exchange,
        dead_letter_routing_key=routing_key,
        max_length=number("x-max-length", 0),
        max_bytes=number("x-max-length-bytes", 0),
        overflow=overflow,
        max_priority=number("x-max-priority", 0, 255) or 0,
        single_active=is_single,
        delivery_limit=limit if type(limit) is int else None,  # a value of another type is ignored
    )
    text("x-queue-leader-locator", ("client-local", "balanced"))
    text("x-dead-letter-strategy", ("at-most-once", "at-least-once"))
    if given.get("x-queue-version", 2) not in (1, 2):
        raise _invalid("x-queue-version", queue, vhost, "unsupported queue version")
    return found

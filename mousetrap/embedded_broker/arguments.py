"""The optional arguments of a queue or a consumer: which exist, and which values are valid.

The rules are RabbitMQ 4.3's: ``rabbit_amqqueue:declare_args`` for the values, and the capabilities
of each queue type for the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mousetrap.embedded_broker.amqp_error import AmqpError

Check = Callable[[Any], str]  # what is wrong with a value; "": nothing

OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
MAX_MILLISECONDS = 315_360_000_000  # ten years, for TTLs and expiries


def _anything(_: Any) -> str:
    return ""


def _number(minimum: int, maximum: int | None = None) -> Check:
    def check(value: Any) -> str:
        if type(value) is not int:  # a bool is none
            return "it is not a whole number"
        is_inside = value >= minimum and (maximum is None or value <= maximum)
        return "" if is_inside else f"{{value_out_of_range,{value}}}"

    return check


def _text(*allowed: str) -> Check:
    def check(value: Any) -> str:
        is_valid = isinstance(value, str) and (not allowed or value in allowed)
        return "" if is_valid else f"{value!r} is not one of its values"

    return check


def _boolean(value: Any) -> str:
    return "" if isinstance(value, bool) else "it is not a boolean"


def _version(value: Any) -> str:
    return "" if type(value) is int and value == 2 else "unsupported queue version"


_BOTH: dict[str, Check] = {
    "x-queue-type": _text(),
    "x-expires": _number(1, MAX_MILLISECONDS),
    "x-message-ttl": _number(0, MAX_MILLISECONDS),
    "x-dead-letter-exchange": _text(),
    "x-dead-letter-routing-key": _text(),
    "x-max-length": _number(0),
    "x-max-length-bytes": _number(0),
    "x-overflow": _text(*OVERFLOWS),
    "x-single-active-consumer": _boolean,
    "x-queue-leader-locator": _text("client-local", "balanced", "random", "min-masters"),
}
# The arguments of each type of queue, which are also those that a second declaration must repeat:
# ``rabbit_amqqueue:assert_args_equivalence``.
ARGUMENTS: Mapping[str, Mapping[str, Check]] = MappingProxyType({
    "classic": _BOTH | {
        "x-max-priority": _number(0, 255),
        "x-queue-mode": _anything,  # 4.3 has no modes
        "x-queue-version": _version,
        "x-queue-master-locator": _anything,
    },
    "quorum": _BOTH | {
        "x-dead-letter-strategy": _text("at-most-once", "at-least-once"),
        "x-max-in-memory-length": _number(0),  # without effect since 4.0, like the next one
        "x-max-in-memory-bytes": _number(0),
        "x-quorum-initial-group-size": _number(1),
        "x-delivery-limit": _anything,  # what is no number is ignored
        "x-consumer-timeout": _number(0),
        "x-consumer-disconnected-timeout": _number(0),  # about other nodes, which there are not
        "x-delayed-retry-type": _anything,
        "x-delayed-retry-min": _anything,
        "x-delayed-retry-max": _anything,
    },
})  # fmt: skip
_OF_STREAMS = ("x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes",
               "x-initial-cluster-size")  # fmt: skip
# Others are ignored; an argument that another type of queue has is refused.
_KNOWN = frozenset(_OF_STREAMS).union(*ARGUMENTS.values())
_NOT_GIVEN = object()
_NOT_HERE = {  # valid in RabbitMQ, with an effect that the embedded broker does not have
    "x-consumer-timeout": "consumer time-outs",
    "x-delayed-retry-type": "delayed retries",
}
CONSUMER_ARGUMENTS: Mapping[str, Mapping[str, Check]] = MappingProxyType({
    "classic": {"x-priority": _number(-(2**63))},
    "quorum": {"x-priority": _number(-(2**63)), "x-consumer-timeout": _number(0)},
})  # fmt: skip
_KNOWN_OF_CONSUMERS = ("x-priority", "x-consumer-timeout", "x-stream-offset", "x-stream-filter",
                       "x-stream-match-unfiltered")  # fmt: skip


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


def parse(given: Mapping[str, Any], queue: str, vhost: str) -> QueueArguments:
    """Check and return the arguments of the declaration of *queue*.

    Raises:
        AmqpError: 406, an argument is invalid; 540, the type of queue, or what an argument asks
            for, is not implemented here; 541, RabbitMQ does not permit the argument any more.
    """
    where = f"queue '{queue}' in vhost '{vhost}'"
    kind = given.get("x-queue-type", "") or "classic"
    if kind == "stream":
        raise AmqpError(540, "the embedded broker has no streams: use RabbitMQ for them")
    if kind not in ("classic", "quorum"):
        raise AmqpError(406, f"invalid arg 'x-queue-type' for {where}: unknown {kind!r}")
    _check(given, ARGUMENTS[kind], _KNOWN, f"{where} of queue type {kind}")
    if "x-dead-letter-routing-key" in given and "x-dead-letter-exchange" not in given:
        why = "routing_key_but_no_dlx_defined"
        raise AmqpError(406, f"invalid arg 'x-dead-letter-routing-key' for {where}: {why}")
    if "x-queue-master-locator" in given:
        raise AmqpError(541, "Feature `queue_master_locator` is deprecated.")
    expires, ttl = given.get("x-expires"), given.get("x-message-ttl")
    overflow = given.get("x-overflow", "drop-head")
    if (kind, overflow) == ("quorum", "reject-publish-dlx"):
        overflow = "drop-head"  # as in RabbitMQ, which logs a warning
    limit = given.get("x-delivery-limit")
    strategy = given.get("x-dead-letter-strategy")
    return QueueArguments(
        type=kind,
        expires=None if expires is None else expires / 1000,
        ttl=None if ttl is None else ttl / 1000,
        dead_letter_exchange=given.get("x-dead-letter-exchange"),
        dead_letter_routing_key=given.get("x-dead-letter-routing-key"),
        max_length=given.get("x-max-length"),
        max_bytes=given.get("x-max-length-bytes"),
        overflow=overflow,
        max_priority=given.get("x-max-priority", 0),
        single_active=given.get("x-single-active-consumer", False),
        delivery_limit=limit if type(limit) is int else None,
        # RabbitMQ falls back to at-most-once without the right x-overflow
        keeps_dead_letters=strategy == "at-least-once" and overflow == "reject-publish",
    )


def differences(
    wanted: Mapping[str, Any], current: Mapping[str, Any], kind: str
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each argument in which two declarations of a queue of type *kind* differ.

    It comes with its value in *wanted* and in *current*; None: it is not given.
    """
    for name in ARGUMENTS[kind]:
        default = "classic" if name == "x-queue-type" else _NOT_GIVEN
        first, second = wanted.get(name, default), current.get(name, default)
        # 1 and True are equal in Python, and not in RabbitMQ
        if type(first) is not type(second) or first != second:
            yield (
                name,
                None if first is _NOT_GIVEN else first,
                None if second is _NOT_GIVEN else second,
            )


def priority_of_consumer(given: Mapping[str, Any], kind: str, queue: str, vhost: str) -> int:
    """Check the arguments of a consumer of *queue*, of the type *kind*, and return its priority.

    Raises:
        AmqpError: as `parse` does.
    """
    where = f"queue '{queue}' in vhost '{vhost}' of queue type {kind}"
    _check(given, CONSUMER_ARGUMENTS[kind], _KNOWN_OF_CONSUMERS, where)
    priority: int = given.get("x-priority", 0)
    return priority


def _check(
    given: Mapping[str, Any], checks: Mapping[str, Check], known: Iterable[str], where: str
) -> None:
    for name in known:
        if name not in given:
            continue
        check = checks.get(name)
        why = "its type does not have it" if check is None else check(given[name])
        if why:
            raise AmqpError(406, f"invalid arg '{name}' for {where}: {why}")
    for name, what in _NOT_HERE.items():
        if name in given:
            raise AmqpError(540, f"the embedded broker has no {what} ({name}): use RabbitMQ")

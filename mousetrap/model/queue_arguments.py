"""The arguments that RabbitMQ knows for a queue, and which of them make it drop messages.

They are checked when a `mousetrap.model.topology.Queue` is made, because the broker ignores
arguments that it does not know (``x-max-prio``), and some that it knows make it drop messages. The
rules are those of RabbitMQ 3.10 to 4.3. Nothing here talks to a broker. Prototyped in
``notebooks/10_their_queues.ipynb``.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from mousetrap.errors import SettingsError

Check: TypeAlias = Callable[[Any], str]  # what a value must be; "": it is right

CLASSIC, QUORUM = ("classic",), ("quorum",)
BOTH = CLASSIC + QUORUM
MIN_DELIVERY_LIMIT = 20  # RabbitMQ's own; a worker replaces a message after half as many deliveries
DEAD_LETTER_EXCHANGE, DEAD_LETTER_KEY = "x-dead-letter-exchange", "x-dead-letter-routing-key"


class _Argument(NamedTuple):
    check: Check
    types: tuple[str, ...] = BOTH  # of the queues that can have it


def _number(low: int, high: int | None = None) -> Check:
    def check(value: Any) -> str:
        is_number = type(value) is int  # a bool is none
        if is_number and low <= value and (high is None or value <= high):
            return ""
        return f"a whole number in {low}..{high}" if high else f"a whole number from {low} on"

    return check


def _one_of(*allowed: str) -> Check:
    choice = ", ".join(map(repr, allowed))
    return lambda value: "" if isinstance(value, str) and value in allowed else f"one of {choice}"


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "a text"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "True or False"


ARGUMENTS: Mapping[str, _Argument] = {
    "x-queue-type": _Argument(_one_of("classic", "quorum")),
    "x-max-priority": _Argument(_number(1, 255), CLASSIC),
    "x-single-active-consumer": _Argument(_flag),
    "x-max-length": _Argument(_number(1)),
    "x-max-length-bytes": _Argument(_number(1)),
    "x-overflow": _Argument(_one_of("drop-head", "reject-publish", "reject-publish-dlx")),
    "x-message-ttl": _Argument(_number(0)),
    "x-expires": _Argument(_number(1)),
    DEAD_LETTER_EXCHANGE: _Argument(_text),
    DEAD_LETTER_KEY: _Argument(_text),
    "x-dead-letter-strategy": _Argument(_one_of("at-most-once", "at-least-once"), QUORUM),
    "x-queue-mode": _Argument(_one_of("default", "lazy"), CLASSIC),
    "x-queue-version": _Argument(_number(1, 2), CLASSIC),
    "x-queue-leader-locator": _Argument(
        _one_of("client-local", "balanced", "least-leaders", "random")
    ),
    "x-delivery-limit": _Argument(_number(-1), QUORUM),
    "x-consumer-timeout": _Argument(_number(1)),
    "x-consumer-disconnected-timeout": _Argument(_number(1), QUORUM),
    "x-quorum-initial-group-size": _Argument(_number(1), QUORUM),
    "x-quorum-target-group-size": _Argument(_number(1), QUORUM),
    "x-max-in-memory-length": _Argument(_number(0), QUORUM),
    "x-max-in-memory-bytes": _Argument(_number(0), QUORUM),
    "x-delayed-retry-type": _Argument(_text, QUORUM),
    "x-delayed-retry-min": _Argument(_number(0), QUORUM),
    "x-delayed-retry-max": _Argument(_number(0), QUORUM),
}
"""The arguments that a `Queue` can have, with what each value must be."""


def check_arguments(queue: str, given: Any, *, is_declared: bool) -> dict[str, Any]:
    """Return a copy of the arguments *given* to *queue* if they make sense.

    A queue that drops messages is refused if it *is_declared*; one that exists already is used as
    it is, with a warning.

    Raises:
        SettingsError: an argument is unknown, has a wrong value, or belongs to another queue type;
            or two do not fit together; or the queue would drop messages without a word.
    """
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"the arguments of queue {queue!r} are {given!r}: give a dict, like "
            f"{{'x-max-priority': 10}}"
        )
    arguments = dict(given)
    for name, value in arguments.items():
        if name not in ARGUMENTS:
            raise SettingsError(_unknown(queue, name))
        if value == "stream" and name == "x-queue-type":
            raise SettingsError(
                f"queue {queue!r} cannot be a stream, which keeps its messages when they are "
                f"read: use 'classic' or 'quorum'"
            )
        if wanted := ARGUMENTS[name].check(value):
            raise SettingsError(f"{name} of queue {queue!r} is {value!r}: it must be {wanted}")
    if (kind := arguments.get("x-queue-type")) is not None:
        check_queue_type(queue, arguments, kind)
    if problem := _contradiction(queue, arguments):
        raise SettingsError(f"queue {queue!r}: {problem}")
    if dropped := _dropped(arguments):
        text = f"queue {queue!r} drops messages without a word: {dropped}"
        if is_declared:
            raise SettingsError(f"{text}. If it exists already and must be so: declare=False")
        warnings.warn(f"{text} (it has declare=False, so it is used as it is)", stacklevel=4)
    return arguments


def check_queue_type(queue: str, arguments: Mapping[str, Any], kind: str) -> None:
    """Raise a `SettingsError` if a queue of the type *kind* cannot have *arguments*."""
    for name in arguments:
        if kind not in ARGUMENTS[name].types:
            [other] = ARGUMENTS[name].types
            raise SettingsError(
                f"{name} of queue {queue!r}: a {kind} queue cannot have it (406); leave it out, or "
                f"give 'x-queue-type': {other!r}"
            )
    if kind == "quorum" and arguments.get("x-overflow") == "reject-publish-dlx":
        raise SettingsError(
            f"x-overflow of queue {queue!r}: a quorum queue does not know 'reject-publish-dlx' and "
            f"drops messages instead; give 'reject-publish'"
        )


def _unknown(queue: str, name: object) -> str:
    text = str(name)
    wanted = text if text.startswith("x-") else f"x-{text}"
    near = difflib.get_close_matches(wanted.replace("_", "-"), ARGUMENTS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"queue {queue!r} has the argument {text!r}, which is unknown: {hint}Known are "
        f"{', '.join(ARGUMENTS)}. For an argument of a plugin, declare the queue elsewhere and "
        f"use declare=False"
    )


def _contradiction(queue: str, given: Mapping[str, Any]) -> str:
    """Return which of the arguments *given* do not fit together; "" if all do."""
    if DEAD_LETTER_KEY in given and DEAD_LETTER_EXCHANGE not in given:
        return f"{DEAD_LETTER_KEY} needs {DEAD_LETTER_EXCHANGE}"
    if given.get(DEAD_LETTER_EXCHANGE) == "" and given.get(DEAD_LETTER_KEY, queue) in ("", queue):
        return (
            f"its dead letters would come back to it, and RabbitMQ drops those that go round in a "
            f"circle: give {DEAD_LETTER_KEY}, the name of another queue"
        )
    if given.get("x-dead-letter-strategy") == "at-least-once" and not (
        given.get("x-overflow") == "reject-publish" and DEAD_LETTER_EXCHANGE in given
    ):
        return (
            f"x-dead-letter-strategy 'at-least-once' needs {DEAD_LETTER_EXCHANGE} and x-overflow "
            f"'reject-publish'; without them RabbitMQ falls back to at-most-once"
        )
    return ""


def _dropped(given: Mapping[str, Any]) -> str:
    """Return when a queue with these arguments drops messages, and what to give; "" if never."""
    if "x-expires" in given:
        return "x-expires deletes it with its messages when no consumer uses it; leave it out"
    if DEAD_LETTER_EXCHANGE in given:
        return ""
    catch = f"give {DEAD_LETTER_EXCHANGE}, so that they go to another queue"
    limits = [name for name in ("x-max-length", "x-max-length-bytes") if name in given]
    if limits and given.get("x-overflow", "drop-head") == "drop-head":
        return (
            f"with {limits[0]} the oldest ones, when it is full; give 'x-overflow': "
            f"'reject-publish', so that publishers wait, or {catch}"
        )
    if "x-message-ttl" in given:
        return f"with x-message-ttl those that wait too long; {catch}"
    if 0 <= given.get("x-delivery-limit", -1) < MIN_DELIVERY_LIMIT:
        return (
            f"with x-delivery-limit below {MIN_DELIVERY_LIMIT} those whose workers were lost as "
            f"often; raise it, or {catch}"
        )
    return ""

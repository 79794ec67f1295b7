"""The arguments of a declaration, for each type of queue: which exist, with which values.

A table says what RabbitMQ accepts; every argument is declared on each type of queue, with values of
every kind, and then a second time without it and with another value.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from client import CHANNEL, CONNECTION, QUORUM, expect_error
from pika import spec

OK, BAD = 0, 406
CLASSIC, STREAM = "classic", "stream"
TYPES = (CLASSIC, "quorum", STREAM)
TEN_YEARS = 315_360_000_000  # milliseconds
OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
STRATEGIES = ("at-most-once", "at-least-once")
LOCATORS = ("client-local", "balanced", "random")
VALUES = [
    -1, 0, 1, 2, 32, 255, 256, 60_000, 2**31 - 1, 2**40, 2**62, "", "10", "1D", "lazy",
    *OVERFLOWS, *STRATEGIES, *LOCATORS, True, None, b"10", Decimal("1.5"),
    datetime(2026, 1, 1, tzinfo=UTC), [], {"a": 1},
]  # fmt: skip


def anything(_):
    return True


def whole(low, high=2**62):
    return lambda value: type(value) is int and low <= value <= high


def one_of(*allowed):
    return lambda value: type(value) is str and value in allowed


def text(value):
    return type(value) is str


def boolean(value):
    return type(value) is bool


ARGUMENTS = {  # the types that have the argument, with the values that each accepts
    "x-expires": {CLASSIC: whole(1, TEN_YEARS), "quorum": whole(1, TEN_YEARS)},
    "x-message-ttl": {CLASSIC: whole(0, TEN_YEARS), "quorum": whole(0, TEN_YEARS)},
    "x-dead-letter-exchange": {CLASSIC: text, "quorum": text},
    "x-dead-letter-routing-key": {CLASSIC: text, "quorum": text},
    "x-dead-letter-strategy": {"quorum": one_of(*STRATEGIES)},
    "x-max-length": {CLASSIC: whole(0), "quorum": whole(0)},
    "x-max-length-bytes": {CLASSIC: whole(0), "quorum": whole(0), STREAM: whole(0)},
    "x-max-in-memory-length": {"quorum": whole(0)},
    "x-max-in-memory-bytes": {"quorum": whole(0)},
    "x-max-priority": {CLASSIC: whole(0, 255)},
    "x-overflow": {CLASSIC: one_of(*OVERFLOWS), "quorum": one_of(*OVERFLOWS)},
    "x-single-active-consumer": {CLASSIC: boolean, "quorum": boolean},
    "x-queue-mode": {CLASSIC: anything},
    "x-queue-version": {CLASSIC: whole(2, 2)},
    "x-queue-leader-locator": dict.fromkeys(TYPES, one_of(*LOCATORS)),
    "x-max-age": {STREAM: one_of("1D")},
    "x-stream-max-segment-size-bytes": {STREAM: whole(0, 3_000_000_000)},
    "x-stream-filter-size-bytes": {STREAM: whole(16, 255)},
    "x-initial-cluster-size": {STREAM: whole(1)},
    "x-quorum-initial-group-size": {"quorum": whole(1)},
    "x-delivery-limit": {"quorum": anything},
    "x-consumer-timeout": {"quorum": whole(0)},
    "x-consumer-disconnected-timeout": {"quorum": whole(0)},
    "x-delayed-retry-type": {"quorum": anything},
    "x-delayed-retry-min": {"quorum": anything},
    "x-delayed-retry-max": {"quorum": anything},
    "x-banana": dict.fromkeys(TYPES, anything),
    "banana": dict.fromkeys(TYPES, anything),
}
UNKNOWN = {"x-banana", "banana"}
NEW = {"x-consumer-timeout", "x-consumer-disconnected-timeout", "x-delayed-retry-type",
       "x-delayed-retry-min", "x-delayed-retry-max", "x-stream-filter-size-bytes"}  # fmt: skip
UNSUPPORTED = {"x-consumer-timeout", "x-delayed-retry-type"}  # by the embedded broker


def checks_of(argument, target):
    """Return the types that have *argument* in the version of *target*, with their checks."""
    checks = ARGUMENTS[argument]
    if argument in NEW and target.version < (4, 3):
        checks = dict.fromkeys(TYPES, anything)  # it ignores the argument
    if argument == "x-queue-mode" and target.version < (4, 3):
        checks = {CLASSIC: one_of("lazy", "default")}
    if argument == "x-queue-version" and target.version < (4, 3):
        checks = {CLASSIC: whole(1, 2)}
    if argument == "x-queue-leader-locator" and target.version < (4, 0):
        checks = {kind: checks[kind] for kind in ("quorum", STREAM)}
    return checks


def base_of(argument, kind):
    """Return the arguments with which *argument* is declared on a queue of the type *kind*."""
    base = {"x-queue-type": kind}
    if argument == "x-dead-letter-routing-key" and kind != STREAM:
        base["x-dead-letter-exchange"] = "amq.direct"
    return base


class Declarer:
    """Declares a queue again and again, on a connection that shows each answer."""

    def __init__(self, connect_raw, queue):
        self._connect = connect_raw
        self._queue = queue
        self._raw = connect_raw()

    def declare(self, *declarations):
        """Declare with each of these arguments; return the first error's code, or 0."""
        try:
            for arguments in declarations:
                if code := self._declare_once(arguments):
                    return code
            return OK
        finally:
            self._raw.call(spec.Queue.Delete(queue=self._queue), spec.Queue.DeleteOk)

    def _declare_once(self, arguments):
        self._raw.send(spec.Queue.Declare(queue=self._queue, durable=True, arguments=arguments))
        answer = self._raw.next().method
        if isinstance(answer, spec.Queue.DeclareOk):
            return OK
        if isinstance(answer, spec.Channel.Close):
            self._raw.send(spec.Channel.CloseOk())
            self._raw.call(spec.Channel.Open(), spec.Channel.OpenOk)
        else:
            assert isinstance(answer, spec.Connection.Close), answer
            self._raw = self._connect()
        return answer.reply_code


@pytest.fixture(params=TYPES)
def kind(request, target):
    if request.param == STREAM and target.is_embedded:
        pytest.skip("the embedded broker has no streams: see test_a_stream")
    return request.param


@pytest.fixture
def declare(connect_raw, name):
    return Declarer(connect_raw, name()).declare


def test_each_value_of_each_argument(kind, target, declare):
    """A wrong value, or an argument of another type of queue, fails with 406."""
    expected, found = {}, {}
    for argument in ARGUMENTS:
        accepts = checks_of(argument, target).get(kind)
        base = base_of(argument, kind)
        for value in VALUES if accepts else VALUES[:3]:
            case = f"{argument}={value!r}"
            expected[case] = OK if accepts and accepts(value) else BAD
            if target.is_embedded and argument in UNSUPPORTED and not expected[case]:
                expected[case] = 540
            found[case] = declare(base | {argument: value})
            if (argument, found[case]) == ("x-max-age", 541) and target.version < (4, 3):
                expected[case] = 541  # what is no text crashes RabbitMQ's channel

    assert {each: found[each] for each in found if found[each] != expected[each]} == {}


def test_each_argument_in_a_second_declaration(kind, target, declare):
    """It must be the same; what this type of queue does not have is ignored."""
    expected, found = {}, {}
    for argument in set(ARGUMENTS) - UNKNOWN:
        if target.is_embedded and argument in UNSUPPORTED:
            continue
        accepts = checks_of(argument, target).get(kind)
        if argument in NEW and target.version < (4, 3):
            accepts = None
        base = base_of(argument, kind)
        value = next(each for each in (60_000, *VALUES) if (accepts or anything)(each))
        given = base | {argument: value}
        pairs = {"added": (base, given)}
        if accepts:
            changed = given | {argument: "another"}
            pairs |= {"same": (given, given), "omitted": (given, base), "changed": (given, changed)}
        for word, pair in pairs.items():
            case = f"{argument}={value!r}, {word}"
            expected[case] = BAD if accepts and word != "same" else OK
            found[case] = declare(*pair)

    assert {each: found[each] for each in found if found[each] != expected[each]} == {}


TYPE_PAIRS = [  # of x-queue-type in the first and in the second declaration
    (None, None, OK), (None, "classic", OK), ("classic", None, OK), ("classic", "quorum", BAD),
    ("quorum", "classic", BAD), ("quorum", None, BAD), ("quorum", "quorum", OK),
    ("banana", None, BAD), (1, None, BAD), (None, "banana", BAD),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "outcome"), TYPE_PAIRS)
def test_the_type_of_a_queue(first, second, outcome, declare):
    """Without x-queue-type it is a classic queue; another type is no second declaration of it."""
    given = ({"x-queue-type": each} if each is not None else {} for each in (first, second))

    assert declare(*given) == outcome


def test_an_empty_type(target, declare):
    """Since 4.3 it is the default type, but no second declaration of a queue without a type."""
    outcome = OK if target.version >= (4, 3) else BAD
    assert declare({"x-queue-type": ""}) == outcome
    assert declare({"x-queue-type": ""}, {}) == BAD


def test_arguments_of_different_types_are_different(target, declare):
    """1 is not true, and void is not a missing argument."""
    queue = QUORUM
    assert declare(queue | {"x-delivery-limit": 1}, queue | {"x-delivery-limit": True}) == BAD
    assert declare(queue | {"x-delivery-limit": "1"}, queue | {"x-delivery-limit": 1}) == BAD
    if target.version >= (4, 3):
        assert declare({"x-queue-mode": None}, {}) == BAD


def test_the_argument_for_the_place_of_a_leader(target, declare):
    """RabbitMQ 4.3 does not permit x-queue-master-locator; older versions have it, mirrored."""
    expected = 541 if target.version >= (4, 3) else OK
    assert declare({"x-queue-master-locator": "client-local"}) == expected
    assert declare(QUORUM | {"x-queue-master-locator": "client-local"}) == BAD


def test_a_dead_letter_routing_key_needs_an_exchange(declare):
    """Alone it is refused."""
    assert declare({"x-dead-letter-routing-key": "k"}) == BAD
    assert declare(QUORUM | {"x-dead-letter-routing-key": "k"}) == BAD


CONSUMERS = {  # the types whose consumers have the argument
    "x-priority": {CLASSIC: whole(-1), "quorum": whole(-1)},
    "x-consumer-timeout": {"quorum": whole(0)},
    "x-stream-offset": {}, "x-stream-filter": {}, "x-stream-match-unfiltered": {},
    "x-cancel-on-ha-failover": {CLASSIC: anything, "quorum": anything},
    "x-banana": {CLASSIC: anything, "quorum": anything},
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES[:2])
def test_each_argument_of_a_consumer(kind, target, connect_raw, channel, name):
    """A wrong value, or an argument that consumers of this type of queue do not have: 406."""
    queue, raw = name(), connect_raw()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": kind})
    expected, found = {}, {}
    for argument, checks in CONSUMERS.items():
        if target.version < (4, 3) and argument not in ("x-priority", "x-banana"):
            continue  # they ignore what they do not know; each version knows others
        for value in (-1, 0, 60_000, "1", "first", True, None, Decimal("1.5"), [], {}):
            case = f"{argument}={value!r}"
            accepts = checks.get(kind)
            expected[case] = OK if accepts and accepts(value) else BAD
            if target.is_embedded and argument == "x-consumer-timeout" and not expected[case]:
                expected[case] = 540
            raw.send(spec.Basic.Consume(queue=queue, arguments={argument: value}))
            answer = raw.next().method
            found[case] = getattr(answer, "reply_code", OK)
            if isinstance(answer, spec.Basic.ConsumeOk):
                raw.call(spec.Basic.Cancel(consumer_tag=answer.consumer_tag), spec.Basic.CancelOk)
            elif isinstance(answer, spec.Channel.Close):
                raw.send(spec.Channel.CloseOk())
                raw.call(spec.Channel.Open(), spec.Channel.OpenOk)
            else:
                raw = connect_raw()

    assert {each: found[each] for each in found if found[each] != expected[each]} == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"x-queue-type": "stream"}, "no streams"),
     (QUORUM | {"x-consumer-timeout": 60_000}, "x-consumer-timeout"),
     (QUORUM | {"x-delayed-retry-type": "all"}, "x-delayed-retry-type")],
    ids=["stream", "consumer time-out", "delayed retry"],
)  # fmt: skip
def test_what_the_embedded_broker_does_not_have(arguments, text, target, channel, name):
    """It fails with 540, and the text names what is missing; RabbitMQ 4.3 has it."""
    if target.is_embedded:
        with expect_error(540, CONNECTION, text):
            channel.queue_declare(name(), durable=True, arguments=arguments)
    else:
        channel.queue_declare(name(), durable=True, arguments=arguments)


FLAGS = [{"durable": False}, {"durable": True, "exclusive": True},
         {"durable": True, "auto_delete": True}]  # fmt: skip


@pytest.mark.parametrize("options", FLAGS, ids=["transient", "exclusive", "auto-delete"])
def test_a_quorum_queue_is_durable_and_shared(options, channel, name):
    """A non-durable, exclusive or auto-delete quorum queue fails with 406."""
    with expect_error(406, CHANNEL, "invalid property"):
        channel.queue_declare(name(), arguments=QUORUM, **options)

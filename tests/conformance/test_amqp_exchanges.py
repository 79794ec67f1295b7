"""Exchanges: declarations, second declarations, bindings, and when an exchange is deleted."""

from __future__ import annotations

import pytest
from client import CHANNEL, CONNECTION, expect_error, get, publish, take_bodies

OK = 0


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_a_type_of_exchange(kind, channel, name):
    """Each of AMQP's four types can be declared."""
    exchange = name()
    channel.exchange_declare(exchange, kind)

    channel.exchange_declare(exchange, passive=True)


@pytest.mark.parametrize("kind", ["banana", "Direct", "x-banana", ""])
def test_an_unknown_type_of_exchange(kind, channel, target):
    """Since 4.0 it closes the channel with 406; before, it closed the connection with 503."""
    code, level = (406, CHANNEL) if target.version >= (4, 0) else (503, CONNECTION)
    with expect_error(code, level, "exchange type"):
        channel.exchange_declare("conformance.unknown", kind)


@pytest.mark.parametrize(
    "exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"]
)
def test_a_predeclared_exchange_exists(exchange, channel):
    """There is one for each type, and two for headers."""
    channel.exchange_declare(exchange, passive=True)


AGAIN = [
    ("direct", {}, "direct", {}, OK),
    ("direct", {}, "fanout", {}, 406),
    ("direct", {"durable": True}, "direct", {"durable": False}, 406),
    ("direct", {"auto_delete": True}, "direct", {"auto_delete": False}, 406),
    ("direct", {"internal": True}, "direct", {"internal": False}, 406),
    ("topic", {"arguments": {"alternate-exchange": "a"}}, "topic", {}, 406),
    ("topic", {"arguments": {"alternate-exchange": "a"}},
     "topic", {"arguments": {"alternate-exchange": "b"}}, 406),
    ("topic", {"arguments": {"alternate-exchange": "a"}},
     "topic", {"arguments": {"alternate-exchange": "a"}}, OK),
    ("topic", {"arguments": {"x-banana": 1}}, "topic", {"arguments": {"x-banana": 2}}, OK),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "again", "other", "outcome"), AGAIN)
def test_a_second_declaration_of_an_exchange(kind, options, again, other, outcome, channel, name):
    """It changes nothing if all is equal, and fails with 406 if not."""
    exchange = name()
    channel.exchange_declare(exchange, kind, **options)

    if outcome == OK:
        channel.exchange_declare(exchange, again, **other)
    else:
        with expect_error(outcome, text="inequivalent arg"):
            channel.exchange_declare(exchange, again, **other)


INVALID_OPERATIONS = {
    "declare a missing exchange passively": (
        404, lambda channel: channel.exchange_declare("conformance.nowhere", passive=True)),
    "declare a reserved name": (
        403, lambda channel: channel.exchange_declare("amq.mine", "direct")),
    "declare the default exchange": (
        403, lambda channel: channel.exchange_declare("", "direct", durable=True)),
    "declare amq.direct as something else": (
        406, lambda channel: channel.exchange_declare("amq.direct", "fanout", durable=True)),
    "delete the default exchange": (403, lambda channel: channel.exchange_delete("")),
    "delete amq.topic": (403, lambda channel: channel.exchange_delete("amq.topic")),
    "bind an exchange to a missing source": (
        404, lambda channel: channel.exchange_bind("amq.fanout", "conformance.nowhere")),
    "bind a missing exchange": (
        404, lambda channel: channel.exchange_bind("conformance.nowhere", "amq.fanout")),
    "bind an exchange to the default exchange": (
        403, lambda channel: channel.exchange_bind("amq.fanout", "")),
    "bind the default exchange": (
        403, lambda channel: channel.exchange_bind("", "amq.fanout")),
}  # fmt: skip


@pytest.mark.parametrize("what", INVALID_OPERATIONS)
def test_an_invalid_operation_on_an_exchange(what, channel):
    """The operation fails with its code, and the channel closes."""
    code, act = INVALID_OPERATIONS[what]
    with expect_error(code):
        act(channel)


def test_a_predeclared_exchange_can_be_declared_as_it_is(channel):
    """An equal declaration of a predeclared exchange succeeds."""
    channel.exchange_declare("amq.topic", "topic", durable=True)
    assert channel.is_open


def test_deleting_a_missing_exchange(channel):
    """Deleting an exchange that does not exist succeeds."""
    channel.exchange_delete("conformance.nowhere")
    assert channel.is_open


def test_delete_if_unused_with_a_binding(channel, queue, name):
    """It fails with 406, and the exchange stays."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)

    with expect_error(406, text="in use"):
        channel.exchange_delete(exchange, if_unused=True)


def test_delete_if_unused_without_a_binding(channel, name):
    """It deletes the exchange."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout")
    channel.exchange_delete(exchange, if_unused=True)

    with expect_error(404):
        channel.exchange_declare(exchange, passive=True)


def test_binding_to_a_missing_exchange(channel, queue):
    """It fails with 404."""
    with expect_error(404, text="no exchange 'conformance.nowhere' in vhost '/'"):
        channel.queue_bind(queue, "conformance.nowhere", "k")


def test_binding_to_the_default_exchange(channel, queue):
    """It fails with 403: the default exchange has one binding for each queue, by its name."""
    with expect_error(403):
        channel.queue_bind(queue, "", "k")


def test_unbinding_from_the_default_exchange(channel, queue):
    """It fails with 403."""
    with expect_error(403):
        channel.queue_unbind(queue, "", queue)


def test_unbinding_an_unbound_queue(channel, queue):
    """It succeeds and changes nothing."""
    channel.queue_unbind(queue, "amq.topic", "not.bound")
    assert channel.is_open


def test_unbinding_a_queue(channel, queue):
    """The queue gets no more messages from the exchange."""
    channel.queue_bind(queue, "amq.direct", queue)
    channel.queue_unbind(queue, "amq.direct", queue)
    publish(channel, queue, b"hello", exchange="amq.direct", mandatory=False)

    assert take_bodies(channel, queue) == []


def test_unbinding_removes_only_the_named_binding(channel, queue):
    """The routing key and the arguments identify a binding."""
    channel.queue_bind(queue, "amq.direct", f"{queue}.a")
    channel.queue_bind(queue, "amq.direct", f"{queue}.b")
    channel.queue_unbind(queue, "amq.direct", f"{queue}.a")
    publish(channel, f"{queue}.b", b"hello", exchange="amq.direct")

    assert take_bodies(channel, queue) == [b"hello"]


def test_an_auto_delete_exchange_is_deleted_with_its_last_binding(channel, queue, name):
    """Removing the first of two bindings leaves it."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(queue, exchange, "a")
    channel.queue_bind(queue, exchange, "b")

    channel.queue_unbind(queue, exchange, "a")
    channel.exchange_declare(exchange, passive=True)
    channel.queue_unbind(queue, exchange, "b")
    with expect_error(404):
        channel.exchange_declare(exchange, passive=True)


def test_an_auto_delete_exchange_is_deleted_with_its_queue(channel, name):
    """Deleting the queue removes the last binding."""
    exchange, queue = name("exchange"), name()
    channel.queue_declare(queue, durable=True)
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    channel.queue_bind(queue, exchange)
    channel.queue_delete(queue)

    with expect_error(404):
        channel.exchange_declare(exchange, passive=True)


def test_an_auto_delete_exchange_stays_until_it_was_bound(channel, name):
    """An exchange that never had a binding stays until a client deletes it."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout", auto_delete=True)

    channel.exchange_declare(exchange, passive=True)


def test_publishing_to_a_missing_exchange(channel):
    """It closes the channel with 404."""
    with expect_error(404, text="no exchange 'conformance.nowhere' in vhost '/'"):
        channel.basic_publish("conformance.nowhere", "k", b"")


def test_publishing_to_an_internal_exchange(channel, name):
    """It closes the channel with 403."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout", internal=True)

    with expect_error(403, text="cannot publish to internal exchange"):
        channel.basic_publish(exchange, "k", b"")


def test_an_internal_exchange_gets_messages_from_another(channel, queue, name):
    """A binding between exchanges passes messages to it."""
    outer, inner = name("outer"), name("inner")
    channel.exchange_declare(outer, "fanout")
    channel.exchange_declare(inner, "fanout", internal=True)
    channel.exchange_bind(inner, outer)
    channel.queue_bind(queue, inner)
    publish(channel, "k", b"hello", exchange=outer)

    assert get(channel, queue)[2] == b"hello"


def test_a_type_that_the_embedded_broker_lacks(channel, target, name):
    """RabbitMQ has x-local-random since 4.0; the embedded broker fails with 540."""
    exchange = name()
    if target.is_embedded:
        with expect_error(540, CONNECTION, "x-local-random"):
            channel.exchange_declare(exchange, "x-local-random")
    elif target.version >= (4, 0):
        channel.exchange_declare(exchange, "x-local-random")
    else:
        with expect_error(503, CONNECTION):
            channel.exchange_declare(exchange, "x-local-random")

"""Exchanges: what may be asked of one, what a second declaration must repeat, when one goes."""

from __future__ import annotations

import pytest
from client import CHANNEL, CONNECTION, expect_error, get, publish, take_bodies

OK = 0


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_a_type_of_exchange(kind, channel, name):
    """AMQP has four of them."""
    exchange = name()
    channel.exchange_declare(exchange, kind)

    channel.exchange_declare(exchange, passive=True)


@pytest.mark.parametrize("kind", ["banana", "Direct", "x-banana", ""])
def test_an_unknown_type_of_exchange(kind, channel, target):
    """406 closes the channel since 4.0; before, 503 closed the connection."""
    code, level = (406, CHANNEL) if target.version >= (4, 0) else (503, CONNECTION)
    with expect_error(code, level, "exchange type"):
        channel.exchange_declare("conformance.unknown", kind)


@pytest.mark.parametrize(
    "exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"]
)
def test_an_exchange_that_is_there_from_the_start(exchange, channel):
    """Each type has one, headers two."""
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
    """Declaring again is nothing if all is the same, and 406 if not."""
    exchange = name()
    channel.exchange_declare(exchange, kind, **options)

    if outcome == OK:
        channel.exchange_declare(exchange, again, **other)
    else:
        with expect_error(outcome, text="inequivalent arg"):
            channel.exchange_declare(exchange, again, **other)


REFUSED = {
    "declare passively one that is not there": (
        404, lambda channel: channel.exchange_declare("conformance.nowhere", passive=True)),
    "declare one with a reserved name": (
        403, lambda channel: channel.exchange_declare("amq.mine", "direct")),
    "declare the default exchange": (
        403, lambda channel: channel.exchange_declare("", "direct", durable=True)),
    "declare amq.direct as something else": (
        406, lambda channel: channel.exchange_declare("amq.direct", "fanout", durable=True)),
    "delete the default exchange": (403, lambda channel: channel.exchange_delete("")),
    "delete amq.topic": (403, lambda channel: channel.exchange_delete("amq.topic")),
    "bind an exchange from one that is not there": (
        404, lambda channel: channel.exchange_bind("amq.fanout", "conformance.nowhere")),
    "bind an exchange to one that is not there": (
        404, lambda channel: channel.exchange_bind("conformance.nowhere", "amq.fanout")),
    "bind an exchange from the default one": (
        403, lambda channel: channel.exchange_bind("amq.fanout", "")),
    "bind an exchange to the default one": (
        403, lambda channel: channel.exchange_bind("", "amq.fanout")),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_to_an_exchange(what, channel):
    """It is refused with its code, and the channel closes."""
    code, act = REFUSED[what]
    with expect_error(code):
        act(channel)


def test_a_predeclared_exchange_can_be_declared_as_it_is(channel):
    """That is nothing."""
    channel.exchange_declare("amq.topic", "topic", durable=True)
    assert channel.is_open


def test_an_exchange_that_is_not_there_is_deleted(channel):
    """Deleting what is not there is no error."""
    channel.exchange_delete("conformance.nowhere")
    assert channel.is_open


def test_delete_if_unused_with_a_binding(channel, queue, name):
    """406, and the exchange stays."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)

    with expect_error(406, text="in use"):
        channel.exchange_delete(exchange, if_unused=True)


def test_delete_if_unused_without_a_binding(channel, name):
    """It is deleted."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout")
    channel.exchange_delete(exchange, if_unused=True)

    with expect_error(404):
        channel.exchange_declare(exchange, passive=True)


def test_a_binding_to_a_queue_from_an_exchange_that_is_not_there(channel, queue):
    """404."""
    with expect_error(404, text="no exchange 'conformance.nowhere' in vhost '/'"):
        channel.queue_bind(queue, "conformance.nowhere", "k")


def test_a_binding_from_the_default_exchange(channel, queue):
    """403: every queue has the one binding there under its name."""
    with expect_error(403):
        channel.queue_bind(queue, "", "k")


def test_an_unbinding_from_the_default_exchange(channel, queue):
    """403."""
    with expect_error(403):
        channel.queue_unbind(queue, "", queue)


def test_an_unbinding_of_what_is_not_bound(channel, queue):
    """Nothing."""
    channel.queue_unbind(queue, "amq.topic", "not.bound")
    assert channel.is_open


def test_a_queue_is_unbound(channel, queue):
    """Messages no longer go there."""
    channel.queue_bind(queue, "amq.direct", queue)
    channel.queue_unbind(queue, "amq.direct", queue)
    publish(channel, queue, b"hello", exchange="amq.direct", mandatory=False)

    assert take_bodies(channel, queue) == []


def test_only_the_binding_that_is_named_is_unbound(channel, queue):
    """Key and arguments make a binding."""
    channel.queue_bind(queue, "amq.direct", f"{queue}.a")
    channel.queue_bind(queue, "amq.direct", f"{queue}.b")
    channel.queue_unbind(queue, "amq.direct", f"{queue}.a")
    publish(channel, f"{queue}.b", b"hello", exchange="amq.direct")

    assert take_bodies(channel, queue) == [b"hello"]


def test_an_auto_delete_exchange_goes_with_its_last_binding(channel, queue, name):
    """Not with the first of two."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(queue, exchange, "a")
    channel.queue_bind(queue, exchange, "b")

    channel.queue_unbind(queue, exchange, "a")
    channel.exchange_declare(exchange, passive=True)
    channel.queue_unbind(queue, exchange, "b")
    with expect_error(404):
        channel.exchange_declare(exchange, passive=True)


def test_an_auto_delete_exchange_goes_with_the_queue_it_was_bound_to(channel, name):
    """Deleting the queue removes the binding."""
    exchange, queue = name("exchange"), name()
    channel.queue_declare(queue, durable=True)
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    channel.queue_bind(queue, exchange)
    channel.queue_delete(queue)

    with expect_error(404):
        channel.exchange_declare(exchange, passive=True)


def test_an_auto_delete_exchange_stays_until_it_was_bound(channel, name):
    """Deleting one without bindings takes somebody who does it."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout", auto_delete=True)

    channel.exchange_declare(exchange, passive=True)


def test_publishing_to_an_exchange_that_is_not_there(channel):
    """404 closes the channel."""
    with expect_error(404, text="no exchange 'conformance.nowhere' in vhost '/'"):
        channel.basic_publish("conformance.nowhere", "k", b"")


def test_publishing_to_an_internal_exchange(channel, name):
    """403 closes the channel."""
    exchange = name()
    channel.exchange_declare(exchange, "fanout", internal=True)

    with expect_error(403, text="cannot publish to internal exchange"):
        channel.basic_publish(exchange, "k", b"")


def test_an_internal_exchange_takes_from_another(channel, queue, name):
    """By a binding between exchanges."""
    outer, inner = name("outer"), name("inner")
    channel.exchange_declare(outer, "fanout")
    channel.exchange_declare(inner, "fanout", internal=True)
    channel.exchange_bind(inner, outer)
    channel.queue_bind(queue, inner)
    publish(channel, "k", b"hello", exchange=outer)

    assert get(channel, queue)[2] == b"hello"


def test_a_type_that_the_embedded_broker_has_not(channel, target, name):
    """x-local-random came with 4.0; the embedded broker refuses it with 540."""
    exchange = name()
    if target.is_embedded:
        with expect_error(540, CONNECTION, "x-local-random"):
            channel.exchange_declare(exchange, "x-local-random")
    elif target.version >= (4, 0):
        channel.exchange_declare(exchange, "x-local-random")
    else:
        with expect_error(503, CONNECTION):
            channel.exchange_declare(exchange, "x-local-random")

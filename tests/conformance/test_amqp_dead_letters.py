"""Dead letters: where they go and which headers they have."""

from __future__ import annotations

import time
from datetime import UTC

import pytest
from client import (
    RecordingConsumer,
    get,
    publish,
    queue_exists,
    ready_count,
    sync,
    take_bodies,
    wait_until,
)
from pika import spec


@pytest.fixture
def dead(channel, name):
    """A queue for dead letters."""
    return channel.queue_declare(name("dead"), durable=True).method.queue


@pytest.fixture
def source(channel, name, dead):
    """A queue whose dead letters go to the queue *dead*."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    return channel.queue_declare(name(), durable=True, arguments=arguments).method.queue


def reject(channel, queue):
    """Get a message and reject it without requeue."""
    channel.basic_reject(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)


def test_a_rejected_message_is_a_dead_letter(channel, source, dead):
    """Its body and properties are unchanged."""
    publish(channel, source, b"hello", message_id="m", headers={"mine": "x"}, delivery_mode=2)
    reject(channel, source)

    _, properties, body = get(channel, dead)
    assert (body, properties.message_id, properties.headers["mine"]) == (b"hello", "m", "x")


def test_a_dead_letter_has_its_history(channel, source, dead):
    """x-death has the queue, reason, exchange, routing keys, count and time."""
    publish(channel, source, b"hello")
    reject(channel, source)

    [death] = get(channel, dead)[1].headers["x-death"]
    at = death.pop("time").replace(tzinfo=UTC).timestamp()
    assert death == {
        "queue": source, "reason": "rejected", "exchange": "", "routing-keys": [source], "count": 1,
    }  # fmt: skip
    assert abs(at - time.time()) < 60


@pytest.mark.parametrize(
    ("limits", "are_consumed", "order"),
    [
        ({}, True, [b"0", b"1", b"2"]),
        ({"x-max-priority": 9}, True, [b"1", b"2", b"0"]),
        ({"x-max-priority": 9}, False, [b"0", b"1", b"2"]),
    ],
)
def test_messages_rejected_together(limits, are_consumed, order, channel, name, dead):
    """They come in the order of delivery; of one consumer's, the highest priority comes first."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, **limits}
    source = channel.queue_declare(name(), durable=True, arguments=arguments).method.queue
    consumer = RecordingConsumer(channel, source) if are_consumed else None
    for n, priority in enumerate([0, 5, 5]):
        publish(channel, source, b"%d" % n, priority=priority)
        if consumer:
            consumer.wait(n + 1)
        else:
            get(channel, source, auto_ack=False)
    channel.basic_nack(3, multiple=True, requeue=False)
    wait_until(channel, lambda: ready_count(channel, dead) == 3)

    assert take_bodies(channel, dead) == order


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_dead_letter_has_text_headers(which, channel, target, source, dead):
    """It has x-first-death-* and, since 3.13, x-last-death-*."""
    publish(channel, source, b"hello")
    reject(channel, source)

    headers = get(channel, dead)[1].headers
    found = {key: headers.get(f"x-{which}-death-{key}") for key in ("queue", "reason", "exchange")}
    if which == "last" and target.version < (3, 13):
        assert set(found.values()) == {None}
    else:
        assert found == {"queue": source, "reason": "rejected", "exchange": ""}


def test_a_dead_letter_of_a_message_that_was_delivered(channel, target, source, dead):
    """Since 4.3 it is marked as redelivered in the next queue, too."""
    publish(channel, source, b"hello")
    reject(channel, source)

    assert get(channel, dead)[0].redelivered == (target.version >= (4, 3))


def chain(channel, name, *words):
    """Declare queues that each dead-letter into the next one; return their names."""
    names = [name(word) for word in words]
    for queue, after in zip(names, [*names[1:], None], strict=True):
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": after}
        channel.queue_declare(queue, durable=True, arguments=arguments if after else None)
    return names


def test_deaths_in_several_queues(channel, name):
    """x-death has the newest death first; the text headers keep the first one."""
    first, second, last = chain(channel, name, "first", "second", "last")
    publish(channel, first, b"hello")
    reject(channel, first)
    reject(channel, second)

    headers = get(channel, last)[1].headers
    assert headers["x-first-death-queue"] == first
    assert [each["queue"] for each in headers["x-death"]] == [second, first]


def test_an_x_death_header_of_a_client_is_ignored(channel, name, target):
    """Since 4.0 the broker keeps the history itself and ignores such a header."""
    first, second = chain(channel, name, "first", "second")
    told = [{"queue": "elsewhere", "reason": "expired", "count": 7}]
    headers = {"x-death": told, "x-first-death-queue": "elsewhere"}
    publish(channel, first, b"hello", headers=headers)
    reject(channel, first)

    headers = get(channel, second)[1].headers
    queues = [first] if target.version >= (4, 0) else [first, "elsewhere"]
    assert [each["queue"] for each in headers["x-death"]] == queues
    assert headers["x-first-death-queue"] == queues[-1]


def test_an_x_death_header_of_a_client_arrives(channel, name):
    """A queue delivers such a header like any other."""
    queue = channel.queue_declare(name(), durable=True).method.queue
    publish(channel, queue, b"hello", headers={"x-death": [{"queue": "elsewhere", "count": 7}]})

    [death] = get(channel, queue)[1].headers["x-death"]
    assert (death["queue"], death["count"]) == ("elsewhere", 7)


def test_a_second_death_in_the_same_queue_is_counted(channel, name):
    """When a retry queue sends a message back, the count of its death rises."""
    work, retry = name("work"), name("retry")
    to_retry = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry}
    back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 1}
    channel.queue_declare(work, durable=True, arguments=to_retry)
    channel.queue_declare(retry, durable=True, arguments=back)
    publish(channel, work, b"hello")
    for _ in range(3):
        reject(channel, work)

    _, properties, _ = get(channel, work)
    deaths = {
        (each["queue"], each["reason"]): each["count"] for each in properties.headers["x-death"]
    }
    assert deaths == {(retry, "expired"): 3, (work, "rejected"): 3}
    assert properties.headers["x-death"][0]["queue"] == retry


def test_a_dead_letter_keeps_its_routing_key(channel, name, dead):
    """The routing key stays if the queue has no x-dead-letter-routing-key."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(dead, exchange, "#")
    source = name()
    channel.queue_declare(source, durable=True, arguments={"x-dead-letter-exchange": exchange})
    channel.queue_bind(source, "amq.topic", f"{source}.#")
    publish(channel, f"{source}.a.b", b"hello", exchange="amq.topic")
    reject(channel, source)

    method, properties, _ = get(channel, dead)
    assert (method.exchange, method.routing_key) == (exchange, f"{source}.a.b")
    [death] = properties.headers["x-death"]
    assert (death["exchange"], death["routing-keys"]) == ("amq.topic", [f"{source}.a.b"])


def test_a_missing_dead_letter_exchange(channel, name):
    """The message is dropped, and there is no error."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments={"x-dead-letter-exchange": "nowhere"})
    publish(channel, queue, b"hello")
    reject(channel, queue)
    sync(channel)

    assert ready_count(channel, queue) == 0


def test_a_dead_letter_exchange_that_comes_later(channel, name, dead):
    """The broker looks for the exchange when a message is dead-lettered."""
    exchange, queue = name("exchange"), name()
    channel.queue_declare(queue, durable=True, arguments={"x-dead-letter-exchange": exchange})
    publish(channel, queue, b"hello")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(dead, exchange)
    reject(channel, queue)

    assert get(channel, dead)[2] == b"hello"


def test_dead_letters_keep_their_order(channel, source, dead):
    """They come in the order in which they were rejected."""
    publish(channel, source, *(b"%d" % n for n in range(10)))
    for _ in range(10):
        reject(channel, source)
    wait_until(channel, lambda: ready_count(channel, dead) == 10)

    assert take_bodies(channel, dead) == [b"%d" % n for n in range(10)]


def test_several_are_rejected_at_once(channel, source, dead):
    """A basic.nack with multiple dead-letters several messages."""
    publish(channel, source, b"0", b"1", b"2")
    for _ in range(3):
        get(channel, source, auto_ack=False)
    channel.basic_nack(0, multiple=True, requeue=False)
    wait_until(channel, lambda: ready_count(channel, dead) == 3)

    assert sorted(take_bodies(channel, dead)) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("how", ["purge", "delete"])
def test_purged_messages_are_not_dead_lettered(how, channel, source, dead):
    """Purging and deleting a queue dead-letter nothing."""
    publish(channel, source, b"hello")
    getattr(channel, f"queue_{how}")(source)
    sync(channel)

    assert ready_count(channel, dead) == 0
    assert queue_exists(channel.connection, source) == (how == "purge")


def test_an_automatic_cycle_drops_the_message(channel, name):
    """A queue that dead-letters expired messages into itself drops them."""
    queue, later, arrived = name(), name("later"), name("arrived")
    for each, ttl, target in ((queue, 5, queue), (later, 60, arrived), (arrived, 60_000, "")):
        arguments = {
            "x-message-ttl": ttl,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": target,
        }
        channel.queue_declare(each, durable=True, arguments=arguments)
        if each != arrived:
            publish(channel, each, b"hello")
    wait_until(channel, lambda: ready_count(channel, arrived) == 1)  # which expired after the first

    assert ready_count(channel, queue) == 0


def test_a_cycle_with_a_rejection_goes_on(channel, name):
    """The message comes back each time that a consumer rejects it."""
    queue = name()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    publish(channel, queue, b"hello")
    for _ in range(3):
        reject(channel, queue)

    [death] = get(channel, queue)[1].headers["x-death"]
    assert death["count"] == 3


def test_x_death_has_cc_routing_keys(channel, source, dead):
    """The routing keys in x-death include those of CC."""
    publish(channel, source, b"hello", headers={"CC": ["nowhere.else"]})
    reject(channel, source)

    [death] = get(channel, dead)[1].headers["x-death"]
    assert death["routing-keys"] == [source, "nowhere.else"]


def test_a_rerouted_dead_letter_ignores_cc(channel, target, name, source, dead):
    """With x-dead-letter-routing-key CC no longer counts.

    Before 4.0 the header was removed, too.
    """
    copy = channel.queue_declare(name("copy"), durable=True).method.queue
    publish(channel, source, b"hello", headers={"CC": [copy]})
    assert get(channel, copy)[2] == b"hello"
    reject(channel, source)

    _, properties, _ = get(channel, dead)
    assert ("CC" in properties.headers) == (target.version >= (4, 0))
    assert ready_count(channel, copy) == 0


def test_a_closing_connection_gets_no_dead_letters(channel, connect_raw, name, dead, target):
    """A dead letter goes to no consumer of the connection that ends.

    The messages that the connection requeues exceed the maximum length, so one is dead-lettered.
    RabbitMQ ends the channels of a connection in no order: now and then the consumer of the dead
    letters is the last one and takes it. So it has several chances, and the embedded broker one.
    """
    limits = {"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    source = channel.queue_declare(name(), durable=True, arguments=limits).method.queue
    for is_last in [True] if target.is_embedded else [False, False, False, True]:
        ends = connect_raw()
        ends.call(spec.Basic.Consume(queue=source), spec.Basic.ConsumeOk)
        ends.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
        ends.call(spec.Basic.Consume(queue=dead, no_ack=True), spec.Basic.ConsumeOk, channel=2)
        for body in (b"a", b"b"):
            publish(channel, source, body)
            ends.expect(spec.Basic.Deliver)
        ends.call(spec.Connection.Close(200, "bye", 0, 0), spec.Connection.CloseOk, channel=0)
        wait_until(channel, lambda: ready_count(channel, source) == 1)
        try:
            wait_until(channel, lambda: ready_count(channel, dead) == 1)
        except AssertionError:
            if is_last:
                raise
            channel.queue_purge(source)
        else:
            break

    assert (take_bodies(channel, source), take_bodies(channel, dead)) == ([b"b"], [b"a"])

"""Publishing: what arrives, what is returned, what is confirmed, what fails."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pika
import pika.frame
import pytest
from client import CHANNEL, CONNECTION, expect_error, get, publish, ready_count, take_bodies
from pika import spec

PROPERTIES = {
    "content_type": "application/json",
    "content_encoding": "gzip",
    "headers": {"a": "b"},
    "delivery_mode": 2,
    "priority": 7,
    "correlation_id": "c-1",
    "reply_to": "there",
    "expiration": "60000",
    "message_id": "m-1",
    "timestamp": 1_700_000_000,
    "type": "kind",
    "app_id": "conformance",
    "cluster_id": "x",
}


@pytest.mark.parametrize("word", PROPERTIES)
def test_a_property_arrives(word, channel, queue):
    """It arrives unchanged, and no other property with it."""
    publish(channel, queue, b"", **{word: PROPERTIES[word]})

    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    found = {key: value for key, value in vars(properties).items() if value is not None}
    assert found == {word: PROPERTIES[word]}


def test_a_message_without_properties(channel, queue):
    """The broker adds no property."""
    publish(channel, queue, b"")

    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert not any(vars(properties).values())


VALUES = {
    "text": "zürich", "empty text": "", "bytes": b"\xff\x00", "yes": True, "no": False,
    "a small number": 1, "a negative number": -5, "a large number": 2**40,
    "a decimal": Decimal("3.14"), "nothing": None, "a list": [1, "two", None, [3]],
    "a table": {"x": {"y": {"z": 1}}}, "a time": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    "an empty list": [], "an empty table": {}, "a long text": "x" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("word", VALUES)
def test_a_header_arrives(word, channel, queue):
    """A header of each type of a table field arrives unchanged."""
    sent = VALUES[word]
    publish(channel, queue, b"", headers={"key": sent})

    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    got = properties.headers["key"]
    if isinstance(sent, datetime):
        got = got.replace(tzinfo=UTC)
    assert got == sent


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 400_000])
def test_a_body_arrives(size, channel, queue):
    """A body arrives in as many frames as it needs; 131,064 bytes fill one frame."""
    body = bytes(n % 251 for n in range(size))
    publish(channel, queue, body)

    assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_a_message_keeps_its_exchange_and_routing_key(channel, queue, name):
    """A first delivery is not marked as redelivered."""
    channel.queue_bind(queue, "amq.topic", f"{queue}.#")
    publish(channel, f"{queue}.x", b"", exchange="amq.topic")

    method, _, _ = channel.basic_get(queue, auto_ack=True)
    assert (method.exchange, method.routing_key) == ("amq.topic", f"{queue}.x")
    assert not method.redelivered


def test_a_queue_is_first_in_first_out(channel, queue):
    """Messages come in the order in which they were published."""
    sent = [b"%d" % n for n in range(50)]
    publish(channel, queue, *sent)

    assert take_bodies(channel, queue) == sent


# ---- returns -------------------------------------------------------------------------------------


def test_an_unroutable_mandatory_message_is_returned(channel):
    """The return has code 312, exchange, routing key, properties and body."""
    with pytest.raises(pika.exceptions.UnroutableError) as caught:
        channel.basic_publish(
            "", "conformance.nowhere", b"hello", pika.BasicProperties(message_id="m"), True
        )

    [returned] = caught.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert returned.method.routing_key == "conformance.nowhere"
    assert (returned.properties.message_id, returned.body) == ("m", b"hello")


def test_an_unroutable_message_is_confirmed(channel):
    """The broker has nothing more to do with it."""
    channel.basic_publish("", "conformance.nowhere", b"hello")
    assert channel.is_open


def test_a_return_comes_before_its_confirm(connect_raw):
    """A publisher that gets a confirm knows whether the message was returned."""
    raw = connect_raw()
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish("conformance.nowhere", b"hello", mandatory=True)

    assert raw.expect(spec.Basic.Return).reply_code == 312
    assert raw.expect(spec.Basic.Ack).delivery_tag == 1


def test_without_confirms_only_the_return_comes(connect_raw):
    """The next answer comes after the return."""
    raw = connect_raw()
    raw.publish("conformance.nowhere", b"hello", mandatory=True)

    raw.expect(spec.Basic.Return)
    assert raw.is_alive()


# ---- confirms ------------------------------------------------------------------------------------


def confirmed(raw, upto):
    """Read confirms until each tag up to *upto* has one; return how many each has."""
    times = dict.fromkeys(range(1, upto + 1), 0)
    last = 0
    while not all(times.values()):
        ack = raw.expect(spec.Basic.Ack)
        for tag in range(last + 1 if ack.multiple else ack.delivery_tag, ack.delivery_tag + 1):
            if ack.multiple and times[tag]:
                continue
            times[tag] += 1
        while times.get(last + 1):
            last += 1
    return times


def test_confirms_count_from_one(connect_raw, name):
    """Each message is confirmed once, alone or together with those before it."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    for _ in range(20):
        raw.publish(queue, b"hello")

    assert set(confirmed(raw, 20).values()) == {1}


def test_confirms_begin_with_confirm_select(connect_raw, name):
    """Messages that were published before it are not confirmed."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.publish(queue, b"before")
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish(queue, b"after")

    assert confirmed(raw, 1) == {1: 1}


def test_confirm_select_twice_goes_on_counting(connect_raw, name):
    """A second confirm.select changes nothing."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish(queue, b"one")
    assert confirmed(raw, 1) == {1: 1}
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish(queue, b"two")

    assert raw.expect(spec.Basic.Ack).delivery_tag == 2


def test_each_channel_has_its_own_confirms(connect_raw, name):
    """Another channel gets no confirms unless it asks, and counts its own publishes."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk, channel=2)
    raw.publish(queue, b"on channel 1")

    assert raw.is_alive()


def test_a_publish_to_a_missing_exchange_is_not_confirmed(connect_raw):
    """The channel closes instead."""
    raw = connect_raw()
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish("k", b"hello", exchange="conformance.nowhere")

    closed = raw.expect(spec.Channel.Close)
    assert (closed.reply_code, closed.class_id, closed.method_id) == (404, 60, 40)


# ---- refusals ------------------------------------------------------------------------------------


def test_immediate(connect_raw):
    """The flag immediate fails with 540: RabbitMQ does not implement it."""
    raw = connect_raw()
    raw.send(spec.Basic.Publish(exchange="", routing_key="k", immediate=True))
    raw.socket.sendall(pika.frame.Header(1, 0, spec.BasicProperties()).marshal())

    raw.expect_close(CONNECTION, 540)


def test_a_valid_user_id(channel, queue, target):
    """The property user_id arrives if it names the user of the connection."""
    publish(channel, queue, b"", user_id=target.user)

    assert get(channel, queue)[1].user_id == target.user


def test_a_user_id_of_another_user(channel, queue):
    """It fails with 406."""
    with expect_error(406, text="user_id property set to 'other'"):
        publish(channel, queue, b"", user_id="other")


EXPIRATIONS = [
    ("60000", 0), ("4294967295", 0), ("abc", 406), ("-1", 406), ("1.5", 406), ("", 406),
    ("10 ", 406), ("+60000", 0), ("1e3", 406), ("4294967296", 0), ("31536000000000", 406),
    ("0060000", 0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "outcome"), EXPIRATIONS)
def test_an_expiration(value, outcome, channel, queue):
    """It is a number of milliseconds as text, at most ten years."""
    if outcome:
        with expect_error(outcome, text="invalid expiration"):
            publish(channel, queue, b"", expiration=value)
    else:
        publish(channel, queue, b"", expiration=value)
        assert ready_count(channel, queue) == 1


def test_a_body_that_is_too_large(connect_raw, target):
    """Since 4.0 a body of more than 16 MiB fails with 406."""
    if target.version < (4, 0):
        pytest.skip("128 MiB are allowed before 4.0, which take too long to send")
    raw = connect_raw()
    raw.publish("k", bytes(16 * 2**20 + 1), size=100_000)

    closed = raw.expect_close(CHANNEL, 406)
    assert "larger than configured max size" in closed.reply_text


@pytest.mark.parametrize("act", ["tx_select", "tx_commit", "tx_rollback"])
def test_transactions(act, channel, connect, target):
    """The embedded broker has no transactions and fails with 540; RabbitMQ has them."""
    channel = connect().channel()
    if target.is_embedded and act == "tx_select":
        with expect_error(540, CONNECTION, "no transactions"):
            getattr(channel, act)()
    elif act == "tx_select":
        channel.tx_select()
    else:
        with expect_error(406, text="not transactional"):
            getattr(channel, act)()


def test_a_publisher_that_does_not_wait(connect_raw, name):
    """A thousand messages in one write arrive in their order."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    for n in range(1000):
        raw.publish(queue, b"%d" % n)
    assert set(confirmed(raw, 1000).values()) == {1}

    answer = raw.call(spec.Queue.Declare(queue=queue, passive=True), spec.Queue.DeclareOk)
    assert answer.message_count == 1000

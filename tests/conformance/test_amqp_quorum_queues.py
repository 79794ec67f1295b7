"""How quorum queues requeue and count deliveries, and their delivery limit."""

from __future__ import annotations

import time

import pytest
from client import (
    CONNECTION,
    QUORUM,
    REQUEUE,
    RecordingConsumer,
    get,
    hold,
    publish,
    ready_count,
    wait_until,
)
from pika import spec


@pytest.fixture
def quorum(channel, name):
    """A quorum queue."""
    return channel.queue_declare(name(), durable=True, arguments=QUORUM).method.queue


def test_a_quorum_queue_sends_the_delivery_count(channel, quorum, target):
    """The first delivery has no x-delivery-count; before 4.0 it has 0."""
    publish(channel, quorum, b"hello")
    method, properties, _ = get(channel, quorum, auto_ack=False)
    assert (properties.headers or {}).get("x-delivery-count") == (None if is_new(target) else 0)
    channel.basic_reject(method.delivery_tag)

    method, properties, _ = get(channel, quorum, auto_ack=False)
    assert (properties.headers["x-delivery-count"], method.redelivered) == (1, True)


def is_new(target):
    return target.version >= (4, 0)


def test_a_quorum_queue_keeps_other_headers_when_it_adds_the_count(channel, quorum):
    """The message keeps its own headers beside the count."""
    publish(channel, quorum, b"hello", headers={"mine": "x"}, message_id="m")
    channel.basic_reject(get(channel, quorum, auto_ack=False)[0].delivery_tag)

    _, properties, _ = get(channel, quorum)
    assert properties.headers.pop("x-acquired-count", 1) == 1  # since 4.3
    assert properties.headers == {"mine": "x", "x-delivery-count": 1}
    assert properties.message_id == "m"


FAILED_DELIVERIES = {"nack": 0, "recover": 0, "reject": 1}


@pytest.mark.parametrize("how", FAILED_DELIVERIES)
def test_what_counts_as_a_failed_delivery(how, channel, quorum, target):
    """Since 4.3 only a rejection or the end of the channel counts; x-acquired-count counts all."""
    publish(channel, quorum, b"hello")
    for _ in range(2):
        REQUEUE[how](channel, get(channel, quorum, auto_ack=False)[0].delivery_tag)

    _, properties, _ = get(channel, quorum)
    if target.version >= (4, 3):
        wanted = {"x-acquired-count": 2, "x-delivery-count": 2 * FAILED_DELIVERIES[how]}
    else:
        wanted = {"x-delivery-count": 2}
    assert properties.headers == {key: value for key, value in wanted.items() if value}


def test_a_quorum_queue_has_a_delivery_limit(channel, name):
    """After one delivery more than the limit, the message is dropped or dead-lettered."""
    queue, dead = name(), name("dead")
    channel.queue_declare(dead, durable=True)
    limit = {"x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(queue, durable=True, arguments=QUORUM | limit)
    publish(channel, queue, b"hello")
    consumer = RecordingConsumer(channel, queue)
    for n in range(3):
        consumer.wait(n + 1)
        channel.basic_reject(consumer.tags[n])

    _, properties, _ = get(channel, dead)
    assert properties.headers["x-death"][0]["reason"] == "delivery_limit"
    assert len(consumer.deliveries) == 3


def test_a_closing_channel_counts_as_a_failed_delivery(channel, connect, quorum):
    """The message may be the cause of the consumer's end."""
    publish(channel, quorum, b"hello")
    other = connect().channel()
    RecordingConsumer(other, quorum).wait(1)
    other.connection.close()

    method, properties, _ = get(channel, quorum)
    assert (method.redelivered, properties.headers["x-delivery-count"]) == (True, 1)


def test_a_quorum_queue_delivers_requeued_messages_first(channel, quorum, target):
    """Before 4.0 they went to the end of the queue."""
    publish(channel, quorum, b"0", b"1", b"2")
    [tag] = hold(channel, quorum, 1)
    channel.basic_nack(tag)
    wait_until(channel, lambda: ready_count(channel, quorum) == 3)

    assert get(channel, quorum)[2] == (b"0" if is_new(target) else b"1")


def test_a_quorum_queue_requeues_by_consumer_when_a_channel_closes(
    channel, connect, quorum, target
):
    """First come the consumers in the order in which they began, then what basic.get took.

    Before 4.0 all were sorted by the text of the tag.
    """
    publish(channel, quorum, *(b"%d" % n for n in range(5)))
    other = connect().channel()
    hold(other, quorum, 1)
    other.basic_qos(prefetch_count=1)
    later = [RecordingConsumer(other, quorum, consumer_tag=tag) for tag in ("z", "a")]
    for each in later:
        each.wait(1)
    hold(other, quorum, 1)
    other.basic_cancel("z")  # its messages stay unacked
    other.connection.close()
    wait_until(channel, lambda: ready_count(channel, quorum) == 5)

    came = b"".join(get(channel, quorum)[2] for _ in range(5))
    assert came == (b"12034" if is_new(target) else b"03214")


def test_a_quorum_queue_keeps_messages_of_an_ending_connection(channel, connect_raw, quorum):
    """One channel of the connection requeues a message.

    No other channel of it gets the message, even without acks.
    """
    raw = connect_raw()
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    raw.call(spec.Basic.Consume(queue=quorum, consumer_tag="c"), spec.Basic.ConsumeOk)
    publish(channel, quorum, b"hello")
    raw.expect(spec.Basic.Deliver, channel=1)
    raw.call(spec.Basic.Consume(queue=quorum, no_ack=True), spec.Basic.ConsumeOk, channel=2)
    raw.send(spec.Basic.Consume(queue=quorum, consumer_tag="c"))
    raw.expect_close(CONNECTION, 530)

    assert get(channel, quorum)[2] == b"hello"


def test_a_quorum_queue_identifies_a_consumer_by_its_tag(channel, connect, quorum):
    """A consumer that begins again while it holds a message has no more room than before."""
    publish(channel, quorum, b"0", b"1")
    channel.basic_qos(prefetch_count=1)
    first = RecordingConsumer(channel, quorum, consumer_tag="c")
    first.wait(1)
    channel.basic_cancel("c")
    again = RecordingConsumer(channel, quorum, consumer_tag="c")
    assert get(connect().channel(), quorum)[2] == b"1"
    assert again.bodies == []

    publish(channel, quorum, b"2")
    channel.basic_ack(first.tags[0])
    assert again.wait(1) == [b"2"]


def test_a_new_consumer_gets_the_room_of_its_tag(channel, name):
    """A classic queue identifies a consumer by its tag.

    An ack of the first one's message gives the second one room.
    """
    queue = name()
    channel.queue_declare(queue)
    channel.basic_qos(prefetch_count=1)
    publish(channel, queue, b"0", b"1", b"2")
    first = RecordingConsumer(channel, queue, consumer_tag="c")
    first.wait(1)
    channel.basic_cancel("c")
    again = RecordingConsumer(channel, queue, consumer_tag="c")
    again.wait(1)

    channel.basic_ack(first.tags[0])
    assert again.wait(2) == [b"1", b"2"]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("obstacle", ["full", "missing"])
def test_a_dead_letter_waits_until_its_target_accepts_it(obstacle, channel, name, target):
    """At-least-once dead-lettering: it is counted nowhere, and comes when there is room.

    RabbitMQ tries again after 180 seconds, the embedded broker after five.
    """
    source, dead = name("source"), name("dead")
    limit = {"x-max-length": 1, "x-overflow": "reject-publish"}
    if obstacle == "full":
        channel.queue_declare(dead, durable=True, arguments=limit)
        publish(channel, dead, b"before")
    arguments = {
        "x-message-ttl": 200, "x-overflow": "reject-publish", "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead, "x-dead-letter-strategy": "at-least-once",
    }  # fmt: skip
    channel.queue_declare(source, durable=True, arguments=QUORUM | arguments)
    publish(channel, source, b"late")
    wait_until(channel, lambda: ready_count(channel, source) == 0)
    channel.connection.sleep(1.0)

    if obstacle == "full":
        assert get(channel, dead)[2] == b"before"
    else:
        channel.queue_declare(dead, durable=True)
    assert ready_count(channel, dead) == 0
    deadline = time.monotonic() + (20 if target.is_embedded else 200)
    while not ready_count(channel, dead):
        assert time.monotonic() < deadline, "the dead letter did not come"
        channel.connection.sleep(0.5)
    assert get(channel, dead)[2] == b"late"

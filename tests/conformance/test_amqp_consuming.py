"""Consumers: which one gets a message, how many at once, and when a consumer ends."""

from __future__ import annotations

import pytest
from client import (
    CONNECTION,
    RecordingConsumer,
    expect_error,
    get,
    publish,
    ready_count,
    sync,
    wait_until,
)
from pika import spec

SINGLE = {"x-single-active-consumer": True}


def test_a_consumer_gets_old_and_new_messages(channel, queue):
    """A consumer gets the messages that are ready and those that come later, in order."""
    publish(channel, queue, b"before")
    consumer = RecordingConsumer(channel, queue)
    publish(channel, queue, b"after")

    assert consumer.wait(2) == [b"before", b"after"]


def test_delivery_tags_count_from_one(channel, queue):
    """Delivery tags count from 1 on each channel, over all of its consumers."""
    publish(channel, queue, b"one", b"two", b"three")
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(3)

    assert consumer.tags == [1, 2, 3]


def test_delivery_tags_are_shared_with_get(channel, queue):
    """basic.get and the consumers of a channel share one sequence of delivery tags."""
    publish(channel, queue, b"one", b"two")
    first, _, _ = get(channel, queue, auto_ack=False)
    second, _, _ = get(channel, queue, auto_ack=True)

    assert (first.delivery_tag, second.delivery_tag) == (1, 2)


def test_a_delivery_has_its_tag_and_address(channel, queue):
    """A delivery has its tag, exchange, routing key and the redelivered flag."""
    publish(channel, queue, b"one")
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)

    method = consumer.deliveries[0][0]
    assert (method.consumer_tag, method.exchange) == (consumer.tag, "")
    assert (method.routing_key, method.redelivered) == (queue, False)


def test_a_consumer_without_a_tag_gets_one(channel, queue, connect_raw):
    """The broker makes a tag that begins with amq.ctag-."""
    raw = connect_raw()
    answer = raw.call(spec.Basic.Consume(queue=queue), spec.Basic.ConsumeOk)

    assert answer.consumer_tag.startswith("amq.ctag-")


def test_a_consumer_tag_is_used_once_on_a_channel(queue, connect_raw):
    """A second consumer with the same tag on a channel closes the connection with 530."""
    raw = connect_raw()
    raw.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
    raw.send(spec.Basic.Consume(queue=queue, consumer_tag="me"))

    assert "attempt to reuse consumer tag" in raw.expect_close(CONNECTION, 530).reply_text


def test_a_consumer_tag_is_free_on_another_channel(queue, connect_raw):
    """Two channels can have consumers with the same tag."""
    raw = connect_raw()
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    for number in (1, 2):
        consume = spec.Basic.Consume(queue=queue, consumer_tag="me")
        raw.call(consume, spec.Basic.ConsumeOk, channel=number)


def test_a_consumer_tag_is_free_after_the_cancel(queue, connect_raw):
    """A channel can use the tag of a cancelled consumer again."""
    raw = connect_raw()
    for _ in range(2):
        raw.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
        raw.call(spec.Basic.Cancel(consumer_tag="me"), spec.Basic.CancelOk)


def test_cancelling_an_unknown_consumer(connect_raw):
    """The broker answers a basic.cancel for an unknown tag with cancel-ok."""
    raw = connect_raw()
    answer = raw.call(spec.Basic.Cancel(consumer_tag="unknown"), spec.Basic.CancelOk)

    assert answer.consumer_tag == "unknown"


def test_a_cancelled_consumer_can_still_ack(channel, queue):
    """Its deliveries belong to the channel, which can still ack them."""
    publish(channel, queue, b"one", b"two")
    channel.basic_qos(prefetch_count=1)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    channel.basic_cancel(consumer.tag)
    for tag in consumer.tags:
        channel.basic_ack(tag)

    assert get(channel, queue)[2] == b"two"


def test_consume_with_nowait(connect_raw, name):
    """With nowait no consume-ok comes, and deliveries do."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.send(spec.Basic.Consume(queue=queue, consumer_tag="me", nowait=True))
    raw.publish(queue, b"hello")

    assert raw.expect(spec.Basic.Deliver).consumer_tag == "me"


def test_a_consumer_is_cancelled_with_its_queue(channel, connect, name):
    """The broker sends basic.cancel when the queue is deleted."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    other = connect().channel()
    cancelled = []
    other.add_on_cancel_callback(cancelled.append)
    tag = RecordingConsumer(other, queue).tag
    channel.queue_delete(queue)

    wait_until(other, lambda: cancelled)
    assert cancelled[0].method.consumer_tag == tag


def test_a_client_without_cancel_notify_gets_no_cancel(target, channel, name):
    """A client without the capability consumer_cancel_notify gets no basic.cancel."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    raw = target.connect_raw(stage="tune")
    raw.hang_up()
    raw = target.connect_raw(stage="start")
    raw.log_in(consumer_cancel_notify=False)
    tune = raw.expect(spec.Connection.Tune)
    raw.send(spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
    raw.send(spec.Connection.Open(), 0)
    raw.expect(spec.Connection.OpenOk)
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk)
    raw.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
    channel.queue_delete(queue)

    assert raw.is_alive()
    raw.hang_up()


# ---- exclusive consumers, priorities, turns ------------------------------------------------------


def test_an_exclusive_consumer_is_the_only_one(channel, connect, queue):
    """A second consumer of the queue fails with 403."""
    RecordingConsumer(channel, queue, exclusive=True)
    other = connect().channel()

    with expect_error(403, text="in exclusive use"):
        RecordingConsumer(other, queue)


def test_an_exclusive_consumer_fails_beside_another(channel, connect, queue):
    """An exclusive consumer fails with 403 if the queue has a consumer already."""
    RecordingConsumer(channel, queue)
    other = connect().channel()

    with expect_error(403, text="in exclusive use"):
        RecordingConsumer(other, queue, exclusive=True)


def test_a_consumer_can_follow_an_exclusive_one(channel, queue):
    """A queue accepts another consumer after the exclusive one is cancelled."""
    first = RecordingConsumer(channel, queue, exclusive=True)
    channel.basic_cancel(first.tag)
    RecordingConsumer(channel, queue, exclusive=True)

    assert channel.is_open


def test_get_works_beside_an_exclusive_consumer(channel, connect, queue):
    """An exclusive consumer excludes other consumers, and not basic.get."""
    RecordingConsumer(channel, queue, exclusive=True)

    assert connect().channel().basic_get(queue)[0] is None


def test_consumers_take_turns(channel, queue):
    """Two consumers get the same number of messages."""
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    publish(channel, queue, *(b"%d" % n for n in range(10)))
    wait_until(channel, lambda: len(one.deliveries) + len(two.deliveries) == 10)

    assert (len(one.deliveries), len(two.deliveries)) == (5, 5)


def test_a_consumer_with_priority_gets_everything(channel, queue):
    """It gets every message as long as its prefetch has room."""
    low = RecordingConsumer(channel, queue)
    high = RecordingConsumer(channel, queue, arguments={"x-priority": 10})
    publish(channel, queue, *(b"%d" % n for n in range(10)))
    high.wait(10)

    assert low.deliveries == []


def test_a_consumer_with_priority_that_is_full(channel, queue):
    """When its prefetch is full, the next consumer gets the messages."""
    low = RecordingConsumer(channel, queue)
    channel.basic_qos(prefetch_count=2)
    high = RecordingConsumer(channel, queue, arguments={"x-priority": 10})
    publish(channel, queue, *(b"%d" % n for n in range(5)))
    low.wait(3)
    high.wait(2)

    assert (high.bodies, low.bodies) == ([b"0", b"1"], [b"2", b"3", b"4"])


@pytest.mark.parametrize("priority", ["high", True])
def test_a_priority_that_is_not_a_number(priority, channel, queue):
    """It fails with 406."""
    with expect_error(406):
        RecordingConsumer(channel, queue, arguments={"x-priority": priority})


def test_a_single_active_consumer(channel, name):
    """Of two consumers the first gets every message; the second follows when the first is gone."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(2)
    assert two.deliveries == []

    channel.basic_cancel(one.tag)
    publish(channel, queue, b"c")
    assert two.wait(1) == [b"c"]


def test_a_full_single_active_consumer_stays_active(channel, name):
    """No other consumer gets the messages that it has no room for."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    channel.basic_qos(prefetch_count=1)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(1)
    sync(channel)

    assert (two.deliveries, ready_count(channel, queue)) == ([], 1)


def test_a_single_active_consumer_of_a_channel_that_closes(channel, connect, name):
    """The next consumer also gets the messages that the first had not acked."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    other = connect().channel()
    one = RecordingConsumer(other, queue)
    two = RecordingConsumer(channel, queue)
    publish(channel, queue, b"a")
    one.wait(1)
    other.close()

    assert two.wait(1) == [b"a"]
    assert two.deliveries[0][0].redelivered


def test_requeued_messages_come_before_ready_ones(channel, connect, name):
    """The next single active consumer gets requeued messages before the ready ones."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    other = connect().channel()
    other.basic_qos(prefetch_count=1)
    one = RecordingConsumer(other, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(1)
    two = RecordingConsumer(channel, queue)
    with expect_error(406):  # pika's own `close` cancels first
        other.basic_ack(99)
        sync(other)

    assert two.wait(2) == [b"a", b"b"]


@pytest.mark.parametrize("at_fault", [1, 2])
def test_the_channel_at_fault_ends_before_the_others(at_fault, channel, connect, name):
    """Its messages go to a consumer of another channel, whose messages do not come to it."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    connection = connect()
    channels = {number: connection.channel(number) for number in (1, 2)}
    holds = RecordingConsumer(channels[1], queue)
    channels[2].basic_consume(queue, lambda *_: None, auto_ack=True)
    publish(channel, queue, b"a")
    holds.wait(1)
    with expect_error(540, CONNECTION):
        channels[at_fault].basic_recover(requeue=False)

    assert ready_count(channel, queue) == at_fault - 1


def test_an_exclusive_consumer_of_a_single_active_queue(channel, name):
    """It fails with 403."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)

    with expect_error(403):
        RecordingConsumer(channel, queue, exclusive=True)

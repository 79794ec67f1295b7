"""RecordingConsumer: who gets which message, how many at once, and when it ends."""

from __future__ import annotations

import pytest
from client import (
    CONNECTION,
    RecordingConsumer,
    expect_error,
    get,
    publish,
    queue_exists,
    ready_count,
    sync,
    take_bodies,
    wait_until,
)
from pika import spec

SINGLE = {"x-single-active-consumer": True}


def test_a_consumer_gets_what_is_there_and_what_comes(channel, queue):
    """In its order."""
    publish(channel, queue, b"before")
    consumer = RecordingConsumer(channel, queue)
    publish(channel, queue, b"after")

    assert consumer.wait(2) == [b"before", b"after"]


def test_delivery_tags_count_from_one(channel, queue):
    """On each channel, over all of its consumers."""
    publish(channel, queue, b"one", b"two", b"three")
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(3)

    assert consumer.tags == [1, 2, 3]


def test_delivery_tags_are_shared_with_get(channel, queue):
    """Both count on."""
    publish(channel, queue, b"one", b"two")
    first, _, _ = get(channel, queue, auto_ack=False)
    second, _, _ = get(channel, queue, auto_ack=True)

    assert (first.delivery_tag, second.delivery_tag) == (1, 2)


def test_a_delivery_says_what_it_is(channel, queue):
    """Tag, exchange, routing key, and whether it was delivered before."""
    publish(channel, queue, b"one")
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)

    method = consumer.deliveries[0][0]
    assert (method.consumer_tag, method.exchange) == (consumer.tag, "")
    assert (method.routing_key, method.redelivered) == (queue, False)


def test_a_consumer_without_a_tag_gets_one(channel, queue, connect_raw):
    """It begins with amq.ctag-."""
    raw = connect_raw()
    answer = raw.call(spec.Basic.Consume(queue=queue), spec.Basic.ConsumeOk)

    assert answer.consumer_tag.startswith("amq.ctag-")


def test_a_consumer_tag_is_used_once_on_a_channel(queue, connect_raw):
    """530 closes the connection."""
    raw = connect_raw()
    raw.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
    raw.send(spec.Basic.Consume(queue=queue, consumer_tag="me"))

    assert "attempt to reuse consumer tag" in raw.expect_close(CONNECTION, 530).reply_text


def test_a_consumer_tag_is_free_on_another_channel(queue, connect_raw):
    """Tags are a channel's own."""
    raw = connect_raw()
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    for number in (1, 2):
        consume = spec.Basic.Consume(queue=queue, consumer_tag="me")
        raw.call(consume, spec.Basic.ConsumeOk, channel=number)


def test_a_consumer_tag_is_free_after_the_cancel(queue, connect_raw):
    """It can be taken again."""
    raw = connect_raw()
    for _ in range(2):
        raw.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
        raw.call(spec.Basic.Cancel(consumer_tag="me"), spec.Basic.CancelOk)


def test_cancelling_what_is_not_there(connect_raw):
    """It is answered, and that is all."""
    raw = connect_raw()
    answer = raw.call(spec.Basic.Cancel(consumer_tag="nobody"), spec.Basic.CancelOk)

    assert answer.consumer_tag == "nobody"


def test_a_cancelled_consumer_can_still_ack(channel, queue):
    """What was delivered is its channel's."""
    publish(channel, queue, b"one", b"two")
    channel.basic_qos(prefetch_count=1)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    channel.basic_cancel(consumer.tag)
    for tag in consumer.tags:
        channel.basic_ack(tag)

    assert get(channel, queue)[2] == b"two"


def test_consume_with_nowait(connect_raw, name):
    """No consume-ok comes, but deliveries do."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.send(spec.Basic.Consume(queue=queue, consumer_tag="me", nowait=True))
    raw.publish(queue, b"hello")

    assert raw.expect(spec.Basic.Deliver).consumer_tag == "me"


def test_a_consumer_is_cancelled_with_its_queue(channel, connect, name):
    """It is told, by basic.cancel."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    other = connect().channel()
    cancelled = []
    other.add_on_cancel_callback(cancelled.append)
    tag = RecordingConsumer(other, queue).tag
    channel.queue_delete(queue)

    wait_until(other, lambda: cancelled)
    assert cancelled[0].method.consumer_tag == tag


def test_a_consumer_that_cannot_be_told_is_not(target, channel, name):
    """A client that does not know of it gets no basic.cancel."""
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
    """403 for a second one."""
    RecordingConsumer(channel, queue, exclusive=True)
    other = connect().channel()

    with expect_error(403, text="in exclusive use"):
        RecordingConsumer(other, queue)


def test_an_exclusive_consumer_comes_first(channel, connect, queue):
    """403 if there is another already."""
    RecordingConsumer(channel, queue)
    other = connect().channel()

    with expect_error(403, text="in exclusive use"):
        RecordingConsumer(other, queue, exclusive=True)


def test_an_exclusive_consumer_can_be_followed(channel, queue):
    """Once it is cancelled."""
    first = RecordingConsumer(channel, queue, exclusive=True)
    channel.basic_cancel(first.tag)
    RecordingConsumer(channel, queue, exclusive=True)

    assert channel.is_open


def test_a_queue_with_an_exclusive_consumer_can_be_got_from(channel, connect, queue):
    """Only consumers are kept off."""
    RecordingConsumer(channel, queue, exclusive=True)

    assert connect().channel().basic_get(queue)[0] is None


def test_consumers_take_turns(channel, queue):
    """Each gets as many as the other."""
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    publish(channel, queue, *(b"%d" % n for n in range(10)))
    wait_until(channel, lambda: len(one.deliveries) + len(two.deliveries) == 10)

    assert (len(one.deliveries), len(two.deliveries)) == (5, 5)


def test_a_consumer_with_priority_gets_everything(channel, queue):
    """As long as it can take it."""
    low = RecordingConsumer(channel, queue)
    high = RecordingConsumer(channel, queue, arguments={"x-priority": 10})
    publish(channel, queue, *(b"%d" % n for n in range(10)))
    high.wait(10)

    assert low.deliveries == []


def test_a_consumer_with_priority_that_is_full(channel, queue):
    """The next one gets what it cannot take."""
    low = RecordingConsumer(channel, queue)
    channel.basic_qos(prefetch_count=2)
    high = RecordingConsumer(channel, queue, arguments={"x-priority": 10})
    publish(channel, queue, *(b"%d" % n for n in range(5)))
    low.wait(3)
    high.wait(2)

    assert (high.bodies, low.bodies) == ([b"0", b"1"], [b"2", b"3", b"4"])


@pytest.mark.parametrize("priority", ["high", True])
def test_a_priority_that_is_no_number(priority, channel, queue):
    """406."""
    with expect_error(406):
        RecordingConsumer(channel, queue, arguments={"x-priority": priority})


def test_a_single_active_consumer(channel, name):
    """Of two, the first gets everything; when it is gone, the second."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(2)
    assert two.deliveries == []

    channel.basic_cancel(one.tag)
    publish(channel, queue, b"c")
    assert two.wait(1) == [b"c"]


def test_a_single_active_consumer_that_is_full_keeps_the_turn(channel, name):
    """Nobody else gets what it cannot take."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    channel.basic_qos(prefetch_count=1)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(1)
    sync(channel)

    assert (two.deliveries, ready_count(channel, queue)) == ([], 1)


def test_a_single_active_consumer_of_a_channel_that_closes(channel, connect, name):
    """The next one gets what it had not acked, too."""
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


def test_what_a_closed_channel_held_comes_before_what_waits(channel, connect, name):
    """The next single active consumer is served when it is back."""
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
    """Of a connection: what it held goes to a consumer there, what that held does not come here."""
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


def test_an_exclusive_consumer_of_a_queue_with_a_single_active_one(channel, name):
    """403: the queue itself sees to it."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)

    with expect_error(403):
        RecordingConsumer(channel, queue, exclusive=True)


# ---- prefetch ------------------------------------------------------------------------------------


def fill(channel, queue, many=5):
    publish(channel, queue, *(b"%d" % n for n in range(many)))


def test_prefetch_bounds_what_is_unacked(channel, queue):
    """An ack makes room for one more."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=2)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(2)
    assert ready_count(channel, queue) == 3

    channel.basic_ack(1)
    assert consumer.wait(3) == [b"0", b"1", b"2"]
    assert ready_count(channel, queue) == 2


@pytest.mark.parametrize("how", ["basic_nack", "basic_reject"])
def test_a_rejection_makes_room(how, channel, queue):
    """As an ack does."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    getattr(channel, how)(1, requeue=False)

    assert consumer.wait(2) == [b"0", b"1"]


def test_prefetch_of_zero_is_no_bound(channel, queue):
    """Everything comes."""
    fill(channel, queue, 50)
    channel.basic_qos(prefetch_count=0)

    assert len(RecordingConsumer(channel, queue).wait(50)) == 50


def test_prefetch_is_each_consumers_own(channel, queue):
    """Two consumers of a channel have twice as many."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=2)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    one.wait(2)
    two.wait(2)

    assert ready_count(channel, queue) == 1


def test_prefetch_holds_for_consumers_that_come_later(channel, queue):
    """Those that are there keep theirs."""
    channel.basic_qos(prefetch_count=1)
    consumer = RecordingConsumer(channel, queue)
    channel.basic_qos(prefetch_count=10)
    fill(channel, queue)
    consumer.wait(1)
    sync(channel)

    assert ready_count(channel, queue) == 4


def test_prefetch_does_not_bound_who_does_not_ack(channel, queue):
    """Without acks there is nothing unacked."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1)

    assert len(RecordingConsumer(channel, queue, auto_ack=True).wait(5)) == 5


def test_prefetch_does_not_bound_get(channel, queue):
    """Who asks gets."""
    fill(channel, queue, 3)
    channel.basic_qos(prefetch_count=1)

    assert [get(channel, queue, auto_ack=False)[2] for _ in range(3)] == [b"0", b"1", b"2"]


def test_prefetch_by_size(channel):
    """540: RabbitMQ has none."""
    with expect_error(540, CONNECTION, "prefetch_size!=0 (1)"):
        channel.basic_qos(prefetch_size=1)


def test_prefetch_of_a_whole_channel(channel, queue, target):
    """Shared by its consumers before 4.3; since then the flag is ignored: each has its own."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1, global_qos=True)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    one.wait(1)
    if target.version >= (4, 3):
        two.wait(1)
    sync(channel)

    assert ready_count(channel, queue) == (3 if target.version >= (4, 3) else 4)


# ---- get -----------------------------------------------------------------------------------------


def test_get_from_an_empty_queue(channel, queue):
    """get-empty."""
    assert channel.basic_get(queue) == (None, None, None)


def test_get_says_how_many_are_left(channel, queue):
    """Of those that are ready."""
    fill(channel, queue, 3)

    assert channel.basic_get(queue)[0].message_count == 2
    assert channel.basic_get(queue)[0].message_count == 1


def test_what_was_got_and_not_acked_comes_back(channel, connect, queue):
    """When the channel closes, marked as redelivered."""
    other = connect().channel()
    publish(channel, queue, b"hello")
    get(other, queue, auto_ack=False)
    other.close()

    method, _, body = get(channel, queue)
    assert (method.redelivered, body) == (True, b"hello")


def test_what_was_got_without_acks_is_gone(channel, connect, queue):
    """There is nothing to give back."""
    other = connect().channel()
    publish(channel, queue, b"one", b"two")
    get(other, queue, auto_ack=True)
    other.close()

    assert take_bodies(channel, queue) == [b"two"]


def test_direct_reply_to(channel, target):
    """The embedded broker has none and says so with 540; RabbitMQ has."""
    if target.is_embedded:
        with expect_error(540, CONNECTION, "no direct reply-to"):
            channel.basic_consume("amq.rabbitmq.reply-to", print, auto_ack=True)
    else:
        channel.basic_consume("amq.rabbitmq.reply-to", print, auto_ack=True)


def test_deleting_a_queue_while_it_is_consumed(channel, name):
    """The queue is gone at once."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    RecordingConsumer(channel, queue)
    channel.queue_delete(queue)

    assert not queue_exists(channel.connection, queue)

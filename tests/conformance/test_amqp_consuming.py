"""Consuming: who gets which message, how many at once, and when it ends."""

from __future__ import annotations

import pytest
from client import (
    CONNECTION,
    Consuming,
    bodies,
    count,
    eventually,
    exists,
    get,
    publish,
    refused,
    settle,
)
from pika import spec

SINGLE = {"x-single-active-consumer": True}


def test_a_consumer_gets_what_is_there_and_what_comes(channel, queue):
    """In its order."""
    publish(channel, queue, b"before")
    consuming = Consuming(channel, queue)
    publish(channel, queue, b"after")

    assert consuming.wait(2) == [b"before", b"after"]


def test_delivery_tags_count_from_one(channel, queue):
    """On each channel, over all of its consumers."""
    publish(channel, queue, b"one", b"two", b"three")
    consuming = Consuming(channel, queue)
    consuming.wait(3)

    assert consuming.tags == [1, 2, 3]


def test_delivery_tags_are_shared_with_get(channel, queue):
    """Both count on."""
    publish(channel, queue, b"one", b"two")
    first, _, _ = get(channel, queue, auto_ack=False)
    second, _, _ = get(channel, queue, auto_ack=True)

    assert (first.delivery_tag, second.delivery_tag) == (1, 2)


def test_a_delivery_says_what_it_is(channel, queue):
    """Tag, exchange, routing key, and whether it was delivered before."""
    publish(channel, queue, b"one")
    consuming = Consuming(channel, queue)
    consuming.wait(1)

    method = consuming.got[0][0]
    assert (method.consumer_tag, method.exchange) == (consuming.tag, "")
    assert (method.routing_key, method.redelivered) == (queue, False)


def test_a_consumer_without_a_tag_gets_one(channel, queue, wire):
    """It begins with amq.ctag-."""
    wire = wire()
    answer = wire.call(spec.Basic.Consume(queue=queue), spec.Basic.ConsumeOk)

    assert answer.consumer_tag.startswith("amq.ctag-")


def test_a_consumer_tag_is_used_once_on_a_channel(queue, wire):
    """530 closes the connection."""
    wire = wire()
    wire.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
    wire.send(spec.Basic.Consume(queue=queue, consumer_tag="me"))

    assert "attempt to reuse consumer tag" in wire.expect_close(CONNECTION, 530).reply_text


def test_a_consumer_tag_is_free_on_another_channel(queue, wire):
    """Tags are a channel's own."""
    wire = wire()
    wire.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    for number in (1, 2):
        consume = spec.Basic.Consume(queue=queue, consumer_tag="me")
        wire.call(consume, spec.Basic.ConsumeOk, channel=number)


def test_a_consumer_tag_is_free_after_the_cancel(queue, wire):
    """It can be taken again."""
    wire = wire()
    for _ in range(2):
        wire.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
        wire.call(spec.Basic.Cancel(consumer_tag="me"), spec.Basic.CancelOk)


def test_cancelling_what_is_not_there(wire):
    """It is answered, and that is all."""
    wire = wire()
    answer = wire.call(spec.Basic.Cancel(consumer_tag="nobody"), spec.Basic.CancelOk)

    assert answer.consumer_tag == "nobody"


def test_a_cancelled_consumer_can_still_ack(channel, queue):
    """What was delivered is its channel's."""
    publish(channel, queue, b"one", b"two")
    channel.basic_qos(prefetch_count=1)
    consuming = Consuming(channel, queue)
    consuming.wait(1)
    channel.basic_cancel(consuming.tag)
    for tag in consuming.tags:
        channel.basic_ack(tag)

    assert get(channel, queue)[2] == b"two"


def test_consume_with_nowait(wire, name):
    """No consume-ok comes, but deliveries do."""
    wire, queue = wire(), name()
    wire.declare(queue)
    wire.send(spec.Basic.Consume(queue=queue, consumer_tag="me", nowait=True))
    wire.publish(queue, b"hello")

    assert wire.expect(spec.Basic.Deliver).consumer_tag == "me"


def test_a_consumer_is_cancelled_with_its_queue(channel, connect, name):
    """It is told, by basic.cancel."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    other = connect().channel()
    cancelled = []
    other.add_on_cancel_callback(cancelled.append)
    tag = Consuming(other, queue).tag
    channel.queue_delete(queue)

    eventually(other, lambda: cancelled)
    assert cancelled[0].method.consumer_tag == tag


def test_a_consumer_that_cannot_be_told_is_not(target, channel, name):
    """A client that does not know of it gets no basic.cancel."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    wire = target.wire(stage="tune")
    wire.hang_up()
    wire = target.wire(stage="start")
    wire.log_in(consumer_cancel_notify=False)
    tune = wire.expect(spec.Connection.Tune)
    wire.send(spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
    wire.send(spec.Connection.Open(), 0)
    wire.expect(spec.Connection.OpenOk)
    wire.call(spec.Channel.Open(), spec.Channel.OpenOk)
    wire.call(spec.Basic.Consume(queue=queue, consumer_tag="me"), spec.Basic.ConsumeOk)
    channel.queue_delete(queue)

    assert wire.is_alive()
    wire.hang_up()


# ---- exclusive consumers, priorities, turns ------------------------------------------------------


def test_an_exclusive_consumer_is_the_only_one(channel, connect, queue):
    """403 for a second one."""
    Consuming(channel, queue, exclusive=True)
    other = connect().channel()

    with refused(403, text="in exclusive use"):
        Consuming(other, queue)


def test_an_exclusive_consumer_comes_first(channel, connect, queue):
    """403 if there is another already."""
    Consuming(channel, queue)
    other = connect().channel()

    with refused(403, text="in exclusive use"):
        Consuming(other, queue, exclusive=True)


def test_an_exclusive_consumer_can_be_followed(channel, queue):
    """Once it is cancelled."""
    first = Consuming(channel, queue, exclusive=True)
    channel.basic_cancel(first.tag)
    Consuming(channel, queue, exclusive=True)

    assert channel.is_open


def test_a_queue_with_an_exclusive_consumer_can_be_got_from(channel, connect, queue):
    """Only consumers are kept off."""
    Consuming(channel, queue, exclusive=True)

    assert connect().channel().basic_get(queue)[0] is None


def test_consumers_take_turns(channel, queue):
    """Each gets as many as the other."""
    one, two = Consuming(channel, queue), Consuming(channel, queue)
    publish(channel, queue, *(b"%d" % n for n in range(10)))
    eventually(channel, lambda: len(one.got) + len(two.got) == 10)

    assert (len(one.got), len(two.got)) == (5, 5)


def test_a_consumer_with_priority_gets_everything(channel, queue):
    """As long as it can take it."""
    low = Consuming(channel, queue)
    high = Consuming(channel, queue, arguments={"x-priority": 10})
    publish(channel, queue, *(b"%d" % n for n in range(10)))
    high.wait(10)

    assert low.got == []


def test_a_consumer_with_priority_that_is_full(channel, queue):
    """The next one gets what it cannot take."""
    low = Consuming(channel, queue)
    channel.basic_qos(prefetch_count=2)
    high = Consuming(channel, queue, arguments={"x-priority": 10})
    publish(channel, queue, *(b"%d" % n for n in range(5)))
    low.wait(3)
    high.wait(2)

    assert (high.bodies, low.bodies) == ([b"0", b"1"], [b"2", b"3", b"4"])


@pytest.mark.parametrize("priority", ["high", True])
def test_a_priority_that_is_no_number(priority, channel, queue):
    """406."""
    with refused(406):
        Consuming(channel, queue, arguments={"x-priority": priority})


def test_a_single_active_consumer(channel, name):
    """Of two, the first gets everything; when it is gone, the second."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    one, two = Consuming(channel, queue), Consuming(channel, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(2)
    assert two.got == []

    channel.basic_cancel(one.tag)
    publish(channel, queue, b"c")
    assert two.wait(1) == [b"c"]


def test_a_single_active_consumer_that_is_full_keeps_the_turn(channel, name):
    """Nobody else gets what it cannot take."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    channel.basic_qos(prefetch_count=1)
    one, two = Consuming(channel, queue), Consuming(channel, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(1)
    settle(channel)

    assert (two.got, count(channel, queue)) == ([], 1)


def test_a_single_active_consumer_of_a_channel_that_closes(channel, connect, name):
    """The next one gets what it had not acked, too."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    other = connect().channel()
    one = Consuming(other, queue)
    two = Consuming(channel, queue)
    publish(channel, queue, b"a")
    one.wait(1)
    other.close()

    assert two.wait(1) == [b"a"]
    assert two.got[0][0].redelivered


def test_what_a_closed_channel_held_comes_before_what_waits(channel, connect, name):
    """The next single active consumer is served when it is back."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    other = connect().channel()
    other.basic_qos(prefetch_count=1)
    one = Consuming(other, queue)
    publish(channel, queue, b"a", b"b")
    one.wait(1)
    two = Consuming(channel, queue)
    with refused(406):  # pika's own `close` cancels first
        other.basic_ack(99)
        settle(other)

    assert two.wait(2) == [b"a", b"b"]


@pytest.mark.parametrize("at_fault", [1, 2])
def test_the_channel_at_fault_ends_before_the_others(at_fault, channel, connect, name):
    """Of a connection: what it held goes to a consumer there, what that held does not come here."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)
    connection = connect()
    channels = {number: connection.channel(number) for number in (1, 2)}
    holds = Consuming(channels[1], queue)
    channels[2].basic_consume(queue, lambda *_: None, auto_ack=True)
    publish(channel, queue, b"a")
    holds.wait(1)
    with refused(540, CONNECTION):
        channels[at_fault].basic_recover(requeue=False)

    assert count(channel, queue) == at_fault - 1


def test_an_exclusive_consumer_of_a_queue_with_a_single_active_one(channel, name):
    """403: the queue itself sees to it."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=SINGLE)

    with refused(403):
        Consuming(channel, queue, exclusive=True)


# ---- prefetch ------------------------------------------------------------------------------------


def fill(channel, queue, many=5):
    publish(channel, queue, *(b"%d" % n for n in range(many)))


def test_prefetch_bounds_what_is_unacked(channel, queue):
    """An ack makes room for one more."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=2)
    consuming = Consuming(channel, queue)
    consuming.wait(2)
    assert count(channel, queue) == 3

    channel.basic_ack(1)
    assert consuming.wait(3) == [b"0", b"1", b"2"]
    assert count(channel, queue) == 2


@pytest.mark.parametrize("how", ["basic_nack", "basic_reject"])
def test_a_rejection_makes_room(how, channel, queue):
    """As an ack does."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1)
    consuming = Consuming(channel, queue)
    consuming.wait(1)
    getattr(channel, how)(1, requeue=False)

    assert consuming.wait(2) == [b"0", b"1"]


def test_prefetch_of_zero_is_no_bound(channel, queue):
    """Everything comes."""
    fill(channel, queue, 50)
    channel.basic_qos(prefetch_count=0)

    assert len(Consuming(channel, queue).wait(50)) == 50


def test_prefetch_is_each_consumers_own(channel, queue):
    """Two consumers of a channel have twice as many."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=2)
    one, two = Consuming(channel, queue), Consuming(channel, queue)
    one.wait(2)
    two.wait(2)

    assert count(channel, queue) == 1


def test_prefetch_holds_for_consumers_that_come_later(channel, queue):
    """Those that are there keep theirs."""
    channel.basic_qos(prefetch_count=1)
    consuming = Consuming(channel, queue)
    channel.basic_qos(prefetch_count=10)
    fill(channel, queue)
    consuming.wait(1)
    settle(channel)

    assert count(channel, queue) == 4


def test_prefetch_does_not_bound_who_does_not_ack(channel, queue):
    """Without acks there is nothing unacked."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1)

    assert len(Consuming(channel, queue, auto_ack=True).wait(5)) == 5


def test_prefetch_does_not_bound_get(channel, queue):
    """Who asks gets."""
    fill(channel, queue, 3)
    channel.basic_qos(prefetch_count=1)

    assert [get(channel, queue, auto_ack=False)[2] for _ in range(3)] == [b"0", b"1", b"2"]


def test_prefetch_by_size(channel):
    """540: RabbitMQ has none."""
    with refused(540, CONNECTION, "prefetch_size!=0 (1)"):
        channel.basic_qos(prefetch_size=1)


def test_prefetch_of_a_whole_channel(channel, queue, target):
    """Shared by its consumers before 4.3; since then the flag is ignored: each has its own."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1, global_qos=True)
    one, two = Consuming(channel, queue), Consuming(channel, queue)
    one.wait(1)
    if target.version >= (4, 3):
        two.wait(1)
    settle(channel)

    assert count(channel, queue) == (3 if target.version >= (4, 3) else 4)


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

    assert bodies(channel, queue) == [b"two"]


def test_direct_reply_to(channel, target):
    """The embedded broker has none and says so with 540; RabbitMQ has."""
    if target.is_embedded:
        with refused(540, CONNECTION, "no direct reply-to"):
            channel.basic_consume("amq.rabbitmq.reply-to", print, auto_ack=True)
    else:
        channel.basic_consume("amq.rabbitmq.reply-to", print, auto_ack=True)


def test_deleting_a_queue_while_it_is_consumed(channel, name):
    """The queue is gone at once."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    Consuming(channel, queue)
    channel.queue_delete(queue)

    assert not exists(channel.connection, queue)

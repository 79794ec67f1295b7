"""Acks and rejections: what is removed, what is requeued, in which order, and how it is marked."""

from __future__ import annotations

import pytest
from client import (
    CONNECTION,
    REQUEUE,
    RecordingConsumer,
    expect_error,
    get,
    hold,
    publish,
    ready_count,
    sync,
    take_bodies,
    wait_until,
)
from pika import spec


@pytest.fixture
def five(channel, queue):
    """A queue with the messages 0 to 4."""
    publish(channel, queue, b"0", b"1", b"2", b"3", b"4")
    return queue


def test_an_acked_message_is_removed(channel, connect, five):
    """It does not come back when the channel closes."""
    other = connect().channel()
    [tag] = hold(other, five, 1)
    other.basic_ack(tag)
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 4)

    assert take_bodies(channel, five) == [b"1", b"2", b"3", b"4"]


def test_acks_in_any_order(channel, connect, five):
    """Each tag acks its own message."""
    other = connect().channel()
    tags = hold(other, five, 3)
    other.basic_ack(tags[2])
    other.basic_ack(tags[0])
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 3)

    assert take_bodies(channel, five) == [b"1", b"3", b"4"]


def test_an_ack_of_several(channel, connect, five):
    """With multiple it acks every delivery up to the tag."""
    other = connect().channel()
    tags = hold(other, five, 3)
    other.basic_ack(tags[1], multiple=True)
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 3)

    assert take_bodies(channel, five) == [b"2", b"3", b"4"]


def test_an_ack_of_all(channel, connect, five):
    """With multiple and tag 0 it acks every delivery."""
    other = connect().channel()
    hold(other, five, 5)
    other.basic_ack(0, multiple=True)
    other.close()

    assert take_bodies(channel, five) == []


def test_an_ack_of_all_without_deliveries(channel):
    """It is no error."""
    channel.basic_ack(0, multiple=True)
    sync(channel)

    assert channel.is_open


UNKNOWN = {
    "ack": lambda channel, tag: channel.basic_ack(tag),
    "ack several": lambda channel, tag: channel.basic_ack(tag, multiple=True),
    "nack": lambda channel, tag: channel.basic_nack(tag),
    "reject": lambda channel, tag: channel.basic_reject(tag),
}


@pytest.mark.parametrize("how", UNKNOWN)
def test_an_unknown_delivery_tag(how, channel, five):
    """It fails with 406."""
    hold(channel, five, 1)
    with expect_error(406, text="unknown delivery tag 99"):
        UNKNOWN[how](channel, 99)
        sync(channel)


@pytest.mark.parametrize("how", UNKNOWN)
def test_a_settled_delivery_tag(how, channel, five):
    """It fails with 406."""
    [tag] = hold(channel, five, 1)
    channel.basic_ack(tag)
    with expect_error(406, text="unknown delivery tag"):
        UNKNOWN[how](channel, tag)
        sync(channel)


def test_tag_zero_without_multiple(channel, five):
    """Tag 0 means all deliveries, and without multiple it fails with 406."""
    hold(channel, five, 1)
    with expect_error(406, text="unknown delivery tag 0"):
        channel.basic_ack(0)
        sync(channel)


def test_a_tag_of_a_delivery_without_acks(channel, five):
    """There is nothing to ack: it fails with 406."""
    tag = get(channel, five, auto_ack=True)[0].delivery_tag
    with expect_error(406, text="unknown delivery tag"):
        channel.basic_ack(tag)
        sync(channel)


def test_a_tag_of_another_channel(channel, connect, five):
    """Each channel has its own tags: it fails with 406."""
    other = connect().channel()
    [tag] = hold(other, five, 1)
    with expect_error(406, text="unknown delivery tag"):
        channel.basic_ack(tag)
        sync(channel)


def test_an_error_requeues_what_its_channel_held(channel, connect, five):
    """A wrong tag closes the channel and loses no message."""
    other = connect().channel()
    hold(other, five, 2)
    with expect_error(406):
        other.basic_ack(99)
        sync(other)

    wait_until(channel, lambda: ready_count(channel, five) == 5)


@pytest.mark.parametrize("how", REQUEUE)
def test_a_requeued_message_is_delivered_again(how, channel, queue):
    """It is marked as redelivered."""
    publish(channel, queue, b"hello")
    [tag] = hold(channel, queue, 1)
    REQUEUE[how](channel, tag)

    method, _, body = get(channel, queue)
    assert (method.redelivered, body) == (True, b"hello")


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_a_message_rejected_without_requeue(how, channel, five):
    """Without a dead-letter exchange it is removed."""
    [tag] = hold(channel, five, 1)
    getattr(channel, f"basic_{how}")(tag, requeue=False)
    sync(channel)

    assert take_bodies(channel, five) == [b"1", b"2", b"3", b"4"]


def test_a_requeued_message_returns_to_its_position(channel, five):
    """A classic queue puts it back to its old position."""
    tags = hold(channel, five, 3)
    channel.basic_nack(tags[1])
    channel.basic_nack(tags[0])
    wait_until(channel, lambda: ready_count(channel, five) == 4)

    assert take_bodies(channel, five) == [b"0", b"1", b"3", b"4"]


def test_messages_requeued_together_keep_their_order(channel, five):
    """A basic.nack of several messages keeps their order."""
    hold(channel, five, 3)
    channel.basic_nack(0, multiple=True)
    wait_until(channel, lambda: ready_count(channel, five) == 5)

    assert take_bodies(channel, five) == [b"0", b"1", b"2", b"3", b"4"]


def test_messages_of_a_closed_channel_keep_their_order(channel, connect, five):
    """They return to their old positions."""
    other = connect().channel()
    hold(other, five, 3)
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 5)

    assert take_bodies(channel, five) == [b"0", b"1", b"2", b"3", b"4"]


def test_messages_of_a_lost_connection_are_requeued(channel, connect_raw, five):
    """The broker requeues them when the socket closes."""
    lost = connect_raw()
    lost.call(spec.Basic.Get(queue=five), spec.Basic.GetOk)
    lost.hang_up()

    wait_until(channel, lambda: ready_count(channel, five) == 5)
    method, _, body = get(channel, five)
    assert (method.redelivered, body) == (True, b"0")


def test_only_delivered_messages_are_marked_as_redelivered(channel, five):
    """Other messages of the queue are not marked."""
    tags = hold(channel, five, 2)
    channel.basic_nack(tags[0])
    wait_until(channel, lambda: ready_count(channel, five) == 4)

    marks = [channel.basic_get(five, auto_ack=True)[0].redelivered for _ in range(4)]
    assert marks == [True, False, False, False]


def test_a_consumer_gets_what_it_requeued(channel, queue):
    """It gets the message again if there is no other consumer."""
    publish(channel, queue, b"hello")
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    channel.basic_nack(consumer.tags[0])

    assert consumer.wait(2) == [b"hello", b"hello"]
    assert consumer.tags == [1, 2]


def test_recover_requeues_all_unacked_messages(channel, five):
    """They keep their order."""
    hold(channel, five, 3)
    channel.basic_recover(requeue=True)
    wait_until(channel, lambda: ready_count(channel, five) == 5)

    assert take_bodies(channel, five) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("how", ["recover", "nack"])
def test_messages_are_requeued_consumer_by_consumer(how, channel, queue):
    """Consumers requeue one after the other, in the order of their tags.

    The messages of the first are delivered again before those of the second are requeued.
    """
    second, first = (RecordingConsumer(channel, queue, consumer_tag=tag) for tag in ("t2", "t1"))
    publish(channel, queue, b"0", b"1")
    assert (second.wait(1), first.wait(1)) == ([b"0"], [b"1"])
    if how == "recover":
        channel.basic_recover(requeue=True)
    else:
        channel.basic_nack(0, multiple=True, requeue=True)

    assert (second.wait(2), first.wait(2)) == ([b"0", b"1"], [b"1", b"0"])


def test_a_rejected_message_of_a_deleted_queue(channel, name):
    """The message was dropped with the queue and does not become a dead letter."""
    dead = channel.queue_declare(name("dead")).method.queue
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = channel.queue_declare(name(), arguments=arguments).method.queue
    publish(channel, queue, b"hello")
    [tag] = hold(channel, queue, 1)
    channel.queue_delete(queue)
    channel.basic_reject(tag, requeue=False)
    sync(channel)

    assert take_bodies(channel, dead) == []


def test_recover_to_the_same_consumer(channel):
    """It fails with 540: RabbitMQ does not implement it."""
    with expect_error(540, CONNECTION, "requeue=false"):
        channel.basic_recover(requeue=False)


def test_recover_without_an_answer(connect_raw, name):
    """basic.recover-async has no answer, and the unacked messages are ready."""
    raw, queue = connect_raw(), name()
    raw.declare(queue)
    raw.publish(queue, b"hello")
    while not isinstance(raw_get(raw, queue), spec.Basic.GetOk):
        pass
    raw.send(spec.Basic.RecoverAsync(requeue=True))
    while not isinstance(got := raw_get(raw, queue), spec.Basic.GetOk):
        pass

    assert got.redelivered


def raw_get(raw, queue):
    raw.send(spec.Basic.Get(queue=queue))
    return raw.next().method

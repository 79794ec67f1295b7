"""Prefetch and basic.get: how many messages a consumer holds, and getting single messages."""

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
)


def fill(channel, queue, many=5):
    publish(channel, queue, *(b"%d" % n for n in range(many)))


def test_prefetch_limits_unacked_messages(channel, queue):
    """An ack makes room for one more message."""
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
    """A rejection makes room in the prefetch, as an ack does."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    getattr(channel, how)(1, requeue=False)

    assert consumer.wait(2) == [b"0", b"1"]


def test_prefetch_of_zero_is_no_limit(channel, queue):
    """With a prefetch of 0 a consumer gets every message."""
    fill(channel, queue, 50)
    channel.basic_qos(prefetch_count=0)

    assert len(RecordingConsumer(channel, queue).wait(50)) == 50


def test_prefetch_counts_for_each_consumer(channel, queue):
    """Two consumers of a channel hold twice as many messages as one."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=2)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)
    one.wait(2)
    two.wait(2)

    assert ready_count(channel, queue) == 1


def test_prefetch_applies_to_later_consumers(channel, queue):
    """Consumers that exist already keep their prefetch."""
    channel.basic_qos(prefetch_count=1)
    consumer = RecordingConsumer(channel, queue)
    channel.basic_qos(prefetch_count=10)
    fill(channel, queue)
    consumer.wait(1)
    sync(channel)

    assert ready_count(channel, queue) == 4


def test_prefetch_does_not_limit_a_consumer_without_acks(channel, queue):
    """Without acks no message is unacked, so a consumer gets every message."""
    fill(channel, queue)
    channel.basic_qos(prefetch_count=1)

    assert len(RecordingConsumer(channel, queue, auto_ack=True).wait(5)) == 5


def test_prefetch_does_not_limit_get(channel, queue):
    """basic.get returns messages beyond the prefetch."""
    fill(channel, queue, 3)
    channel.basic_qos(prefetch_count=1)

    assert [get(channel, queue, auto_ack=False)[2] for _ in range(3)] == [b"0", b"1", b"2"]


def test_prefetch_by_size(channel):
    """A prefetch_size fails with 540, because RabbitMQ does not implement it."""
    with expect_error(540, CONNECTION, "prefetch_size!=0 (1)"):
        channel.basic_qos(prefetch_size=1)


def test_prefetch_of_a_whole_channel(channel, queue, target):
    """Before 4.3 the consumers of a channel share a global prefetch; 4.3 ignores the flag."""
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
    """The broker answers with get-empty."""
    assert channel.basic_get(queue) == (None, None, None)


def test_get_says_how_many_are_left(channel, queue):
    """get-ok has the number of messages that are still ready."""
    fill(channel, queue, 3)

    assert channel.basic_get(queue)[0].message_count == 2
    assert channel.basic_get(queue)[0].message_count == 1


def test_an_unacked_get_is_requeued_when_the_channel_closes(channel, connect, queue):
    """The message comes back, marked as redelivered."""
    other = connect().channel()
    publish(channel, queue, b"hello")
    get(other, queue, auto_ack=False)
    other.close()

    method, _, body = get(channel, queue)
    assert (method.redelivered, body) == (True, b"hello")


def test_get_without_ack_removes_the_message(channel, connect, queue):
    """The message does not come back when the channel closes."""
    other = connect().channel()
    publish(channel, queue, b"one", b"two")
    get(other, queue, auto_ack=True)
    other.close()

    assert take_bodies(channel, queue) == [b"two"]


def test_deleting_a_queue_while_it_is_consumed(channel, name):
    """The queue is deleted at once."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    RecordingConsumer(channel, queue)
    channel.queue_delete(queue)

    assert not queue_exists(channel.connection, queue)

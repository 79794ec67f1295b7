"""Differences that random programs found once, a test for each; see `test_differential`."""

from __future__ import annotations

import pytest
from client import (
    CONNECTION,
    RecordingConsumer,
    get,
    publish,
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


def declare(channel, queue, dead=None, **arguments):
    """Declare a durable queue whose dead letters go to *dead*."""
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    if dead is not None:
        given |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    return channel.queue_declare(queue, durable=True, arguments=given).method.queue


def test_a_requeue_can_exceed_the_maximum_length(channel, name):
    """x-max-length counts for requeued messages, too: the queue drops the oldest."""
    queue = declare(channel, name(), max_length=2)
    publish(channel, queue, b"1", b"2")
    tag = get(channel, queue, auto_ack=False)[0].delivery_tag
    publish(channel, queue, b"3")
    channel.basic_nack(tag, requeue=True)
    sync(channel)

    wait_until(channel, lambda: ready_count(channel, queue) == 2)
    assert take_bodies(channel, queue) == [b"2", b"3"]


def test_a_message_expired_behind_the_head_is_not_delivered(channel, name):
    """A consumer gets the head; the expired message behind it is dropped."""
    queue = declare(channel, name())
    publish(channel, queue, b"stays")
    publish(channel, queue, b"expired", expiration="1")
    channel.connection.process_data_events(0.05)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    publish(channel, queue, b"next")

    assert consumer.wait(2) == [b"stays", b"next"]


def test_a_full_consumer_waits_behind_the_others(channel, connect, name):
    """Of two full consumers, the first that acks gets the next message."""
    queue = declare(channel, name())
    other = connect().channel()
    first, second = (
        RecordingConsumer(_of_one(channel), queue),
        RecordingConsumer(_of_one(other), queue),
    )
    publish(channel, queue, b"1", b"2", b"3")  # 3 finds no room
    first.wait(1)
    second.wait(1)
    other.basic_ack(second.tags[0])
    second.wait(2)  # 3
    channel.basic_ack(first.tags[0])
    sync(channel)
    other.basic_ack(second.tags[1])
    sync(other)
    publish(channel, queue, b"4")

    assert second.wait(3) == [b"2", b"3", b"4"]


def _of_one(channel):
    channel.basic_qos(prefetch_count=1)
    return channel


@pytest.mark.parametrize("how", ["basic_reject", "basic_nack"])
def test_a_rejection_marks_the_dead_letter(how, channel, target, name, dead):
    """Since 4.3 basic.reject marks the dead letter as redelivered; basic.nack does not."""
    queue = declare(channel, name(), dead)
    publish(channel, queue, b"1")
    getattr(channel, how)(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)
    wait_until(channel, lambda: ready_count(channel, dead))

    is_marked = get(channel, dead)[0].redelivered
    assert is_marked == (how == "basic_reject" and target.version >= (4, 3))


def test_a_dead_letter_delivered_at_once_is_not_marked(channel, name, dead):
    """A consumer that waits for it gets it without the redelivered flag."""
    queue = declare(channel, name(), dead)
    consumer = RecordingConsumer(channel, dead)
    publish(channel, queue, b"1")
    channel.basic_reject(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)
    consumer.wait(1)

    assert not consumer.deliveries[0][0].redelivered


def test_a_failed_delivery_marks_the_expired_dead_letter(channel, connect, target, name, dead):
    """Since 4.3 a delivery that failed when its channel closed is still known."""
    queue = declare(channel, name(), dead)
    holding = connect().channel()
    consumer = RecordingConsumer(holding, queue)
    publish(channel, queue, b"1", expiration="0")
    consumer.wait(1)
    holding.close()
    wait_until(channel, lambda: ready_count(channel, dead))

    assert get(channel, dead)[0].redelivered == (target.version >= (4, 3))


def test_the_maximum_length_comes_before_expiry(channel, connect, name, dead):
    """Two expired messages come back to a queue for one: the first is dropped as maxlen."""
    queue = declare(channel, name(), dead, max_length=1)
    holding = connect().channel()
    consumer = RecordingConsumer(holding, queue)
    publish(channel, queue, b"1", b"2", expiration="0")
    consumer.wait(2)
    holding.close()
    wait_until(channel, lambda: ready_count(channel, dead) == 2)

    dead_letters = [get(channel, dead) for _ in range(2)]
    reasons = {
        body: properties.headers["x-death"][0]["reason"] for _, properties, body in dead_letters
    }
    assert reasons == {b"1": "maxlen", b"2": "expired"}


def test_the_consumer_tag_is_checked_before_the_queue(connect_raw, queue):
    """A tag in use fails with 530, even if the queue does not exist (404)."""
    raw = connect_raw()
    raw.call(spec.Basic.Consume(queue=queue, consumer_tag="c"), spec.Basic.ConsumeOk)
    raw.send(spec.Basic.Consume(queue="no such queue", consumer_tag="c"))

    raw.expect_close(CONNECTION, 530)


@pytest.fixture
def quorum(channel, name):
    """A quorum queue."""
    return declare(channel, name(), queue_type="quorum")


def consumers(channel, queue):
    """Return how many consumers the broker counts."""
    return channel.queue_declare(queue, passive=True).method.consumer_count


def test_a_quorum_queue_counts_a_get_as_a_consumer(channel, quorum):
    """A basic.get counts as a consumer until its message is acked."""
    publish(channel, quorum, b"1")
    tag = get(channel, quorum, auto_ack=False)[0].delivery_tag
    wait_until(channel, lambda: consumers(channel, quorum) == 1)
    channel.basic_ack(tag)

    wait_until(channel, lambda: consumers(channel, quorum) == 0)


def test_a_quorum_queue_counts_a_cancelled_consumer(channel, connect_raw, quorum):
    """A cancelled consumer counts until all of its messages are settled."""
    raw = connect_raw()
    publish(channel, quorum, b"1")
    raw.call(spec.Basic.Consume(queue=quorum, consumer_tag="c"), spec.Basic.ConsumeOk)
    delivery = raw.expect(spec.Basic.Deliver)
    raw.call(spec.Basic.Cancel(consumer_tag="c"), spec.Basic.CancelOk)
    assert consumers(channel, quorum) == 1
    raw.send(spec.Basic.Ack(delivery.delivery_tag))

    wait_until(channel, lambda: consumers(channel, quorum) == 0)


def test_a_quorum_queue_ignores_exclusive_consumers(channel, quorum):
    """A quorum queue accepts other consumers beside an exclusive one."""
    RecordingConsumer(channel, quorum, exclusive=True)
    RecordingConsumer(channel, quorum)

    wait_until(channel, lambda: consumers(channel, quorum) == 2)


def test_the_direct_reply_to_queue_always_exists(channel):
    """Clients declare it passively when they start, whether they use it or not."""
    found = channel.queue_declare("amq.rabbitmq.reply-to", passive=True).method

    assert found.message_count == 0

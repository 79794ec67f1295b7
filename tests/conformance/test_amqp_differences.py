"""What random programs found to be different once: a case for each, see `test_differential`."""

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
    """Declare a durable queue; its dead letters go to *dead*."""
    given = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    if dead is not None:
        given |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    return channel.queue_declare(queue, durable=True, arguments=given).method.queue


def test_a_requeued_message_can_be_one_too_many(channel, name):
    """x-max-length holds for what comes back, too: the oldest goes."""
    queue = declare(channel, name(), max_length=2)
    publish(channel, queue, b"1", b"2")
    tag = get(channel, queue, auto_ack=False)[0].delivery_tag
    publish(channel, queue, b"3")
    channel.basic_nack(tag, requeue=True)
    sync(channel)

    wait_until(channel, lambda: ready_count(channel, queue) == 2)
    assert take_bodies(channel, queue) == [b"2", b"3"]


def test_what_expired_behind_the_head_is_not_delivered(channel, name):
    """A consumer gets the head; what follows has expired and goes."""
    queue = declare(channel, name())
    publish(channel, queue, b"stays")
    publish(channel, queue, b"gone", expiration="1")
    channel.connection.process_data_events(0.05)
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    publish(channel, queue, b"next")

    assert consumer.wait(2) == [b"stays", b"next"]


def test_who_was_full_waits_behind_the_others(channel, connect, name):
    """Of two consumers that both had no room, the first that acks is the first to get the next."""
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
    """Since 4.3 one that basic.reject caused is marked as delivered before; a nack's is not."""
    queue = declare(channel, name(), dead)
    publish(channel, queue, b"1")
    getattr(channel, how)(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)
    wait_until(channel, lambda: ready_count(channel, dead))

    is_marked = get(channel, dead)[0].redelivered
    assert is_marked == (how == "basic_reject" and target.version >= (4, 3))


def test_a_dead_letter_that_somebody_waits_for_is_not_marked(channel, name, dead):
    """It goes to the consumer without a stop in the queue."""
    queue = declare(channel, name(), dead)
    consumer = RecordingConsumer(channel, dead)
    publish(channel, queue, b"1")
    channel.basic_reject(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)
    consumer.wait(1)

    assert not consumer.deliveries[0][0].redelivered


def test_what_a_closed_channel_held_is_marked_when_it_expires(channel, connect, target, name, dead):
    """Since 4.3 a delivery that failed goes on being known."""
    queue = declare(channel, name(), dead)
    holding = connect().channel()
    consumer = RecordingConsumer(holding, queue)
    publish(channel, queue, b"1", expiration="0")
    consumer.wait(1)
    holding.close()
    wait_until(channel, lambda: ready_count(channel, dead))

    assert get(channel, dead)[0].redelivered == (target.version >= (4, 3))


def test_what_is_too_many_goes_before_what_has_expired(channel, connect, name, dead):
    """Of two that come back, both expired, to a queue for one: the first is one too many."""
    queue = declare(channel, name(), dead, max_length=1)
    holding = connect().channel()
    consumer = RecordingConsumer(holding, queue)
    publish(channel, queue, b"1", b"2", expiration="0")
    consumer.wait(2)
    holding.close()
    wait_until(channel, lambda: ready_count(channel, dead) == 2)

    letters = [get(channel, dead) for _ in range(2)]
    reasons = {body: properties.headers["x-death"][0]["reason"] for _, properties, body in letters}
    assert reasons == {b"1": "maxlen", b"2": "expired"}


def test_the_tag_of_a_consumer_is_looked_at_first(connect_raw, queue):
    """530, not 404: the tag is in use, whatever the queue."""
    raw = connect_raw()
    raw.call(spec.Basic.Consume(queue=queue, consumer_tag="c"), spec.Basic.ConsumeOk)
    raw.send(spec.Basic.Consume(queue="no such queue", consumer_tag="c"))

    raw.expect_close(CONNECTION, 530)


@pytest.fixture
def quorum(channel, name):
    """A quorum queue."""
    return declare(channel, name(), queue_type="quorum")


def consumers(channel, queue):
    """How many consumers the broker counts."""
    return channel.queue_declare(queue, passive=True).method.consumer_count


def test_a_quorum_queue_counts_who_got_a_message(channel, quorum):
    """Until it is acked, who asked for it is a consumer."""
    publish(channel, quorum, b"1")
    tag = get(channel, quorum, auto_ack=False)[0].delivery_tag
    wait_until(channel, lambda: consumers(channel, quorum) == 1)
    channel.basic_ack(tag)

    wait_until(channel, lambda: consumers(channel, quorum) == 0)


def test_a_quorum_queue_counts_who_left_without_an_ack(channel, connect_raw, quorum):
    """A consumer that is cancelled counts until all of its messages are settled."""
    raw = connect_raw()
    publish(channel, quorum, b"1")
    raw.call(spec.Basic.Consume(queue=quorum, consumer_tag="c"), spec.Basic.ConsumeOk)
    delivery = raw.expect(spec.Basic.Deliver)
    raw.call(spec.Basic.Cancel(consumer_tag="c"), spec.Basic.CancelOk)
    assert consumers(channel, quorum) == 1
    raw.send(spec.Basic.Ack(delivery.delivery_tag))

    wait_until(channel, lambda: consumers(channel, quorum) == 0)


def test_a_quorum_queue_lets_others_beside_an_exclusive_consumer(channel, quorum):
    """Exclusive consumers are a matter of classic queues."""
    RecordingConsumer(channel, quorum, exclusive=True)
    RecordingConsumer(channel, quorum)

    wait_until(channel, lambda: consumers(channel, quorum) == 2)


def test_the_queue_for_direct_replies_is_always_there(channel):
    """Clients look for it when they start, whether they want replies or not."""
    found = channel.queue_declare("amq.rabbitmq.reply-to", passive=True).method

    assert found.message_count == 0

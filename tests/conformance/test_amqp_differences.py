"""What random programs found to be different once: a case for each, see `test_differential`."""

from __future__ import annotations

import pytest
from client import CONNECTION, Consuming, bodies, count, eventually, get, publish, settle
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
    settle(channel)

    eventually(channel, lambda: count(channel, queue) == 2)
    assert bodies(channel, queue) == [b"2", b"3"]


def test_what_expired_behind_the_head_is_not_delivered(channel, name):
    """A consumer gets the head; what follows has expired and goes."""
    queue = declare(channel, name())
    publish(channel, queue, b"stays")
    publish(channel, queue, b"gone", expiration="1")
    channel.connection.process_data_events(0.05)
    consuming = Consuming(channel, queue)
    consuming.wait(1)
    publish(channel, queue, b"next")

    assert consuming.wait(2) == [b"stays", b"next"]


def test_who_was_full_waits_behind_the_others(channel, connect, name):
    """Of two consumers that both had no room, the first that acks is the first to get the next."""
    queue = declare(channel, name())
    other = connect().channel()
    first, second = Consuming(_of_one(channel), queue), Consuming(_of_one(other), queue)
    publish(channel, queue, b"1", b"2", b"3")  # 3 finds no room
    first.wait(1)
    second.wait(1)
    other.basic_ack(second.tags[0])
    second.wait(2)  # 3
    channel.basic_ack(first.tags[0])
    settle(channel)
    other.basic_ack(second.tags[1])
    settle(other)
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
    eventually(channel, lambda: count(channel, dead))

    is_marked = get(channel, dead)[0].redelivered
    assert is_marked == (how == "basic_reject" and target.version >= (4, 3))


def test_a_dead_letter_that_somebody_waits_for_is_not_marked(channel, name, dead):
    """It goes to the consumer without a stop in the queue."""
    queue = declare(channel, name(), dead)
    consuming = Consuming(channel, dead)
    publish(channel, queue, b"1")
    channel.basic_reject(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)
    consuming.wait(1)

    assert not consuming.got[0][0].redelivered


def test_what_a_closed_channel_held_is_marked_when_it_expires(channel, connect, target, name, dead):
    """Since 4.3 a delivery that failed goes on being known."""
    queue = declare(channel, name(), dead)
    holding = connect().channel()
    consuming = Consuming(holding, queue)
    publish(channel, queue, b"1", expiration="0")
    consuming.wait(1)
    holding.close()
    eventually(channel, lambda: count(channel, dead))

    assert get(channel, dead)[0].redelivered == (target.version >= (4, 3))


def test_what_is_too_many_goes_before_what_has_expired(channel, connect, name, dead):
    """Of two that come back, both expired, to a queue for one: the first is one too many."""
    queue = declare(channel, name(), dead, max_length=1)
    holding = connect().channel()
    consuming = Consuming(holding, queue)
    publish(channel, queue, b"1", b"2", expiration="0")
    consuming.wait(2)
    holding.close()
    eventually(channel, lambda: count(channel, dead) == 2)

    letters = [get(channel, dead) for _ in range(2)]
    reasons = {body: properties.headers["x-death"][0]["reason"] for _, properties, body in letters}
    assert reasons == {b"1": "maxlen", b"2": "expired"}


def test_the_tag_of_a_consumer_is_looked_at_first(wire, queue):
    """530, not 404: the tag is in use, whatever the queue."""
    wire = wire()
    wire.call(spec.Basic.Consume(queue=queue, consumer_tag="c"), spec.Basic.ConsumeOk)
    wire.send(spec.Basic.Consume(queue="no such queue", consumer_tag="c"))

    wire.expect_close(CONNECTION, 530)


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
    eventually(channel, lambda: consumers(channel, quorum) == 1)
    channel.basic_ack(tag)

    eventually(channel, lambda: consumers(channel, quorum) == 0)


def test_a_quorum_queue_counts_who_left_without_an_ack(channel, wire, quorum):
    """A consumer that is cancelled counts until all of its messages are settled."""
    wire = wire()
    publish(channel, quorum, b"1")
    wire.call(spec.Basic.Consume(queue=quorum, consumer_tag="c"), spec.Basic.ConsumeOk)
    delivery = wire.expect(spec.Basic.Deliver)
    wire.call(spec.Basic.Cancel(consumer_tag="c"), spec.Basic.CancelOk)
    assert consumers(channel, quorum) == 1
    wire.send(spec.Basic.Ack(delivery.delivery_tag))

    eventually(channel, lambda: consumers(channel, quorum) == 0)


def test_a_quorum_queue_lets_others_beside_an_exclusive_consumer(channel, quorum):
    """Exclusive consumers are a matter of classic queues."""
    Consuming(channel, quorum, exclusive=True)
    Consuming(channel, quorum)

    eventually(channel, lambda: consumers(channel, quorum) == 2)


def test_the_queue_for_direct_replies_is_always_there(channel):
    """Clients look for it when they start, whether they want replies or not."""
    found = channel.queue_declare("amq.rabbitmq.reply-to", passive=True).method

    assert found.message_count == 0

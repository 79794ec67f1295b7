"""Acks and rejections: what is removed, what is requeued, in which order, and how it is marked."""

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
    take_bodies,
    wait_until,
)
from pika import spec

QUORUM = {"x-queue-type": "quorum"}


def hold(channel, queue, many):
    """Get messages without an ack; return the delivery tags."""
    return [get(channel, queue, auto_ack=False)[0].delivery_tag for _ in range(many)]


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


BACK = {
    "nack": lambda channel, tag: channel.basic_nack(tag),
    "reject": lambda channel, tag: channel.basic_reject(tag),
    "recover": lambda channel, _: channel.basic_recover(requeue=True),
}


@pytest.mark.parametrize("how", BACK)
def test_a_requeued_message_is_delivered_again(how, channel, queue):
    """It is marked as redelivered."""
    publish(channel, queue, b"hello")
    [tag] = hold(channel, queue, 1)
    BACK[how](channel, tag)

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


# ---- quorum queues -------------------------------------------------------------------------------


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


GIVING_BACK = {"nack": 0, "recover": 0, "reject": 1}


@pytest.mark.parametrize("how", GIVING_BACK)
def test_what_counts_as_a_failed_delivery(how, channel, quorum, target):
    """Since 4.3 only a rejection or the end of the channel counts; x-acquired-count counts all."""
    publish(channel, quorum, b"hello")
    for _ in range(2):
        BACK[how](channel, get(channel, quorum, auto_ack=False)[0].delivery_tag)

    _, properties, _ = get(channel, quorum)
    if target.version >= (4, 3):
        wanted = {"x-acquired-count": 2, "x-delivery-count": 2 * GIVING_BACK[how]}
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

"""Acks and rejections: what is forgotten, what comes back, in which order and how marked."""

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
    """Take messages without an ack; return the delivery tags."""
    return [get(channel, queue, auto_ack=False)[0].delivery_tag for _ in range(many)]


@pytest.fixture
def five(channel, queue):
    """A queue with the messages 0 to 4."""
    publish(channel, queue, b"0", b"1", b"2", b"3", b"4")
    return queue


def test_an_acked_message_is_gone(channel, connect, five):
    """Also when the channel closes."""
    other = connect().channel()
    [tag] = hold(other, five, 1)
    other.basic_ack(tag)
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 4)

    assert take_bodies(channel, five) == [b"1", b"2", b"3", b"4"]


def test_acks_in_any_order(channel, connect, five):
    """Each tag is its own."""
    other = connect().channel()
    tags = hold(other, five, 3)
    other.basic_ack(tags[2])
    other.basic_ack(tags[0])
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 3)

    assert take_bodies(channel, five) == [b"1", b"3", b"4"]


def test_an_ack_of_several(channel, connect, five):
    """Multiple: everything up to this tag."""
    other = connect().channel()
    tags = hold(other, five, 3)
    other.basic_ack(tags[1], multiple=True)
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 3)

    assert take_bodies(channel, five) == [b"2", b"3", b"4"]


def test_an_ack_of_all(channel, connect, five):
    """Multiple with tag 0: everything there is."""
    other = connect().channel()
    hold(other, five, 5)
    other.basic_ack(0, multiple=True)
    other.close()

    assert take_bodies(channel, five) == []


def test_an_ack_of_all_where_there_is_nothing(channel):
    """Is no error."""
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
def test_a_tag_that_was_never_given(how, channel, five):
    """406."""
    hold(channel, five, 1)
    with expect_error(406, text="unknown delivery tag 99"):
        UNKNOWN[how](channel, 99)
        sync(channel)


@pytest.mark.parametrize("how", UNKNOWN)
def test_a_tag_that_is_settled_already(how, channel, five):
    """406."""
    [tag] = hold(channel, five, 1)
    channel.basic_ack(tag)
    with expect_error(406, text="unknown delivery tag"):
        UNKNOWN[how](channel, tag)
        sync(channel)


def test_tag_0_alone(channel, five):
    """Zero means all, and only where several are meant: 406."""
    hold(channel, five, 1)
    with expect_error(406, text="unknown delivery tag 0"):
        channel.basic_ack(0)
        sync(channel)


def test_a_tag_of_a_delivery_without_acks(channel, five):
    """There is nothing to ack: 406."""
    tag = get(channel, five, auto_ack=True)[0].delivery_tag
    with expect_error(406, text="unknown delivery tag"):
        channel.basic_ack(tag)
        sync(channel)


def test_a_tag_of_another_channel(channel, connect, five):
    """Tags are a channel's own: 406."""
    other = connect().channel()
    [tag] = hold(other, five, 1)
    with expect_error(406, text="unknown delivery tag"):
        channel.basic_ack(tag)
        sync(channel)


def test_what_a_channel_held_is_given_back_when_it_is_closed_for_an_error(channel, connect, five):
    """A wrong tag costs the channel, no message."""
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
def test_a_message_that_is_given_back_comes_again(how, channel, queue):
    """Marked as redelivered."""
    publish(channel, queue, b"hello")
    [tag] = hold(channel, queue, 1)
    BACK[how](channel, tag)

    method, _, body = get(channel, queue)
    assert (method.redelivered, body) == (True, b"hello")


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_a_message_that_is_rejected_for_good(how, channel, five):
    """Is gone, without a dead-letter exchange."""
    [tag] = hold(channel, five, 1)
    getattr(channel, f"basic_{how}")(tag, requeue=False)
    sync(channel)

    assert take_bodies(channel, five) == [b"1", b"2", b"3", b"4"]


def test_a_message_that_is_given_back_takes_its_old_place(channel, five):
    """In a classic queue."""
    tags = hold(channel, five, 3)
    channel.basic_nack(tags[1])
    channel.basic_nack(tags[0])
    wait_until(channel, lambda: ready_count(channel, five) == 4)

    assert take_bodies(channel, five) == [b"0", b"1", b"3", b"4"]


def test_messages_that_are_given_back_together_keep_their_order(channel, five):
    """Nack of several."""
    hold(channel, five, 3)
    channel.basic_nack(0, multiple=True)
    wait_until(channel, lambda: ready_count(channel, five) == 5)

    assert take_bodies(channel, five) == [b"0", b"1", b"2", b"3", b"4"]


def test_messages_of_a_channel_that_closes_keep_their_order(channel, connect, five):
    """They are where they were."""
    other = connect().channel()
    hold(other, five, 3)
    other.close()
    wait_until(channel, lambda: ready_count(channel, five) == 5)

    assert take_bodies(channel, five) == [b"0", b"1", b"2", b"3", b"4"]


def test_messages_of_a_connection_that_breaks_come_back(channel, connect_raw, five):
    """When the socket closes."""
    lost = connect_raw()
    lost.call(spec.Basic.Get(queue=five), spec.Basic.GetOk)
    lost.hang_up()

    wait_until(channel, lambda: ready_count(channel, five) == 5)
    method, _, body = get(channel, five)
    assert (method.redelivered, body) == (True, b"0")


def test_only_what_was_delivered_is_marked_as_redelivered(channel, five):
    """The others come for the first time."""
    tags = hold(channel, five, 2)
    channel.basic_nack(tags[0])
    wait_until(channel, lambda: ready_count(channel, five) == 4)

    marks = [channel.basic_get(five, auto_ack=True)[0].redelivered for _ in range(4)]
    assert marks == [True, False, False, False]


def test_a_consumer_gets_again_what_it_gave_back(channel, queue):
    """If there is nobody else."""
    publish(channel, queue, b"hello")
    consumer = RecordingConsumer(channel, queue)
    consumer.wait(1)
    channel.basic_nack(consumer.tags[0])

    assert consumer.wait(2) == [b"hello", b"hello"]
    assert consumer.tags == [1, 2]


def test_recover_gives_back_everything_that_is_held(channel, five):
    """In its order."""
    hold(channel, five, 3)
    channel.basic_recover(requeue=True)
    wait_until(channel, lambda: ready_count(channel, five) == 5)

    assert take_bodies(channel, five) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("how", ["recover", "nack"])
def test_consumers_give_back_one_after_the_other(how, channel, queue):
    """By their tags; what the first gives back is delivered before the second's comes."""
    second, first = (RecordingConsumer(channel, queue, consumer_tag=tag) for tag in ("t2", "t1"))
    publish(channel, queue, b"0", b"1")
    assert (second.wait(1), first.wait(1)) == ([b"0"], [b"1"])
    if how == "recover":
        channel.basic_recover(requeue=True)
    else:
        channel.basic_nack(0, multiple=True, requeue=True)

    assert (second.wait(2), first.wait(2)) == ([b"0", b"1"], [b"1", b"0"])


def test_a_rejected_message_of_a_deleted_queue(channel, name):
    """Went with the queue: it is no dead letter."""
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
    """540: RabbitMQ has no such thing."""
    with expect_error(540, CONNECTION, "requeue=false"):
        channel.basic_recover(requeue=False)


def test_recover_without_an_answer(connect_raw, name):
    """Nothing is answered, and what was held is ready."""
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


def test_a_quorum_queue_says_how_often_it_was_tried(channel, quorum, target):
    """x-delivery-count is missing at first; before 4.0 it is 0."""
    publish(channel, quorum, b"hello")
    method, properties, _ = get(channel, quorum, auto_ack=False)
    assert (properties.headers or {}).get("x-delivery-count") == (None if is_new(target) else 0)
    channel.basic_reject(method.delivery_tag)

    method, properties, _ = get(channel, quorum, auto_ack=False)
    assert (properties.headers["x-delivery-count"], method.redelivered) == (1, True)


def is_new(target):
    return target.version >= (4, 0)


def test_a_quorum_queue_keeps_other_headers_when_it_adds_the_count(channel, quorum):
    """They are there beside it."""
    publish(channel, quorum, b"hello", headers={"mine": "x"}, message_id="m")
    channel.basic_reject(get(channel, quorum, auto_ack=False)[0].delivery_tag)

    _, properties, _ = get(channel, quorum)
    assert properties.headers.pop("x-acquired-count", 1) == 1  # since 4.3
    assert properties.headers == {"mine": "x", "x-delivery-count": 1}
    assert properties.message_id == "m"


GIVING_BACK = {"nack": 0, "recover": 0, "reject": 1}


@pytest.mark.parametrize("how", GIVING_BACK)
def test_what_counts_as_a_failed_delivery(how, channel, quorum, target):
    """Since 4.3 only a rejection, or a channel that ends; x-acquired-count has all of them."""
    publish(channel, quorum, b"hello")
    for _ in range(2):
        BACK[how](channel, get(channel, quorum, auto_ack=False)[0].delivery_tag)

    _, properties, _ = get(channel, quorum)
    if target.version >= (4, 3):
        wanted = {"x-acquired-count": 2, "x-delivery-count": 2 * GIVING_BACK[how]}
    else:
        wanted = {"x-delivery-count": 2}
    assert properties.headers == {key: value for key, value in wanted.items() if value}


def test_a_quorum_queue_gives_up_at_its_delivery_limit(channel, name):
    """One delivery more than the limit, then the message is dropped, or dead-lettered."""
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
    """A consumer that died may have died of it."""
    publish(channel, quorum, b"hello")
    other = connect().channel()
    RecordingConsumer(other, quorum).wait(1)
    other.connection.close()

    method, properties, _ = get(channel, quorum)
    assert (method.redelivered, properties.headers["x-delivery-count"]) == (True, 1)


def test_a_quorum_queue_serves_first_what_was_given_back(channel, quorum, target):
    """It does not go behind the others, as it did before 4.0."""
    publish(channel, quorum, b"0", b"1", b"2")
    [tag] = hold(channel, quorum, 1)
    channel.basic_nack(tag)
    wait_until(channel, lambda: ready_count(channel, quorum) == 3)

    assert get(channel, quorum)[2] == (b"0" if is_new(target) else b"1")


def test_a_quorum_queue_takes_back_by_consumer_when_a_channel_closes(
    channel, connect, quorum, target
):
    """Those who consume in the order in which they began, then what was got.

    Before 4.0 all of them by the text of the tag.
    """
    publish(channel, quorum, *(b"%d" % n for n in range(5)))
    other = connect().channel()
    hold(other, quorum, 1)
    other.basic_qos(prefetch_count=1)
    later = [RecordingConsumer(other, quorum, consumer_tag=tag) for tag in ("z", "a")]
    for each in later:
        each.wait(1)
    hold(other, quorum, 1)
    other.basic_cancel("z")  # still holds what it holds
    other.connection.close()
    wait_until(channel, lambda: ready_count(channel, quorum) == 5)

    came = b"".join(get(channel, quorum)[2] for _ in range(5))
    assert came == (b"12034" if is_new(target) else b"03214")


def test_a_quorum_queue_keeps_what_an_ending_channel_wants_no_ack_for(channel, connect_raw, quorum):
    """Given back by one channel of a connection that ends, and taken by no other one of it."""
    raw = connect_raw()
    raw.call(spec.Channel.Open(), spec.Channel.OpenOk, channel=2)
    raw.call(spec.Basic.Consume(queue=quorum, consumer_tag="c"), spec.Basic.ConsumeOk)
    publish(channel, quorum, b"hello")
    raw.expect(spec.Basic.Deliver, channel=1)
    raw.call(spec.Basic.Consume(queue=quorum, no_ack=True), spec.Basic.ConsumeOk, channel=2)
    raw.send(spec.Basic.Consume(queue=quorum, consumer_tag="c"))
    raw.expect_close(CONNECTION, 530)

    assert get(channel, quorum)[2] == b"hello"


def test_a_quorum_queue_knows_a_consumer_by_its_tag(channel, connect, quorum):
    """Begun again while it holds a message, it has no more room than before."""
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


def test_a_consumer_that_begins_again_has_the_room_of_what_it_held(channel, name):
    """A classic queue knows it by its tag: for what the first one acks, the second has room."""
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

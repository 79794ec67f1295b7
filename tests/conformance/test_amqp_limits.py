"""Time to live, maximum length and priorities: what a queue drops, and what it delivers first."""

from __future__ import annotations

import pika
import pytest
from client import RecordingConsumer, get, publish, ready_count, take_bodies, wait_until


@pytest.fixture
def declare(channel, name):
    """Declare a queue with arguments; its dead letters go to the queue *dead*."""

    def declare(dead=None, type="classic", **arguments):
        queue = name()
        arguments = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        if dead is not None:
            channel.queue_declare(dead, durable=True)
            arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        arguments["x-queue-type"] = type
        channel.queue_declare(queue, durable=True, arguments=arguments)
        return queue

    return declare


TYPES = pytest.mark.parametrize("type", ["classic", "quorum"])

# ---- time to live --------------------------------------------------------------------------------


@TYPES
def test_a_message_expires_by_the_ttl_of_its_queue(type, channel, declare, name):
    """It becomes a dead letter with the reason "expired"."""
    dead = name("dead")
    queue = declare(dead, type, message_ttl=20)
    publish(channel, queue, b"hello")

    _, properties, _ = get(channel, dead)
    assert properties.headers["x-first-death-reason"] == "expired"
    assert ready_count(channel, queue) == 0


@TYPES
def test_a_message_expires_by_its_own_expiration(type, channel, declare, name):
    """The dead letter has no expiration any more; x-death has the original one."""
    dead = name("dead")
    queue = declare(dead, type)
    publish(channel, queue, b"hello", expiration="20")

    _, properties, _ = get(channel, dead)
    assert properties.expiration is None
    assert properties.headers["x-death"][0]["original-expiration"] == "20"


@pytest.mark.parametrize(("ttl", "expiration"), [(20, "60000"), (60_000, "20")])
def test_the_shorter_ttl_counts(ttl, expiration, channel, declare, name):
    """Of the queue's TTL and the message's expiration, the shorter one counts."""
    dead = name("dead")
    queue = declare(dead, message_ttl=ttl)
    publish(channel, queue, b"hello", expiration=expiration)

    assert get(channel, dead)[2] == b"hello"


def test_messages_expire_at_the_head_only(channel, declare, name):
    """An expired message behind one that lives longer is dropped when it reaches the head."""
    dead, beside = name("dead"), name("beside")
    queue = declare(dead)
    publish(channel, queue, b"long", expiration="60000")
    publish(channel, queue, b"short", expiration="10")
    channel.queue_declare(
        beside, durable=True, arguments={
            "x-message-ttl": 30, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
        },
    )  # fmt: skip
    publish(channel, beside, b"clock")
    assert get(channel, dead)[2] == b"clock"
    assert ready_count(channel, queue) == 2

    assert get(channel, queue)[2] == b"long"
    assert get(channel, dead)[2] == b"short"


def test_an_unacked_message_does_not_expire(channel, declare, name):
    """It expires when it is requeued."""
    dead, beside = name("dead"), name("beside")
    queue = declare(dead, message_ttl=30)
    publish(channel, queue, b"held")
    tag = get(channel, queue, auto_ack=False)[0].delivery_tag
    publish(channel, queue, b"clock")
    assert get(channel, dead)[2] == b"clock"
    assert ready_count(channel, dead) == 0

    channel.basic_nack(tag)
    assert get(channel, dead)[2] == b"held"
    assert beside


@TYPES
def test_a_ttl_of_zero_without_a_consumer(type, channel, declare, name):
    """The message expires at once."""
    dead = name("dead")
    queue = declare(dead, type, message_ttl=0)
    publish(channel, queue, b"hello")

    assert get(channel, dead)[2] == b"hello"


def test_a_ttl_of_zero_with_a_consumer(channel, declare, name):
    """The message is delivered if a consumer has room."""
    dead = name("dead")
    queue = declare(dead, message_ttl=0)
    consumer = RecordingConsumer(channel, queue)
    publish(channel, queue, b"hello")

    assert consumer.wait(1) == [b"hello"]
    assert ready_count(channel, dead) == 0


def test_an_expired_message_without_a_dead_letter_exchange(channel, declare):
    """The message is dropped."""
    queue = declare(message_ttl=10)
    publish(channel, queue, b"hello")

    wait_until(channel, lambda: ready_count(channel, queue) == 0)


def test_the_ttl_starts_again_in_the_next_queue(channel, declare, name):
    """A chain of two queues takes the sum of both TTLs."""
    last, dead = name("last"), name("dead")
    channel.queue_declare(last, durable=True)
    again = {"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": last}
    channel.queue_declare(dead, durable=True, arguments=again)
    queue = name()
    first = {"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(queue, durable=True, arguments=first)
    publish(channel, queue, b"hello")

    _, properties, _ = get(channel, last)
    assert [each["queue"] for each in properties.headers["x-death"]] == [dead, queue]


# ---- maximum length ------------------------------------------------------------------------------


@TYPES
def test_a_full_queue_drops_its_oldest_message(type, channel, declare):
    """drop-head is the default of x-overflow."""
    queue = declare(type=type, max_length=2)
    publish(channel, queue, b"0", b"1", b"2", b"3")

    assert take_bodies(channel, queue) == [b"2", b"3"]


@TYPES
def test_a_full_queue_dead_letters_what_it_drops(type, channel, declare, name):
    """The reason is "maxlen"."""
    dead = name("dead")
    queue = declare(dead, type, max_length=1)
    publish(channel, queue, b"0", b"1")

    _, properties, body = get(channel, dead)
    assert (properties.headers["x-first-death-reason"], body) == ("maxlen", b"0")


def test_a_maximum_length_of_zero(channel, declare, name):
    """Every message becomes a dead letter."""
    dead = name("dead")
    queue = declare(dead, max_length=0)
    publish(channel, queue, b"hello")

    assert get(channel, dead)[2] == b"hello"
    assert ready_count(channel, queue) == 0


def test_a_maximum_length_in_bytes(channel, declare):
    """It counts the bodies."""
    queue = declare(max_length_bytes=10)
    publish(channel, queue, b"aaaa", b"bbbb", b"cccc")

    assert take_bodies(channel, queue) == [b"bbbb", b"cccc"]


def test_a_maximum_length_in_bytes_counts_ready_messages(channel, declare):
    """Unacked messages do not count."""
    queue = declare(max_length_bytes=10)
    publish(channel, queue, b"aaaa")
    get(channel, queue, auto_ack=False)
    publish(channel, queue, b"bbbb", b"cccc")

    assert take_bodies(channel, queue) == [b"bbbb", b"cccc"]


def test_both_maximum_lengths(channel, declare):
    """The queue drops messages when either limit is exceeded."""
    queue = declare(max_length=2, max_length_bytes=10)
    publish(channel, queue, b"a", b"b", b"c")
    assert take_bodies(channel, queue) == [b"b", b"c"]

    publish(channel, queue, b"aaaaaaa", b"bbbbbbb")
    assert take_bodies(channel, queue) == [b"bbbbbbb"]


def test_a_maximum_length_counts_ready_messages(channel, declare):
    """Unacked messages do not count."""
    queue = declare(max_length=1)
    publish(channel, queue, b"held")
    get(channel, queue, auto_ack=False)
    publish(channel, queue, b"ready")

    assert take_bodies(channel, queue) == [b"ready"]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_rejects_publishes(overflow, channel, declare):
    """The publisher gets a nack, and the queue keeps its messages."""
    queue = declare(max_length=1, overflow=overflow)
    publish(channel, queue, b"first")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", queue, b"second")

    assert take_bodies(channel, queue) == [b"first"]


@pytest.mark.parametrize(("overflow", "kept"), [("reject-publish", 0), ("reject-publish-dlx", 1)])
def test_rejected_publishes_are_dead_lettered_with_dlx_only(overflow, kept, channel, declare, name):
    """reject-publish-dlx dead-letters what it rejects; reject-publish does not."""
    dead = name("dead")
    queue = declare(dead, max_length=1, overflow=overflow)
    publish(channel, queue, b"first")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", queue, b"second")

    wait_until(channel, lambda: ready_count(channel, dead) == kept)
    assert take_bodies(channel, dead) == [b"second"] * kept


def test_a_queue_accepts_publishes_again_when_it_has_room(channel, declare):
    """After one message is removed, one more is accepted."""
    queue = declare(max_length=1, overflow="reject-publish")
    publish(channel, queue, b"first")
    get(channel, queue)
    publish(channel, queue, b"second")

    assert take_bodies(channel, queue) == [b"second"]


def test_one_full_queue_of_two(channel, declare, name):
    """The publisher gets a nack, and the other queue has the message."""
    exchange, other = name("exchange"), name("other")
    channel.exchange_declare(exchange, "fanout")
    full = declare(max_length=0, overflow="reject-publish")
    channel.queue_declare(other, durable=True)
    for each in (full, other):
        channel.queue_bind(each, exchange)
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish(exchange, "", b"hello")

    assert take_bodies(channel, other) == [b"hello"]


# ---- priorities ----------------------------------------------------------------------------------


def published(channel, queue, *priorities):
    for n, priority in enumerate(priorities):
        options = {} if priority is None else {"priority": priority}
        publish(channel, queue, b"%d" % n, **options)


PRIORITIES = [
    ([1, 2, 3], [2, 1, 0], "the highest first"),
    ([5, 5, 5], [0, 1, 2], "equal ones in their order"),
    ([None, 0, 1], [2, 0, 1], "none is zero"),
    ([200, 10, 9], [0, 1, 2], "more than the most is the most"),
    ([1, None, 9, 5, 9], [2, 4, 3, 0, 1], "all together"),
]


@pytest.mark.parametrize(("priorities", "order", "why"), PRIORITIES)
def test_a_queue_with_priorities(priorities, order, why, channel, declare):
    """The highest priority comes first, and among equal ones the oldest message."""
    queue = declare(max_priority=10)
    published(channel, queue, *priorities)

    assert take_bodies(channel, queue) == [b"%d" % n for n in order]


def test_a_queue_without_priorities(channel, declare):
    """It ignores the property priority."""
    queue = declare()
    published(channel, queue, 1, 9, 5)

    assert take_bodies(channel, queue) == [b"0", b"1", b"2"]


def test_a_requeued_message_keeps_its_priority(channel, declare):
    """It returns to its position among messages of its priority."""
    queue = declare(max_priority=10)
    published(channel, queue, 5, 5, 1)
    tag = get(channel, queue, auto_ack=False)[0].delivery_tag
    publish(channel, queue, b"high", priority=9)
    channel.basic_nack(tag)
    wait_until(channel, lambda: ready_count(channel, queue) == 4)

    assert take_bodies(channel, queue) == [b"high", b"0", b"1", b"2"]


def test_what_a_full_queue_with_priorities_drops(channel, declare):
    """It drops its head, which has the highest priority."""
    queue = declare(max_priority=10, max_length=2)
    published(channel, queue, 5, 1, 1)

    assert take_bodies(channel, queue) == [b"1", b"2"]

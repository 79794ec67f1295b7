"""Time to live, maximum length, priorities: what a queue throws out, and whom it serves first."""

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
def test_a_message_expires_by_its_queue(type, channel, declare, name):
    """It is a dead letter with the reason "expired"."""
    dead = name("dead")
    queue = declare(dead, type, message_ttl=20)
    publish(channel, queue, b"hello")

    _, properties, _ = get(channel, dead)
    assert properties.headers["x-first-death-reason"] == "expired"
    assert ready_count(channel, queue) == 0


@TYPES
def test_a_message_expires_by_itself(type, channel, declare, name):
    """The property "expiration"; it is taken off the dead letter, which has it as a note."""
    dead = name("dead")
    queue = declare(dead, type)
    publish(channel, queue, b"hello", expiration="20")

    _, properties, _ = get(channel, dead)
    assert properties.expiration is None
    assert properties.headers["x-death"][0]["original-expiration"] == "20"


@pytest.mark.parametrize(("ttl", "expiration"), [(20, "60000"), (60_000, "20")])
def test_the_shorter_time_counts(ttl, expiration, channel, declare, name):
    """Of the queue's and the message's own."""
    dead = name("dead")
    queue = declare(dead, message_ttl=ttl)
    publish(channel, queue, b"hello", expiration=expiration)

    assert get(channel, dead)[2] == b"hello"


def test_messages_expire_at_the_head_only(channel, declare, name):
    """One behind one that lives longer stays, and is dropped when its turn comes."""
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


def test_a_message_that_is_held_does_not_expire(channel, declare, name):
    """It does when it is given back."""
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
def test_a_time_of_zero_without_a_consumer(type, channel, declare, name):
    """The message is dead at once."""
    dead = name("dead")
    queue = declare(dead, type, message_ttl=0)
    publish(channel, queue, b"hello")

    assert get(channel, dead)[2] == b"hello"


def test_a_time_of_zero_with_a_consumer(channel, declare, name):
    """The message is delivered if somebody can take it."""
    dead = name("dead")
    queue = declare(dead, message_ttl=0)
    consumer = RecordingConsumer(channel, queue)
    publish(channel, queue, b"hello")

    assert consumer.wait(1) == [b"hello"]
    assert ready_count(channel, dead) == 0


def test_an_expired_message_without_a_dead_letter_exchange(channel, declare):
    """Is gone."""
    queue = declare(message_ttl=10)
    publish(channel, queue, b"hello")

    wait_until(channel, lambda: ready_count(channel, queue) == 0)


def test_time_counts_anew_in_the_next_queue(channel, declare, name):
    """A chain of two queues takes the time of both."""
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
def test_a_full_queue_drops_its_oldest(type, channel, declare):
    """drop-head is what a queue does that was told nothing else."""
    queue = declare(type=type, max_length=2)
    publish(channel, queue, b"0", b"1", b"2", b"3")

    assert take_bodies(channel, queue) == [b"2", b"3"]


@TYPES
def test_what_a_full_queue_drops_is_a_dead_letter(type, channel, declare, name):
    """With the reason "maxlen"."""
    dead = name("dead")
    queue = declare(dead, type, max_length=1)
    publish(channel, queue, b"0", b"1")

    _, properties, body = get(channel, dead)
    assert (properties.headers["x-first-death-reason"], body) == ("maxlen", b"0")


def test_a_queue_that_holds_nothing(channel, declare, name):
    """A length of 0: everything goes on as a dead letter."""
    dead = name("dead")
    queue = declare(dead, max_length=0)
    publish(channel, queue, b"hello")

    assert get(channel, dead)[2] == b"hello"
    assert ready_count(channel, queue) == 0


def test_a_length_in_bytes(channel, declare):
    """Counts bodies."""
    queue = declare(max_length_bytes=10)
    publish(channel, queue, b"aaaa", b"bbbb", b"cccc")

    assert take_bodies(channel, queue) == [b"bbbb", b"cccc"]


def test_a_length_in_bytes_is_of_what_is_ready(channel, declare):
    """What somebody holds does not count."""
    queue = declare(max_length_bytes=10)
    publish(channel, queue, b"aaaa")
    get(channel, queue, auto_ack=False)
    publish(channel, queue, b"bbbb", b"cccc")

    assert take_bodies(channel, queue) == [b"bbbb", b"cccc"]


def test_both_lengths(channel, declare):
    """Whichever is reached first."""
    queue = declare(max_length=2, max_length_bytes=10)
    publish(channel, queue, b"a", b"b", b"c")
    assert take_bodies(channel, queue) == [b"b", b"c"]

    publish(channel, queue, b"aaaaaaa", b"bbbbbbb")
    assert take_bodies(channel, queue) == [b"bbbbbbb"]


def test_a_message_that_is_held_takes_no_place(channel, declare):
    """Only what is ready is counted."""
    queue = declare(max_length=1)
    publish(channel, queue, b"held")
    get(channel, queue, auto_ack=False)
    publish(channel, queue, b"ready")

    assert take_bodies(channel, queue) == [b"ready"]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_refuses(overflow, channel, declare):
    """The publisher gets a nack, and what is there stays."""
    queue = declare(max_length=1, overflow=overflow)
    publish(channel, queue, b"first")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", queue, b"second")

    assert take_bodies(channel, queue) == [b"first"]


@pytest.mark.parametrize(("overflow", "kept"), [("reject-publish", 0), ("reject-publish-dlx", 1)])
def test_what_a_full_queue_refuses_is_a_dead_letter_if_asked_for(
    overflow, kept, channel, declare, name
):
    """With reject-publish-dlx only."""
    dead = name("dead")
    queue = declare(dead, max_length=1, overflow=overflow)
    publish(channel, queue, b"first")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", queue, b"second")

    wait_until(channel, lambda: ready_count(channel, dead) == kept)
    assert take_bodies(channel, dead) == [b"second"] * kept


def test_a_queue_that_refuses_takes_again_when_there_is_room(channel, declare):
    """One out, one in."""
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
    """Serves the highest first, and among equals the oldest."""
    queue = declare(max_priority=10)
    published(channel, queue, *priorities)

    assert take_bodies(channel, queue) == [b"%d" % n for n in order]


def test_a_queue_without_priorities(channel, declare):
    """Knows none."""
    queue = declare()
    published(channel, queue, 1, 9, 5)

    assert take_bodies(channel, queue) == [b"0", b"1", b"2"]


def test_a_message_with_priority_that_is_given_back(channel, declare):
    """Takes its place among its own."""
    queue = declare(max_priority=10)
    published(channel, queue, 5, 5, 1)
    tag = get(channel, queue, auto_ack=False)[0].delivery_tag
    publish(channel, queue, b"high", priority=9)
    channel.basic_nack(tag)
    wait_until(channel, lambda: ready_count(channel, queue) == 4)

    assert take_bodies(channel, queue) == [b"high", b"0", b"1", b"2"]


def test_what_a_full_queue_with_priorities_drops(channel, declare):
    """Its head: what it would have served first, so the highest priority."""
    queue = declare(max_priority=10, max_length=2)
    published(channel, queue, 5, 1, 1)

    assert take_bodies(channel, queue) == [b"1", b"2"]

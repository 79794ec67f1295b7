"""Queues: second and passive declarations, and who may use a queue.

`test_amqp_queue_arguments` has the arguments of a declaration.
"""

from __future__ import annotations

import pytest
from client import (
    RawConnection,
    RecordingConsumer,
    expect_error,
    get,
    publish,
    queue_exists,
    ready_count,
    wait_until,
)
from pika import spec

OK = 0
MINUTE = 60_000  # milliseconds

AGAIN = [
    ({}, {}, OK),
    ({"durable": True}, {"durable": True}, OK),
    ({"durable": True}, {"durable": False}, 406),
    ({"durable": True}, {"durable": True, "auto_delete": True}, 406),
    ({"durable": True}, {"durable": True, "exclusive": True}, 405),
    ({"exclusive": True}, {"exclusive": True}, OK),
    ({"exclusive": True}, {"exclusive": False}, 405),
    ({"x-message-ttl": MINUTE}, {"x-message-ttl": MINUTE}, OK),
    ({"x-message-ttl": MINUTE}, {"x-message-ttl": MINUTE + 1}, 406),
    ({"x-message-ttl": MINUTE}, {}, 406),
    ({}, {"x-message-ttl": MINUTE}, 406),
    ({"x-expires": MINUTE}, {"x-expires": MINUTE + 1}, 406),
    ({"x-max-length": 5}, {"x-max-length": 6}, 406),
    ({"x-max-length-bytes": 5}, {}, 406),
    ({"x-max-priority": 5}, {"x-max-priority": 4}, 406),
    ({"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, 406),
    ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "b"}, 406),
    ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "a",
                                       "x-dead-letter-routing-key": "k"}, 406),
    ({"x-single-active-consumer": True}, {}, 406),
    ({"x-banana": 1}, {"x-banana": 2}, OK),
    ({"x-banana": 1}, {}, OK),
]  # fmt: skip


def split(options):
    """Separate the arguments of AMQP from the flags; a queue is durable by default."""
    flags = {key: value for key, value in options.items() if not key.startswith("x-")}
    arguments = {key: value for key, value in options.items() if key.startswith("x-")}
    return {"durable": not flags.get("exclusive", False)} | flags | {"arguments": arguments}


@pytest.mark.parametrize(
    ("first", "second", "outcome"), AGAIN,
    ids=[f"{one} then {two}: {code or 'accepted'}" for one, two, code in AGAIN],
)  # fmt: skip
def test_a_second_declaration(first, second, outcome, channel, name):
    """It changes nothing if all is equal.

    It fails with 406 if not, and with 405 if one is exclusive.
    """
    queue = name()
    channel.queue_declare(queue, **split(first))

    if outcome == OK:
        assert channel.queue_declare(queue, **split(second)).method.queue == queue
    else:
        with expect_error(outcome):
            channel.queue_declare(queue, **split(second))


def test_the_error_names_the_argument(channel, queue):
    """The text of the 406 has the argument, the received and the current value."""
    text = f"inequivalent arg 'x-message-ttl' for queue '{queue}' in vhost '/'"
    with expect_error(406, text=text):
        channel.queue_declare(queue, durable=True, arguments={"x-message-ttl": 5})


def test_a_passive_declaration_returns_the_counts(channel, queue):
    """It returns the numbers of ready messages and of consumers."""
    publish(channel, queue, b"one", b"two")

    answer = channel.queue_declare(queue, passive=True).method

    assert (answer.message_count, answer.consumer_count) == (2, 0)


def test_a_passive_declaration_compares_nothing(channel, queue):
    """A passive declaration only looks for the name."""
    channel.queue_declare(queue, passive=True, durable=False, arguments={"x-message-ttl": 5})


def test_a_passive_declaration_counts_consumers(channel, queue):
    """A consumer counts as soon as it has its consume-ok."""
    RecordingConsumer(channel, queue)

    assert channel.queue_declare(queue, passive=True).method.consumer_count == 1


def test_a_passive_declaration_does_not_count_unacked_messages(channel, queue):
    """Only ready messages count."""
    publish(channel, queue, b"one", b"two")
    get(channel, queue, auto_ack=False)

    assert ready_count(channel, queue) == 1


MISSING = {
    "declare passively": lambda channel, queue: channel.queue_declare(queue, passive=True),
    "consume": lambda channel, queue: channel.basic_consume(queue, print),
    "get": lambda channel, queue: channel.basic_get(queue),
    "purge": lambda channel, queue: channel.queue_purge(queue),
    "bind": lambda channel, queue: channel.queue_bind(queue, "amq.topic", "k"),
}


@pytest.mark.parametrize("word", MISSING)
def test_using_a_missing_queue(word, channel):
    """It fails with 404, and the channel closes."""
    with expect_error(404, text="no queue 'conformance.nowhere' in vhost '/'"):
        MISSING[word](channel, "conformance.nowhere")


def test_deleting_a_missing_queue(channel):
    """Deleting a queue that does not exist succeeds."""
    assert channel.queue_delete("conformance.nowhere").method.message_count == 0


def test_unbinding_a_missing_queue(channel, target):
    """Unbinding a queue that does not exist succeeds."""
    channel.queue_unbind("conformance.nowhere", "amq.topic", "k")
    assert channel.is_open


@pytest.mark.parametrize("word", [*MISSING, "delete", "declare"])
def test_an_exclusive_queue_of_another_connection(word, channel, connect, name):
    """Every operation of another connection on it fails with 405."""
    queue = name()
    connect().channel().queue_declare(queue, exclusive=True)
    acts = MISSING | {
        "delete": lambda channel, queue: channel.queue_delete(queue),
        "declare": lambda channel, queue: channel.queue_declare(queue, exclusive=True),
    }

    with expect_error(405, text="cannot obtain exclusive access to locked queue"):
        acts[word](channel, queue)


def test_a_missing_exchange_is_checked_before_the_owner(channel, connect, name):
    """A bind fails with 404, even if the queue is exclusive to another connection."""
    queue = name()
    connect().channel().queue_declare(queue, exclusive=True)

    with expect_error(404, text="no exchange"):
        channel.queue_bind(queue, name("nowhere"))


def test_unbinding_an_exclusive_queue_of_another_connection(channel, connect, name):
    """It fails with 405 if the binding exists, and succeeds if it does not."""
    queue = name()
    owner = connect().channel()
    owner.queue_declare(queue, exclusive=True)
    owner.queue_bind(queue, "amq.direct", "k")
    channel.queue_unbind(queue, "amq.direct", "another")

    with expect_error(405, text="cannot obtain exclusive access to locked queue"):
        channel.queue_unbind(queue, "amq.direct", "k")


def test_any_connection_publishes_to_an_exclusive_queue(channel, connect, name):
    """Exclusive limits who consumes, and not who publishes."""
    queue = name()
    owner = connect().channel()
    owner.queue_declare(queue, exclusive=True)
    publish(channel, queue, b"hello")

    assert get(owner, queue)[2] == b"hello"


def test_an_exclusive_queue_is_deleted_with_its_connection(channel, connect, name):
    """The broker deletes it when the connection is closed."""
    queue = name()
    owner = connect()
    owner.channel().queue_declare(queue, exclusive=True)
    owner.close()

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_exclusive_queue_is_deleted_with_a_lost_connection(channel, connect_raw, name):
    """The broker deletes it when the socket is closed without a connection.close."""
    queue = name()
    lost: RawConnection = connect_raw()
    lost.call(spec.Queue.Declare(queue=queue, exclusive=True), spec.Queue.DeclareOk)
    lost.hang_up()

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_exclusive_queue_stays_after_its_channel(channel, connect, name):
    """It belongs to the connection."""
    queue = name()
    owner = connect()
    first = owner.channel()
    first.queue_declare(queue, exclusive=True)
    first.close()

    owner.channel().queue_declare(queue, passive=True)


def test_declaring_with_nowait(channel, name, connect):
    """No answer comes, and the queue exists."""
    queue = name()
    channel._impl.queue_declare(queue, durable=True, callback=None)

    channel.queue_declare(queue, passive=True)

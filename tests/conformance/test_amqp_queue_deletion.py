"""Purging and deleting queues: on request, with the last consumer, and by expiry."""

from __future__ import annotations

import time

import pytest
from client import (
    CONNECTION,
    QUORUM,
    RecordingConsumer,
    expect_error,
    get,
    publish,
    queue_exists,
    ready_count,
    take_bodies,
    wait_until,
)
from pika import spec


def test_purge_returns_the_message_count(channel, queue):
    """The ready messages are dropped."""
    publish(channel, queue, b"one", b"two", b"three")

    assert channel.queue_purge(queue).method.message_count == 3
    assert ready_count(channel, queue) == 0


def test_purge_leaves_unacked_messages(channel, queue):
    """An unacked message is not ready."""
    publish(channel, queue, b"held", b"ready")
    method, _, _ = get(channel, queue, auto_ack=False)

    assert channel.queue_purge(queue).method.message_count == 1
    channel.basic_nack(method.delivery_tag)
    assert get(channel, queue)[2] == b"held"


def test_delete_returns_the_message_count(channel, queue):
    """The messages are dropped with the queue."""
    publish(channel, queue, b"one", b"two")

    assert channel.queue_delete(queue).method.message_count == 2


def test_delete_if_unused_with_a_consumer(channel, queue):
    """It fails with 406, and the queue stays."""
    RecordingConsumer(channel, queue)
    with expect_error(406, text="in use"):
        channel.queue_delete(queue, if_unused=True)

    assert queue_exists(channel.connection, queue)


def test_delete_if_unused_without_a_consumer(channel, queue):
    """It deletes the queue."""
    channel.queue_delete(queue, if_unused=True)

    assert not queue_exists(channel.connection, queue)


def test_delete_if_empty_with_a_message(channel, queue):
    """It fails with 406, and the message stays."""
    publish(channel, queue, b"hello")
    with expect_error(406):
        channel.queue_delete(queue, if_empty=True)

    assert queue_exists(channel.connection, queue)


def test_delete_if_empty_without_a_message(channel, queue):
    """It deletes the queue."""
    channel.queue_delete(queue, if_empty=True)

    assert not queue_exists(channel.connection, queue)


@pytest.mark.parametrize("option", ["if_unused", "if_empty"])
def test_a_quorum_queue_is_deleted_without_conditions_only(option, channel, name):
    """Deleting it with a condition fails with 540."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=QUORUM)

    with expect_error(540, CONNECTION):
        channel.queue_delete(queue, **{option: True})


def test_deleting_a_queue_removes_its_bindings(channel, name):
    """A new queue with the same name has no bindings."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, "amq.direct", queue)
    channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    publish(channel, queue, b"hello", exchange="amq.direct", mandatory=False)

    assert take_bodies(channel, queue) == []


def test_an_auto_delete_queue_is_deleted_with_its_last_consumer(channel, name):
    """Cancelling the first of two consumers leaves it."""
    queue = name()
    channel.queue_declare(queue, durable=True, auto_delete=True)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)

    channel.basic_cancel(one.tag)
    assert queue_exists(channel.connection, queue)
    channel.basic_cancel(two.tag)
    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_auto_delete_queue_is_deleted_with_its_channel(channel, connect, name):
    """Closing the channel ends the consumer."""
    queue = name()
    other = connect().channel()
    other.queue_declare(queue, durable=True, auto_delete=True)
    RecordingConsumer(other, queue)
    other.close()

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_auto_delete_queue_stays_until_it_had_a_consumer(channel, name):
    """A basic.get is not a consumer."""
    queue = name()
    channel.queue_declare(queue, durable=True, auto_delete=True)
    publish(channel, queue, b"hello")
    get(channel, queue)

    assert queue_exists(channel.connection, queue)


def test_an_unused_queue_expires(channel, name):
    """The broker deletes it x-expires milliseconds after its last use."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments={"x-expires": 30})

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_a_queue_with_messages_expires(channel, connect, name):
    """Messages do not count as use, and they are not dead-lettered."""
    queue, dead = name(), name("dead")
    channel.queue_declare(dead, durable=True)
    arguments = {"x-expires": 100, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    publish(channel, queue, b"hello")

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))
    assert ready_count(channel, dead) == 0


def test_a_queue_with_a_consumer_does_not_expire(channel, name):
    """It still exists when a queue that was declared later has expired."""
    queue, beside = name(), name("beside")
    channel.queue_declare(queue, durable=True, arguments={"x-expires": 60})
    RecordingConsumer(channel, queue)
    channel.queue_declare(beside, durable=True, arguments={"x-expires": 120})

    wait_until(channel, lambda: not queue_exists(channel.connection, beside))
    channel.connection.process_data_events(0)
    assert queue_exists(channel.connection, queue)


# (type of queue, whether the client waits for the answer, whether the declaration is a use)
DECLARATIONS = [("classic", True, True), ("classic", False, False), ("quorum", True, False)]


@pytest.mark.parametrize(("kind", "waits", "is_use"), DECLARATIONS)
def test_a_declaration_renews_x_expires_of_a_classic_queue(connect_raw, name, kind, waits, is_use):
    """Only if the client waits for the answer; a quorum queue's is never renewed."""
    raw, queue = connect_raw(), name()
    arguments = {"x-expires": 600, "x-queue-type": kind}
    declare = spec.Queue.Declare(queue=queue, durable=True, nowait=not waits, arguments=arguments)
    witness = spec.Queue.Declare(queue=queue, durable=True, arguments=arguments)
    raw.call(witness, spec.Queue.DeclareOk)
    raw.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
    raw.publish(queue)
    raw.expect(spec.Basic.Ack)
    # RabbitMQ looks at a quorum queue every five seconds
    until, counts = time.monotonic() + (1.5 if kind == "classic" else 12), [1]
    while time.monotonic() < until:  # a queue that expires meanwhile is made again, without it
        raw.send(declare)
        if waits:
            counts.append(raw.expect(spec.Queue.DeclareOk).message_count)
        if 1 in counts[1:] and counts[-1] == 0:
            break
        time.sleep(0.1)  # the time itself is the subject

    kept = raw.call(witness, spec.Queue.DeclareOk).message_count

    assert kept == is_use

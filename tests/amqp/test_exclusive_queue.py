"""The exclusive queue of a connection: it receives from an exchange, and goes with it."""

from __future__ import annotations

import threading

import pytest
from pika import BasicProperties
from support.waiting import wait_for

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.exclusive_queue import ExclusiveQueue
from mousetrap.job_queue import depths, open_channel
from mousetrap.model.topology import Queue
from mousetrap.runtime import randomness


class Received:
    """Keeps the messages, each with its reply-to, and the number of changes."""

    def __init__(self):
        self.messages = []
        self.changes = 0

    def message(self, body, reply_to):
        self.messages.append((body, reply_to, threading.current_thread().name))

    def change(self):
        self.changes += 1


@pytest.fixture
def received():
    return Received()


@pytest.fixture
def consume(received):
    """Open a consumer with an exclusive queue whose name starts with *stem*."""
    opened = []

    def consume(settings, stem):
        queue = ExclusiveQueue(
            stem, settings.topology.events_exchange, "a.key", ttl=2000,
            on_message=received.message, on_change=received.change,
        )  # fmt: skip
        topology = settings.topology
        consumer = Consumer(
            settings, topology.wire_name("work"), 10, topology.declarations(Queue("work", ())),
            on_delivery=lambda _: None, on_failed=lambda _: None, exclusive_queue=queue,
        )  # fmt: skip
        opened.append(consumer)
        consumer.open()
        return consumer, queue

    yield consume
    for consumer in opened:
        consumer.close(5)


def exists(settings, name):
    return depths([name], settings.replace(namespace="")) != [None]


def test_exclusive_queue_receives_what_is_published_with_its_key(settings, consume, received):
    """The body and the reply-to, on the I/O thread; messages with another key are not received."""
    _, queue = consume(settings, settings.topology.wire_name("work.who."))
    wait_for(lambda: queue.name)
    with open_channel(settings) as channel:
        for key in ("another.key", "a.key"):
            properties = BasicProperties(reply_to=f"for {key}")
            exchange = settings.topology.events_exchange
            channel.basic_publish(exchange, key, key.encode(), properties)
    wait_for(lambda: received.messages)

    [(body, reply_to, thread)] = received.messages
    assert (body, reply_to) == (b"a.key", "for a.key")
    assert thread.startswith("mousetrap-io")
    assert received.changes == 1
    assert not queue.is_refused


def test_exclusive_queue_is_deleted_with_its_connection(settings, consume):
    """The broker deletes it."""
    consumer, queue = consume(settings, settings.topology.wire_name("work.who."))
    name = wait_for(lambda: queue.name)
    assert name.startswith(settings.topology.wire_name("work.who."))
    consumer.close(5)

    wait_for(lambda: not exists(settings, name))


def test_exclusive_queue_is_opened_again_after_a_reconnect(proxy, consume):
    """With a new name, on the new connection."""
    _, queue = consume(proxy.settings, proxy.settings.topology.wire_name("work.who."))
    before = wait_for(lambda: queue.name)
    proxy.cut()

    wait_for(lambda: queue.name not in ("", before))


def test_refused_exclusive_queue_does_not_affect_the_consumer(settings, consume, received):
    """The broker refuses names that start with amq.: that closes the queue's channel only."""
    consumer, queue = consume(settings, f"amq.forbidden.{randomness.new_id()}")
    wait_for(lambda: queue.is_refused)

    assert queue.name == ""
    assert "ACCESS_REFUSED" in str(queue.refusal)
    assert received.changes == 1
    assert consumer.count(10) == 1
    assert (consumer.connection.state, consumer.connection.reconnects) == ("open", 0)

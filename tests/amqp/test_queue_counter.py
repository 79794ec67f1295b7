"""The depth of queues, asked over a connection that is open for something else."""

from __future__ import annotations

import threading

import pytest

from mousetrap.amqp import queue_counter
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.queue_counter import QueueCounter
from mousetrap.amqp.queue_depth import Depth
from mousetrap.errors import ConnectionLost
from mousetrap.job_queue import declare, open_channel
from mousetrap.model.message import Message

TIMEOUT = 20.0  # seconds for an answer that comes


@pytest.fixture
def publisher(proxy):
    """Its connection goes through the proxy."""
    with Publisher(proxy.settings) as publisher:
        yield publisher


@pytest.fixture
def counter(publisher):
    return QueueCounter(publisher.connection)


def test_read_gives_messages_and_consumers_of_each_queue(counter, proxy, settings):
    """None for a queue that does not exist; no connection is opened for the question."""
    declare("one", "two", settings=settings)
    before = proxy.connections
    with open_channel(settings) as channel:
        channel.basic_publish("", settings.topology.wire_name("one"), b"x")
        channel.basic_consume(settings.topology.wire_name("two"), print)
        found = counter.read(["one", "nowhere", "two", "nowhere"], TIMEOUT)

    assert found == {"one": Depth("one", 1, 0), "nowhere": None, "two": Depth("two", 0, 1)}
    assert proxy.connections == before


def test_connection_goes_on_after_questions_for_missing_queues(counter, publisher, settings):
    """The broker closes a channel for each of them, and none of these is the publisher's."""
    declare("one", settings=settings)
    for _ in range(20):
        assert counter.read(["nowhere", "one", "neither"], TIMEOUT)["nowhere"] is None

    assert publisher.publish(Message("x"), "one").wait(TIMEOUT).confirmed
    assert publisher.connection.reconnects == 0


def test_more_queues_than_channels(counter, settings):
    """The channels are used again; the answers of threads that ask together are not mixed up."""
    names = [f"queue-{n}" for n in range(2 * queue_counter.MAX_CHANNELS)]
    declare(*names[1::2], settings=settings)
    expected = {name: Depth(name, 0, 0) if n % 2 else None for n, name in enumerate(names)}
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(counter.read(names, TIMEOUT)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(TIMEOUT)

    assert answers == [expected] * 4


def test_silent_broker_is_an_error_within_the_timeout(counter, proxy, settings):
    """And not a wait until the heartbeats fail."""
    declare("one", settings=settings)
    proxy.hold()
    with pytest.raises(ConnectionLost, match=r"did not say within 0\.2 s"):
        counter.read(["one"], 0.2)
    proxy.release()

    assert counter.read(["one"], TIMEOUT) == {"one": Depth("one", 0, 0)}


def test_no_answer_without_a_connection(counter, publisher):
    """At once, so that the caller can ask in another way."""
    publisher.close()

    assert counter.read(["one"], TIMEOUT) is None


def test_connection_that_breaks_meanwhile_ends_the_question(counter, publisher, proxy, settings):
    """Long before the timeout; after the reconnect the counter works again."""
    declare("one", settings=settings)
    proxy.hold()
    cut = threading.Timer(0.2, lambda: (proxy.cut(), proxy.release()))
    cut.start()
    with pytest.raises(ConnectionLost, match="broke"):
        counter.read(["one"], TIMEOUT)
    cut.join(TIMEOUT)
    assert publisher.publish(Message("x"), "one").wait(TIMEOUT).confirmed

    assert counter.read(["one"], TIMEOUT) == {"one": Depth("one", 1, 0)}

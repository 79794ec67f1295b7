"""Making the broker look for overdue acks: when that is done, and that it takes no message away.

That RabbitMQ then takes back what is overdue is tested in `tests/faults/test_faults_hang.py`.
"""

from __future__ import annotations

import pytest
from support.waiting import wait_for

from mousetrap.amqp import overdue_acks
from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.overdue_acks import quorum_queues
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue, Topology

WORK = Queue("work", ())


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch):
    monkeypatch.setattr(overdue_acks, "INTERVAL", 0.05)


@pytest.fixture
def received():
    return []


@pytest.fixture
def settings(settings):
    """Quorum queues, and the queue work is there."""
    settings = settings.replace(queue_type="quorum")
    declare(WORK, settings=settings)
    return settings


@pytest.fixture
def consumer(proxy, received):
    """A consumer of the queue work that takes one message at a time, through the proxy."""
    settings = proxy.settings
    work = settings.topology.wire_name("work")
    consumer = Consumer(
        settings, work, 1, settings.topology.declarations(WORK),
        on_delivery=received.append, on_failed=received.append,
    )  # fmt: skip
    yield consumer
    consumer.close(5)


def send(settings, *ids):
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(id, id=id) for id in ids], "work")


def nothing():
    """Let the method pass."""


def test_queue_without_ready_messages_is_asked_while_one_is_held(
    proxy, settings, consumer, received
):
    """Again and again; nothing comes of it."""
    asked = proxy.at("Basic.Get", number=3, action=nothing)
    send(settings, "a")
    consumer.open()
    asked.wait()

    assert [each.body for each in received] == [b'"a"']


def test_queue_with_ready_messages_is_not_asked(proxy, settings, consumer, received):
    """What waits there is for whoever takes it next."""
    send(settings, "a", "b")
    asked = proxy.at("Basic.Get", action=nothing)
    consumer.open()
    wait_for(lambda: received)
    looked = proxy.at("Queue.Declare", number=4, action=nothing)
    looked.wait()

    assert not asked.triggered.is_set()
    assert [each.body for each in received] == [b'"a"']


def test_message_that_comes_in_between_is_delivered(proxy, settings, consumer, received):
    """It is published after the queue was empty, and acked like any other."""
    proxy.at("Basic.Get", action=lambda: send(settings, "b"))
    send(settings, "a")
    consumer.open()
    wait_for(lambda: len(received) == 2)
    consumer.ack(*received)
    wait_for(lambda: not consumer.unacked)

    assert [each.body for each in received] == [b'"a"', b'"b"']
    assert depth("work", settings).messages == 0


def test_only_queues_that_are_declared_as_quorum_queues_are_asked():
    """Others have no such timer, or may have a single active consumer."""
    names = ["work", "elsewhere"]

    assert quorum_queues(Topology("", "quorum").declarations(WORK), names) == ["work"]
    assert quorum_queues(Topology("", "classic").declarations(WORK), names) == []

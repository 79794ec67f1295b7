"""Reading dead letters does not make a quorum queue drop them at its delivery limit."""

from __future__ import annotations

import pika
import pytest
from support.waiting import wait_for

from mousetrap import Message, dead, declare, depth, open_channel
from mousetrap.amqp.properties import NEAR_DELIVERY_LIMIT
from mousetrap.amqp.publisher import Publisher
from mousetrap.model.topology import Queue


def test_dead_does_not_reach_the_delivery_limit_of_a_quorum_queue(settings):
    """The limit is 20; a dead letter is still there after it was read thirty times."""
    settings = settings.replace(queue_type="quorum")
    queue = Queue("work", ())
    declare(queue, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(n, id=f"m{n}") for n in range(3)], queue.dead)

    for _ in range(30):
        seen = dead(queue, settings=settings)

    assert [each.id for each in seen] == ["m0", "m1", "m2"]
    assert len(seen.replay(limit=1)) == 1


def reach_delivery_limit(queue, settings, **properties):
    """Reject one message until it is near the delivery limit; return its properties."""
    name = settings.topology.wire_name(queue.dead)
    with open_channel(settings) as channel:
        channel.basic_publish("", name, b"0", pika.BasicProperties(delivery_mode=2, **properties))
        for _ in range(NEAR_DELIVERY_LIMIT):
            wait_for(lambda: depth(queue.dead, settings).messages == 1)
            method, sent, _ = channel.basic_get(name)
            channel.basic_reject(method.delivery_tag)
    wait_for(lambda: depth(queue.dead, settings).messages == 1)
    return sent


@pytest.mark.local
def test_dead_lists_a_message_near_the_limit_when_the_broker_accepts_no_copy(node):
    """The copy cannot be published within the deadline, and the dead letter stays."""
    settings = node.settings.replace(queue_type="quorum")
    queue = Queue("work", ())
    declare(queue, settings=settings)
    reach_delivery_limit(queue, settings, message_id="m0")
    node.rabbitmqctl("set_vm_memory_high_watermark", "absolute", "1")

    assert [each.id for each in dead(queue, settings=settings)] == ["m0"]
    wait_for(lambda: depth(queue.dead, settings).messages == 1)


def test_dead_replaces_a_message_near_the_limit_by_an_equal_copy(settings):
    """Only the broker's count differs, and perhaps the place in the queue."""
    settings = settings.replace(queue_type="quorum")
    queue = Queue("work", ())
    declare(queue, settings=settings)
    name = settings.topology.wire_name(queue.dead)
    headers = {
        "mousetrap-reason": "why", "mine": 1, "mousetrap-attempt": 3, "mousetrap-job": "m0"
    }  # fmt: skip
    others = {"correlation_id": "c", "priority": 3, "content_type": "text/plain", "timestamp": 9}
    sent = reach_delivery_limit(queue, settings, message_id="m0", headers=headers, **others)
    with open_channel(settings) as channel, Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(1, id="m1")], queue.dead)

        assert [each.id for each in dead(queue, settings=settings)] == ["m0", "m1"]
        wait_for(lambda: depth(queue.dead, settings).messages == 2)

        got = [channel.basic_get(name, auto_ack=True) for _ in range(2)]
    method, again, body = min(got, key=lambda each: each[1].message_id)
    assert (body, method.redelivered) == (b"0", False)
    assert again.headers.pop("x-delivery-count", 0) == 0
    assert again.headers == headers
    assert vars(again) == vars(sent) | {"headers": headers}

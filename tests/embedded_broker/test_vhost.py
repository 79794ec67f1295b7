"""Queues and routing inside one virtual host, with a clock that the tests move."""

from __future__ import annotations

import asyncio

import pytest

from mousetrap.embedded_broker import arguments as queue_arguments
from mousetrap.embedded_broker.clock import Clock
from mousetrap.embedded_broker.exchange import Binding, Exchange
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.message import Message
from mousetrap.embedded_broker.queue import Queue
from mousetrap.embedded_broker.vhost import VirtualHost


class Memory:
    """Adds up what the virtual host counts."""

    used = 0

    def count(self, change):
        self.used += change


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def vhost(memory):
    loop = asyncio.new_event_loop()
    clock = Clock(loop, monotonic=lambda: 0.0, wall=lambda: 0.0)
    yield VirtualHost("/", clock, Limits(), memory.count, lambda: "token")
    loop.close()


def declare(vhost, name, **given):
    given = {f"x-{key.replace('_', '-')}": value for key, value in given.items()}
    queue = Queue(
        vhost, name, durable=True, auto_delete=False, owner=None, given=given,
        arguments=queue_arguments.parse(given, name, vhost.name),
    )  # fmt: skip
    vhost.queues[name] = queue
    return queue


def message(body=b"", exchange="", routing_key=""):
    return Message(exchange, routing_key, b"\0\0", body)


def test_memory_is_counted_until_the_ack(vhost, memory):
    """A message counts while it is ready and while it is unacked."""
    queue = declare(vhost, "q")
    hello = message(b"hello")
    queue.publish(hello)
    queued = queue.get()
    assert memory.used == hello.size

    queue.ack([queued])

    assert memory.used == 0


def test_an_expired_message_is_dead_lettered_at_its_time(vhost, memory):
    """The message moves when the clock reaches its TTL, with its history."""
    dead = declare(vhost, "dead")
    ttl = {"message_ttl": 1_000, "dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
    queue = declare(vhost, "q", **ttl)
    queue.publish(message(b"hello"))

    vhost.clock.advance(0.9)
    assert (queue.ready, dead.ready) == (1, 0)
    vhost.clock.advance(0.1)
    assert (queue.ready, dead.ready) == (0, 1)

    [death] = dead.get().message.headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == ("q", "expired", 1)


def test_an_automatic_dead_letter_cycle_ends(vhost, memory):
    """A queue that expires into itself drops the message and frees its memory."""
    ttl = {"message_ttl": 0, "dead_letter_exchange": "", "dead_letter_routing_key": "q"}
    queue = declare(vhost, "q", **ttl)
    queue.publish(message(b"hello"))

    assert (queue.ready, memory.used) == (0, 0)


def test_exchanges_bound_in_a_cycle_route_once(vhost):
    """Routing visits each exchange once and returns each queue once."""
    queue = declare(vhost, "q")
    for name in ("x", "y"):
        vhost.exchanges[name] = Exchange(name, "fanout")
        vhost.bind(Binding(name, "queue", "q", ""))
    vhost.bind(Binding("x", "exchange", "y", ""))
    vhost.bind(Binding("y", "exchange", "x", ""))

    assert vhost.route(message(exchange="x")) == [queue]


def test_deleting_a_queue_removes_its_bindings_from_every_exchange(vhost, memory):
    """No binding points to a deleted queue, and its messages no longer count."""
    queue = declare(vhost, "q")
    vhost.bind(Binding("amq.fanout", "queue", "q", ""))
    vhost.bind(Binding("amq.topic", "queue", "q", "#"))
    queue.publish(message(b"hello"))

    assert vhost.delete_queue(queue) == 1
    assert vhost.bindings() == []
    assert memory.used == 0


@pytest.mark.parametrize("obstacle", ["full", "missing"])
def test_a_dead_letter_waits_until_its_target_accepts_it(vhost, memory, obstacle):
    """With at-least-once dead-lettering, a full or missing target loses nothing."""
    limit = {"max_length": 1, "overflow": "reject-publish"} if obstacle == "full" else {}
    target = declare(vhost, "target", **limit)
    source = declare(
        vhost, "q", queue_type="quorum", message_ttl=1_000, overflow="reject-publish",
        dead_letter_exchange="", dead_letter_routing_key="target",
        dead_letter_strategy="at-least-once",
    )  # fmt: skip
    if obstacle == "full":
        target.publish(message(b"before"))
    else:
        vhost.delete_queue(target)
    source.publish(message(b"late"))
    vhost.clock.advance(8)
    assert (source.ready, target.ready) == (0, 1 if obstacle == "full" else 0)
    assert memory.used > 0

    if obstacle == "full":
        target.ack([target.get()])
    else:
        target = declare(vhost, "target")
    vhost.clock.advance(6)
    late = target.get()

    assert late.message.body == b"late"
    assert late.message.headers["x-death"][0]["count"] == 1
    target.ack([late])
    assert memory.used == 0


def test_a_deleted_queue_keeps_no_dead_letters(vhost, memory):
    """What waited for its target is gone with the queue that kept it."""
    source = declare(
        vhost, "q", queue_type="quorum", message_ttl=1_000, overflow="reject-publish",
        dead_letter_exchange="", dead_letter_routing_key="target",
        dead_letter_strategy="at-least-once",
    )  # fmt: skip
    source.publish(message(b"late"))
    vhost.clock.advance(2)
    vhost.delete_queue(source)
    target = declare(vhost, "target")
    vhost.clock.advance(6)

    assert (target.ready, memory.used) == (0, 0)

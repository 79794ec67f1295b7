"""Functions that declare, read, fill or empty a queue once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mousetrap import job_queue
from mousetrap.amqp import new_queues
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.errors import BrokerUnreachable, QueueMissing, TopologyMismatch
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import (
    declare,
    delete,
    depth,
    depths,
    drain,
    open_channel,
    peek,
    ping,
    purge,
)
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue


@pytest.fixture
def channel(settings):
    with open_channel(settings) as channel:
        yield channel


@pytest.fixture
def work(channel, settings):
    """A queue with three messages: 0, 1, 2."""
    declare("work", settings=settings)
    name = settings.topology.wire_name("work")
    channel.confirm_delivery()
    for n in range(3):
        channel.basic_publish("", name, str(n).encode())
    return name


def test_ping_is_a_round_trip(settings):
    """A live broker delivers the message."""
    assert 0 < ping(settings) < 3


def test_ping_without_a_broker_says_what_to_check(settings):
    """A closed port raises at once, with the variable to check."""
    with pytest.raises(BrokerUnreachable, match="RABBITMQ_PORT"):
        ping(settings.replace(host="127.0.0.1", port=1))


def test_peek_requeues_in_order(work, settings):
    """Peeking twice shows the same messages, and the queue still has all."""
    first, second = peek("work", 2, settings), peek("work", 9, settings)

    assert [m.data for m in first] == [0, 1]
    assert [m.data for m in second] == [0, 1, 2]
    assert depth("work", settings).messages == 3


def test_drain_takes_all_and_ends(work, settings):
    """Without limits it ends as soon as the queue is empty."""
    assert [m.data for m in drain("work", settings=settings)] == [0, 1, 2]
    assert drain("work", settings=settings) == []


def test_drain_passes_messages_on_in_another_thread(work, settings):
    """Only the main thread may change how signals are handled; a drain elsewhere does not."""
    seen = []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(drain, "work", settings=settings, on_message=seen.append).result()

    assert [message.data for message in seen] == [0, 1, 2]


def test_drain_takes_n_messages(work, settings):
    """With n it takes n, and the rest stays."""
    assert [m.data for m in drain("work", 2, settings=settings)] == [0, 1]
    assert depth("work", settings).messages == 1


def test_drain_waits_for_n_until_the_timeout(work, settings):
    """With too few messages in the queue it ends at its timeout and returns those."""
    started = time.monotonic()

    taken = drain("work", 5, timeout=0.5, settings=settings)

    assert len(taken) == 3
    assert 0.4 < time.monotonic() - started < 3


def test_drain_requeues_the_message_that_an_error_interrupts(work, settings):
    """A message is acked only after `on_message` has returned."""

    def breaks_at_one(message):
        if message.data == 1:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        drain("work", settings=settings, on_message=breaks_at_one)

    assert [m.data for m in drain("work", settings=settings)] == [1, 2]


@pytest.fixture
def full(settings):
    """A queue with a hundred messages, which `drain` takes many at a time."""
    declare("full", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed((Message(n) for n in range(100)), "full")


def test_drain_takes_many_in_order_and_leaves_the_rest(full, settings):
    """With a hundred messages it takes as many as asked for; the others keep their order."""
    assert [m.data for m in drain("full", 60, settings=settings)] == list(range(60))
    assert [m.data for m in peek("full", 100, settings)] == list(range(60, 100))
    assert [m.data for m in drain("full", settings=settings)] == list(range(60, 100))


def test_drain_ends_in_time_with_messages_left(full, settings):
    """It returns what it took, also if the broker's last answers need a while."""

    def take_long(_):
        time.sleep(0.1)

    with Proxy(settings) as proxy:
        proxy.delay(0.15)  # in each direction
        taken = drain(
            "full", timeout=4, settings=proxy.settings, on_message=lambda _: time.sleep(0.1)
        )
        proxy.delay(0)

    assert 0 < len(taken) < 100
    left = [m.data for m in drain("full", idle=0.5, settings=settings)]
    assert [m.data for m in taken] + left == list(range(100))


def test_drain_of_many_requeues_what_an_error_interrupts(full, settings):
    """Only messages for which `on_message` returned are acked; the exception has them."""

    def breaks_at_thirty(message):
        if message.data == 30:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError) as caught:
        drain("full", settings=settings, on_message=breaks_at_thirty)

    assert [m.data for m in caught.value.taken] == list(range(30))
    assert "taken out of full before this: 30 messages, in" in caught.value.__notes__[0]
    assert [m.data for m in drain("full", settings=settings)] == list(range(30, 100))


def test_drain_of_many_ends_at_its_timeout(full, settings):
    """With a slow reader, the messages that it did not take stay in the queue."""
    pause = threading.Event()

    taken = drain("full", timeout=1, settings=settings, on_message=lambda _: pause.wait(0.05))

    assert 10 < len(taken) < 60
    assert depth("full", settings).messages == 100 - len(taken)


def test_two_drains_share_a_queue(full, settings):
    """One does not wait for messages that the other has taken."""
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda _: drain("full", idle=0.2, settings=settings), range(2)))

    assert sorted(m.data for half in halves for m in half) == list(range(100))


def test_purge_says_how_many(work, settings):
    """`purge` returns the number of messages that it deleted."""
    assert purge("work", settings) == 3
    assert depth("work", settings).messages == 0


def test_depth_of_a_missing_queue_says_what_to_do(settings):
    """404 becomes an error that says what to do; `depths` has None for it and goes on."""
    declare("there", settings=settings)

    with pytest.raises(QueueMissing, match="declare"):
        depth("nowhere", settings)
    assert [d and d.queue for d in depths(["nowhere", "there"], settings)] == [None, "there"]


def test_declare_includes_retry_and_dead_queues(settings):
    """A `Queue` is declared and deleted with all queues that belong to it."""
    queue = Queue("work", retry_delays=(0.5, 2))

    declare(queue, settings=settings)
    assert all(depths(queue.names(), settings))
    delete(queue, settings=settings)
    assert not any(depths(queue.names(), settings))


def test_declare_refuses_a_queue_with_other_arguments(settings, channel):
    """Declaring twice is no error; the error for other arguments (406) names them."""
    declare("work", "work", settings=settings)
    name = settings.topology.wire_name("odd")
    ours = settings.topology.work_queue("odd").arguments
    channel.queue_declare(name, durable=True, arguments={**ours, "x-max-priority": 3})

    with pytest.raises(TopologyMismatch, match="x-max-priority"):
        declare("odd", settings=settings)
    channel.queue_delete(name)


def test_quorum_queues_are_a_setting(settings):
    """With ``queue_type='quorum'`` work, retry and dead queues are quorum queues and work."""
    quorum = settings.replace(queue_type="quorum")

    declare(Queue("work"), settings=quorum)

    with pytest.raises(TopologyMismatch, match=r"x-queue-type|x-expires"):
        declare("work", settings=settings)


def test_declare_returns_when_a_new_quorum_queue_survives_a_kill(anywhere, monkeypatch):
    """RabbitMQ would forget it at first. Retry queues do not count, and no queue that exists."""
    slept = []
    monkeypatch.setattr(new_queues, "NEW_QUEUE_TIME", 123.0)
    monkeypatch.setattr(job_queue.clock, "sleep", slept.append)

    declare(Queue("classic", (0.5,)), settings=anywhere)
    assert slept == []
    for _ in range(2):
        declare(Queue("work", (0.5,)), settings=anywhere.replace(queue_type="quorum"))

    is_rabbitmq = (probe.version(anywhere) or "").startswith("RabbitMQ")
    assert slept == ([123.0] if is_rabbitmq else [])

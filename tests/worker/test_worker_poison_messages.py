"""Possible poison messages in a worker: counted, moved to the quarantine queue, handled alone."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from support.waiting import wait_for

from mousetrap.amqp.properties import NEAR_DELIVERY_LIMIT
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.headers import LOSSES
from mousetrap.model.message import Message
from mousetrap.model.poison_messages import ALONE_FROM, MAX_LOSSES
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

WORK = Queue("work", ())


def send(settings, messages):
    declare(WORK, "out", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed(messages, "work")


def test_moved_message_is_handled_after_its_source_is_acked(settings, monkeypatch):
    """If it ended its worker before the ack, two copies of it would be left."""
    send(settings, [Message(1)])
    return_messages(settings)
    happened = []
    worker = Worker(WORK, lambda _: happened.append("begun"), settings)
    publish, ack = worker._publisher.publish, worker._consumer.ack

    def publish_late(*args, callback, **options):  # the confirm arrives half a second late
        later = worker._publisher.connection.call_later
        return publish(
            *args, callback=lambda receipt: later(0.5, lambda: callback(receipt)), **options
        )

    def ack_noted(delivery):
        happened.append("acked")
        ack(delivery)

    monkeypatch.setattr(worker._publisher, "publish", publish_late)
    monkeypatch.setattr(worker._consumer, "ack", ack_noted)
    with worker:
        worker.wait_until(done=1)

    assert happened == ["acked", "begun", "acked"]


def test_dead_lettered_poison_message_can_be_replayed(settings):
    """After the function was corrected, the replayed message is handled: its count starts at 0."""
    import mousetrap

    send(settings, [lost(MAX_LOSSES - 1)])
    return_messages(settings)
    with Worker(WORK, lambda n: n, settings, writes="out") as worker:
        worker.wait_until(dead=1)
        assert mousetrap.dead("work", settings=settings).replay() is not None
        worker.wait_until(done=1)

    assert len(drain("out", settings=settings)) == 1


def test_message_that_was_returned_is_handled(settings):
    """Messages that another client got and returned are handled like any other."""
    send(settings, [Message(n) for n in range(5)])
    return_messages(settings, 5)
    with Worker(WORK, lambda n: n, settings, writes="out") as worker:
        worker.wait_until(done=5)

    assert sorted(m.data for m in drain("out", settings=settings)) == [0, 1, 2, 3, 4]
    assert depth("work", settings).messages == 0


def test_message_that_this_process_peeked_at_keeps_its_place(settings):
    """A peek marks messages as redelivered; this process knows that no worker was lost."""
    import mousetrap

    send(settings, [Message(n) for n in range(9)])
    assert [m.data for m in mousetrap.peek("work", 4, settings)] == [0, 1, 2, 3]
    handled: list[int] = []
    with Worker(WORK, handled.append, settings) as worker:
        worker.wait_until(done=9)

    assert handled == list(range(9))


def test_possible_poison_message_goes_through_the_quarantine_queue(settings):
    """After two lost workers it is handled alone, and its result is like any other."""
    send(settings, [lost(ALONE_FROM - 1)])
    return_messages(settings)
    with Worker(WORK, lambda n: n, settings, writes="out") as worker:
        now = worker.wait_until(done=1)

    assert now.received == 2  # once from its queue, once from the quarantine queue
    assert [m.headers for m in drain("out", settings=settings)] == [{}]


def test_worker_that_survives_a_cut_counts_no_loss(settings, proxy):
    """The messages that it held when the connection broke are not counted, however often."""
    seen = []
    gate = threading.Event()

    def handler(n: int) -> int:
        seen.append(n)
        gate.wait(20)
        return n

    send(settings, [Message(1)])
    with Worker(WORK, handler, proxy.settings, writes="out", concurrency=20) as worker:
        for times in range(1, MAX_LOSSES + 3):
            wait_for(lambda times=times: len(seen) == times)
            proxy.cut()
        wait_for(lambda: len(seen) == MAX_LOSSES + 3)
        gate.set()
        worker.wait_until(done=1)

        assert worker.statistics().dead == 0


@pytest.mark.parametrize("concurrency", [1, 30])
def test_message_near_the_delivery_limit_is_published_again(proxy, concurrency):
    """A quorum queue drops a message at its 21st delivery, also if every worker survived.

    The message is in progress all the time, or (with a concurrency of 1) waits behind one that is.
    """
    settings = dataclasses.replace(proxy.settings, queue_type="quorum")
    gate = threading.Event()

    def handler(n: int) -> int:
        gate.wait(60)
        return n

    send(settings, [Message(1), Message(2)])
    with Worker(WORK, handler, settings, writes="out", concurrency=concurrency) as worker:

        def has_come_to_rest(received: int) -> bool:
            """Both are delivered again and nothing is on its way.

            A delivery that a cut loses on its way counts as a loss: nobody knows who had it.
            """
            moving, unacked = worker._processor.moves.under_way, worker.unacked
            return worker.statistics().received >= received + 2 and not moving and unacked == 2

        for _ in range(24):
            received = worker.statistics().received
            proxy.cut()
            wait_for(lambda received=received: has_come_to_rest(received))
        gate.set()
        worker.wait_until(done=2)

        assert worker.statistics().dead == 0
    assert {m.data for m in drain("out", settings=proxy.settings)} == {1, 2}


def stop_with_one_in_progress(settings: Settings, handled: list[int], received: int = 16) -> None:
    """Stop a worker that has begun one message and holds others, as running a cell again does."""
    begun, gate = threading.Event(), threading.Event()

    def handler(n: int) -> None:
        begun.set()
        gate.wait(20)
        handled.append(n)

    with Worker(WORK, handler, settings, prefetch=16) as worker:
        assert begun.wait(10)
        wait_for(lambda: worker.statistics().received >= received)
        wait_for(lambda: not worker._processor.moves.under_way)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        wait_for(lambda: worker.is_stopping)
        gate.set()
        stopping.join()
        assert worker.statistics().dead == 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_prefetched_messages_of_a_stopped_worker_are_unchanged(settings, queue_type):
    """No loss is counted and the order is kept, because the process that stopped still runs.

    In a quorum queue the order is kept for `NEAR_DELIVERY_LIMIT` times.
    """
    settings = dataclasses.replace(settings, queue_type=queue_type)
    send(settings, [Message(n) for n in range(40)])
    handled: list[int] = []
    for _ in range(24):
        stop_with_one_in_progress(settings, handled)

    left = [m.data for m in drain("work", settings=settings)]
    in_order = slice(None if queue_type == "classic" else NEAR_DELIVERY_LIMIT)
    assert (handled + left)[in_order] == list(range(40))[in_order]
    assert sorted(handled + left) == list(range(40))
    assert depth(WORK.quarantine, settings).messages == 0


def test_prefetched_possible_poison_message_is_published_again_at_the_stop(settings):
    """The next process cannot know how this one ended and would count a loss otherwise."""
    send(settings, [Message(n) for n in range(20)])
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([lost(ALONE_FROM, "possible poison")], WORK.quarantine)
    return_messages(settings, queue=WORK.quarantine)  # so that it is moved first and waits then
    stop_with_one_in_progress(settings, [], received=1 + 16 + 1)

    with open_channel(settings) as channel:
        method, properties, body = channel.basic_get(settings.topology.wire_name(WORK.quarantine))
        assert (body, properties.headers[LOSSES]) == (b'"possible poison"', ALONE_FROM + 1)
        assert not method.redelivered
        channel.basic_nack(method.delivery_tag)


def test_possible_poison_message_does_not_delay_ordinary_ones(settings):
    """While one is handled, another waits in the quarantine queue; ordinary messages pass."""
    begun, gate = threading.Semaphore(0), threading.Event()

    def handler(word: str) -> str:
        if word == "possible poison":
            begun.release()
            gate.wait(20)
        return word

    declare(WORK, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message("possible poison")] * 2, WORK.quarantine)
    with Worker(WORK, handler, settings, writes="out", concurrency=4) as worker:
        assert begun.acquire(timeout=10)
        send(settings, [Message("ordinary")] * 10)
        worker.wait_until(done=10)
        assert depth(WORK.quarantine, settings).messages == 1
        gate.set()
        worker.wait_until(done=12)


def lost(times, data=1):
    return Message(data, headers={LOSSES: times})


def return_messages(settings, number=1, queue="work"):
    """Get messages and return them to their queue, which marks them as redelivered."""
    with open_channel(settings) as channel:
        for _ in range(number):
            method, _, _ = channel.basic_get(settings.topology.wire_name(queue))
            assert method
    wait_for(lambda: depth(queue, settings).messages == number)

"""A message that kills whoever handles it is parked, and those beside it are not punished."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from support.waiting import wait_for

from mousetrap.amqp.properties import NEAR_DELIVERY_LIMIT
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.message import LOSSES, Message
from mousetrap.model.poison_messages import ALONE_FROM, MAX_LOSSES
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

WORK = Queue("work", ())


def send(settings, messages):
    declare(WORK, "out", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed(messages, "work")


def test_a_suspect_is_begun_when_what_it_was_moved_from_is_acked(settings, monkeypatch):
    """Else it could kill its worker before that, and there would be two killers."""
    send(settings, [Message(1)])
    give_back(settings)
    happened = []
    worker = Worker(WORK, lambda _: happened.append("begun"), settings)
    publish, ack = worker._publisher.publish, worker._consumer.ack

    def publish_late(*args, callback, **options):  # the confirm is heard half a second late
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


def test_a_parked_killer_can_be_sent_back(settings):
    """When the function is mended: its count begins anew."""
    import mousetrap

    send(settings, [lost(MAX_LOSSES - 1)])
    give_back(settings)
    with Worker(WORK, lambda n: n, settings, writes="out") as worker:
        worker.wait_until(dead=1)
        assert mousetrap.dead("work", settings=settings).replay() is not None
        worker.wait_until(done=1)

    assert len(drain("out", settings=settings)) == 1


def test_a_message_that_was_given_back_is_handled_all_the_same(settings):
    """Somebody had it and stopped in good order, or peeked: it is done, and nobody is alarmed."""
    send(settings, [Message(n) for n in range(5)])
    give_back(settings, 5)
    with Worker(WORK, lambda n: n, settings, writes="out") as worker:
        worker.wait_until(done=5)

    assert sorted(m.data for m in drain("out", settings=settings)) == [0, 1, 2, 3, 4]
    assert depth("work", settings).messages == 0


def test_what_was_looked_at_here_keeps_its_place(settings):
    """A peek marks messages as a lost worker does; this process knows better."""
    import mousetrap

    send(settings, [Message(n) for n in range(9)])
    assert [m.data for m in mousetrap.peek("work", 4, settings)] == [0, 1, 2, 3]
    handled: list[int] = []
    with Worker(WORK, handled.append, settings) as worker:
        worker.wait_until(done=9)

    assert handled == list(range(9))


def test_a_suspect_passes_by_the_queue_of_suspects(settings):
    """Lost twice, and innocent: handled once more, and its result is like any other."""
    send(settings, [lost(ALONE_FROM - 1)])
    give_back(settings)
    with Worker(WORK, lambda n: n, settings, writes="out") as worker:
        now = worker.wait_until(done=1)

    assert now.received == 2  # once as it came, once as a suspect
    assert [m.headers for m in drain("out", settings=settings)] == [{}]


def test_a_worker_that_lives_through_a_cut_suspects_nobody(settings, proxy):
    """What it had in hand when the connection went did not kill it: no count, however often."""
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
def test_what_a_quorum_queue_would_throw_away_is_published_anew(proxy, concurrency):
    """It gives a message out 21 times, then it is gone: also if each holder outlived its link.

    Whether it was in hand all the time, or waited behind what was.
    """
    settings = dataclasses.replace(proxy.settings, queue_type="quorum")
    gate = threading.Event()

    def handler(n: int) -> int:
        gate.wait(60)
        return n

    send(settings, [Message(1), Message(2)])
    with Worker(WORK, handler, settings, writes="out", concurrency=concurrency) as worker:
        for _ in range(24):
            received = worker.statistics().received
            proxy.cut()
            wait_for(lambda received=received: worker.statistics().received >= received + 2)
        gate.set()
        worker.wait_until(done=2)

        assert worker.statistics().dead == 0
    assert {m.data for m in drain("out", settings=proxy.settings)} == {1, 2}


def stop_with_one_in_hand(settings: Settings, handled: list[int], received: int = 16) -> None:
    """What running a cell again does: a worker begins one message, holds others, and is stopped."""
    begun, gate = threading.Event(), threading.Event()

    def handler(n: int) -> None:
        begun.set()
        gate.wait(20)
        handled.append(n)

    with Worker(WORK, handler, settings) as worker:
        assert begun.wait(10)
        wait_for(lambda: worker.statistics().received >= received)
        wait_for(lambda: not worker._processor._moving)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        wait_for(lambda: worker.is_stopping)
        gate.set()
        stopping.join()
        assert worker.statistics().dead == 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_what_waited_behind_another_is_as_it_was_when_the_cell_runs_again(settings, queue_type):
    """Nothing is counted, and the order stays: whoever stopped is still here to say so.

    Of a quorum queue the order stays for `NEAR_DELIVERY_LIMIT` times.
    """
    settings = dataclasses.replace(settings, queue_type=queue_type)
    send(settings, [Message(n) for n in range(40)])
    handled: list[int] = []
    for _ in range(24):
        stop_with_one_in_hand(settings, handled)

    left = [m.data for m in drain("work", settings=settings)]
    in_order = slice(None if queue_type == "classic" else NEAR_DELIVERY_LIMIT)
    assert (handled + left)[in_order] == list(range(40))[in_order]
    assert sorted(handled + left) == list(range(40))
    assert depth(WORK.quarantine, settings).messages == 0


def test_a_suspect_that_only_waited_is_given_back_as_it_was(settings):
    """The next process cannot know how this one ended, and would count one more."""
    send(settings, [Message(n) for n in range(20)])
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([lost(ALONE_FROM, "suspect")], WORK.quarantine)
    give_back(settings, queue=WORK.quarantine)  # so that it is moved first, and then waits
    stop_with_one_in_hand(settings, [], received=1 + 16 + 1)

    with open_channel(settings) as channel:
        method, properties, body = channel.basic_get(settings.topology.wire_name(WORK.quarantine))
        assert (body, properties.headers[LOSSES]) == (b'"suspect"', ALONE_FROM + 1)
        assert not method.redelivered
        channel.basic_nack(method.delivery_tag)


def test_a_suspect_holds_no_other_up(settings):
    """While one suspect is in hand, another waits in its queue, and ordinary messages pass."""
    begun, gate = threading.Semaphore(0), threading.Event()

    def handler(word: str) -> str:
        if word == "suspect":
            begun.release()
            gate.wait(20)
        return word

    declare(WORK, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message("suspect")] * 2, WORK.quarantine)
    with Worker(WORK, handler, settings, writes="out", concurrency=4) as worker:
        assert begun.acquire(timeout=10)
        send(settings, [Message("ordinary")] * 10)
        worker.wait_until(done=10)
        assert depth(WORK.quarantine, settings).messages == 1
        gate.set()
        worker.wait_until(done=12)


def lost(times, data=1):
    return Message(data, headers={LOSSES: times})


def give_back(settings, number=1, queue="work"):
    """Take messages and give them back, which marks them as redelivered."""
    with open_channel(settings) as channel:
        for _ in range(number):
            method, _, _ = channel.basic_get(settings.topology.wire_name(queue))
            assert method
    wait_for(lambda: depth(queue, settings).messages == number)

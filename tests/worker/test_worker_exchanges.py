"""Workers and exchanges outside of runs: what exists is left as it is, and nothing gets lost."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from unittest.mock import Mock, call

import pika
import pytest
from support.waiting import wait_for

import mousetrap
from mousetrap import Exchange, Queue, Worker
from mousetrap.amqp import consumer, queue_reader
from mousetrap.amqp.declarer import Declarer
from mousetrap.errors import TopologyMismatch
from mousetrap.job_queue import declare, depth, drain, short_channel

orders = Exchange("orders", "topic")
BOUND = Queue("audit", (), bindings=[orders["*.paid"]])


@pytest.fixture
def lasting(settings):
    """Settings under which queues and exchanges stay, as outside of a run; they are deleted."""
    yield settings.replace(queues_expire=False)
    with short_channel(settings) as channel:
        for queue in (*BOUND.possible_names(), "raw", "raw.quarantine", "late"):
            channel.queue_delete(settings.topology.wire_name(queue))
        channel.exchange_delete(settings.topology.wire_name("orders"))


def wire(settings):
    return settings.topology.wire_name("orders")


def exists(settings, **arguments):
    """Return whether the exchange exists with exactly these arguments."""
    with short_channel(settings) as channel, contextlib.suppress(Exception):
        channel.exchange_declare(wire(settings), **arguments)
        return True
    return False


@pytest.mark.parametrize("reader", [True, False], ids=["bound", "written"])
def test_exchange_that_exists_is_left_as_it_is(lasting, reader):
    """It is another program's: not durable, deleted with its last binding. We do not declare it."""
    theirs = {"exchange_type": "topic", "durable": False, "auto_delete": True}
    with short_channel(lasting) as channel:
        channel.exchange_declare(wire(lasting), **theirs)
        worker = (
            Worker(BOUND, list, lasting)
            if reader
            else Worker("raw", list, lasting, writes=orders["de.paid"])
        )
        with worker:
            assert exists(lasting, **theirs)


def test_exchange_that_is_missing_is_declared(lasting):
    """Durable and with its type; a message with a matching key comes to the handler."""
    handled = []
    with Worker(BOUND, lambda n: handled.append(n), lasting) as worker:
        assert exists(lasting, exchange_type="topic", durable=True)
        results = [mousetrap.send(orders[key], key, settings=lasting) for key in ("de.paid", "no")]
        worker.wait_until(done=1)

    assert handled == ["de.paid"]
    assert [each.counts for each in results] == [{"confirmed": 1}, {"returned": 1}]
    assert "no queue is bound to exchange" in str(results[1].error)


def test_queue_is_declared_with_its_bindings(lasting):
    """Without a worker, for messages that are sent before it starts."""
    declare(BOUND, settings=lasting)
    mousetrap.send(orders["de.paid"], 1, settings=lasting)

    assert depth("audit", lasting).messages == 1


def test_send_to_an_exchange_that_does_not_exist_says_so(lasting):
    """Nothing is declared for it: the name may be wrong."""
    result = mousetrap.send(orders["de.paid"], 1, settings=lasting)

    assert result.counts == {"unknown": 1}
    assert "no exchange" in str(result.error)


def test_source_waits_until_a_queue_is_bound_for_its_output(lasting):
    """A message that no queue would get is not dropped: it is sent when there is a binding."""
    mousetrap.job_queue.declare("raw", settings=lasting)
    mousetrap.send("raw", 7, settings=lasting)
    with Worker("raw", lambda n: n, lasting, writes=orders["de.paid"]) as worker:
        wait_for(lambda: "no queue is bound" in worker.statistics().problem)
        assert worker.statistics().done == 0
        declare(BOUND, settings=lasting)
        worker.wait_until(done=1)

    assert [each.data for each in drain("audit", settings=lasting)] == [7]


@pytest.mark.parametrize("what", ["exchange", "binding"])
def test_what_is_deleted_is_declared_again(lasting, monkeypatch, what):
    """The reader binds its queue again and again; what was sent meanwhile arrives."""
    monkeypatch.setattr(consumer, "BINDING_INTERVAL", 0.1)
    declare("raw", settings=lasting)
    handled = []
    with (
        Worker(BOUND, lambda n: handled.append(n), lasting) as reader,
        Worker("raw", lambda n: n, lasting, writes=orders["de.paid"]) as writer,
    ):
        with short_channel(lasting) as channel:
            if what == "exchange":
                channel.exchange_delete(wire(lasting))
            else:
                channel.queue_unbind(lasting.topology.wire_name("audit"), wire(lasting), "*.paid")
        mousetrap.send("raw", [1, 2, 3], settings=lasting)
        writer.wait_until(done=3)
        reader.wait_until(done=3)

    assert set(handled) == {1, 2, 3}


def test_copies_that_are_given_back_keep_the_id_of_their_queue(lasting):
    """Begun or not when the worker stops: the next worker handles the same message."""
    gate = threading.Event()
    declare(BOUND, settings=lasting)
    ids = mousetrap.send(orders["de.paid"], [1, 2, 3], settings=lasting).ids
    worker = Worker(BOUND, lambda _: gate.wait(20), lasting, prefetch=16).start()
    wait_for(lambda: worker.unacked == 3)
    worker.stop(0.1, process_ends=True)
    gate.set()
    found = drain("audit", settings=lasting)

    assert sorted(each.id for each in found) == sorted(f"{id}@audit" for id in ids)
    assert {each.job for each in found} == {each.id for each in found}


def test_copy_that_peek_publishes_again_keeps_the_id_of_its_queue(lasting):
    """That is done near the delivery limit of a quorum queue."""
    declare("late", settings=lasting)
    method = SimpleNamespace(exchange="orders", delivery_tag=7)
    got = (method, pika.BasicProperties(message_id="m"), b"1")

    assert queue_reader._republish([got], "late", lasting, 5.0) == {7}
    assert [each.id for each in drain("late", settings=lasting)] == ["m@late"]


def test_exchange_of_another_type_is_named(settings):
    """In a run's namespace, where we declare it: the text says which type to give."""
    with short_channel(settings) as channel:
        channel.exchange_declare(wire(settings), "direct", durable=True)
        try:
            with pytest.raises(TopologyMismatch, match="Give its `Exchange` the type"):
                Worker(BOUND, list, settings).start()
        finally:
            channel.exchange_delete(wire(settings))


def test_publisher_asks_for_an_exchange_once_however_often_it_is_declared(lasting):
    """A worker declares everything again each time that a message was returned."""
    declarer = Declarer(lasting)
    for _ in range(3):
        declarer.add(lasting.topology.bindings(BOUND))
    channel = Mock()
    declarer.declare(channel)

    assert channel.exchange_declare.call_args_list == [call(wire(lasting), passive=True)]

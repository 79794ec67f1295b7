"""Who else consumes a queue: counted by the broker, named by themselves."""

from __future__ import annotations

import socket
import time
import uuid

import msgspec
import pika
import pytest
from support.messages import QUICK, double
from support.processes import other_process
from support.waiting import wait_for

from mousetrap.job_queue import declare, depth, depths, open_channel
from mousetrap.worker.consumer_discovery import Attached, ConsumerInfo
from mousetrap.worker.worker import Worker


def someone(**changes):
    values = {"worker": "w", "process": "p", "host": "h", "pid": 7, "program": "x", "stage": "s"}
    return ConsumerInfo(**(values | changes))


def test_worker_alone_takes_no_time_to_say_so(settings):
    """Nobody else consumes: nobody is asked."""
    with Worker(QUICK, double, settings) as worker:
        started = time.monotonic()
        attached = worker.attached()

    assert (attached.consumers, attached.here, attached.lines()) == (1, 1, [])
    assert time.monotonic() - started < 0.3
    assert str(attached) == "1 attached"


def test_worker_counts_its_own_process_as_here(settings):
    """Two consumers of one process are not strangers to each other."""
    with Worker(QUICK, double, settings) as one, Worker(QUICK, double, settings):
        assert (one.attached().consumers, one.attached().elsewhere) == (2, 0)

    with Worker(QUICK, double, settings) as again:  # those that have stopped count no more
        wait_for(lambda: again.attached().consumers == 1)
        assert again.attached().here == 1


def test_worker_names_another_process(settings):
    """A worker elsewhere says its host, its pid and its program, without having a notebook."""
    with Worker(QUICK, double, settings) as worker, other_process(settings) as other:
        attached = worker.attached()

    assert (attached.consumers, attached.here, attached.elsewhere) == (2, 1, 1)
    assert attached.warning == (
        "2 attached, 1 is not from this process: you will see about half of the messages"
    )
    [name] = attached.others
    assert (name.host, name.pid, name.stage) == (socket.gethostname(), other.pid, "elsewhere")
    assert attached.lines()[1] == f"python (elsewhere) on {name.host}, pid {other.pid}"


def test_worker_counts_who_does_not_answer(settings):
    """Plain pika has no name; it is counted, and the wait for it is half a second."""
    with Worker(QUICK, double, settings) as worker, open_channel(settings) as channel:
        channel.basic_consume(settings.topology.wire_name("work"), lambda *_: None)
        started = time.monotonic()
        attached = worker.attached()

    assert 0.4 < time.monotonic() - started < 1
    assert attached.elsewhere == 1
    assert attached.lines()[1].startswith("1 that did not say who")


def test_workers_of_two_namespaces_do_not_hear_each_other(settings):
    """The question goes to those of this namespace alone."""
    other = settings.replace(namespace=f"test-{uuid.uuid4().hex[:8]}")
    with Worker(QUICK, double, settings) as worker, other_process(other):
        assert worker._discovery.ask(1, 0.3) == ()
        assert worker.attached().consumers == 1


def test_worker_without_events_has_numbers_and_no_names(settings):
    """Events switched off: nobody is asked, and no queue is made for it."""
    settings = settings.replace(events_exchange="")
    with Worker(QUICK, double, settings) as worker, other_process(settings):
        started = time.monotonic()
        attached = worker.attached()

        assert (attached.elsewhere, attached.others) == (1, ())
        assert time.monotonic() - started < 0.3
        assert worker._discovery.own_queue is None


def test_worker_hears_again_after_a_reconnect(settings, proxy):
    """A cut wire takes the ear with it; the next connection has another."""
    with Worker(QUICK, double, proxy.settings) as one, other_process(settings):
        assert len(one.attached().others) == 1
        proxy.cut()
        wait_for(lambda: one.statistics().reconnects >= 2 and one.attached() is not None)
        wait_for(lambda: len(one.attached().others) == 1)


def test_worker_answers_into_no_queue_that_people_work_from(settings):
    """A question that gives a work queue as the place for its answer gets none."""
    topology = settings.topology
    declare("precious", settings=settings)
    with Worker(QUICK, double, settings) as worker, open_channel(settings) as channel:
        wait_for(lambda: worker._discovery.own_queue.name)
        question = msgspec.json.encode(
            {"type": "ConsumerQuery", "queue": topology.wire_name("work")}
        )
        for body in (question, b"{}", b"\xff", b'{"type": "ConsumerInfo"}'):
            properties = pika.BasicProperties(reply_to=topology.wire_name("precious"))
            channel.basic_publish(
                topology.events_exchange, topology.discovery_key, body, properties
            )
        assert worker._discovery.ask(1, 0.3) == ()

        assert worker.statistics().problem == ""
    assert depth("precious", settings).messages == 0


def test_worker_is_well_where_it_may_not_listen(settings, monkeypatch):
    """A broker that forbids the queue of questions: numbers, no names, and nothing breaks."""
    refused = f"amq.forbidden.{uuid.uuid4().hex}"  # what begins so is refused to everybody: 403
    monkeypatch.setattr("mousetrap.worker.consumer_discovery._stem", lambda _: refused)
    with Worker(QUICK, double, settings) as worker, other_process(settings):
        wait_for(lambda: worker._discovery.own_queue.is_refused)
        started = time.monotonic()
        attached = worker.attached()

        assert (attached.elsewhere, attached.others) == (1, ())
        assert time.monotonic() - started < 0.3
        assert worker.statistics().state == "open"
        assert worker.statistics().reconnects == 0


def test_ears_leave_no_queue_behind(settings):
    """The queue of questions goes with its connection."""
    with Worker(QUICK, double, settings) as worker:
        wait_for(lambda: worker._discovery.own_queue.name)
        name = worker._discovery.own_queue.name

    assert depths([name], settings.replace(namespace="")) == [None]


def test_ears_bear_the_longest_name_of_a_queue(settings):
    """A queue's name may have 190 bytes and a namespace 40; ours is made of both and still fits."""
    with Worker(
        "é" * 95, double, settings.replace(namespace=f"{settings.namespace:-<40}")
    ) as worker:
        wait_for(lambda: worker._discovery.own_queue.name)

        assert len(worker._discovery.own_queue.name.encode()) <= 255


@pytest.mark.parametrize(
    ("consumers", "here", "words"),
    [(2, 1, "about half"), (3, 1, "about a third"), (3, 2, "two thirds"), (7, 2, "about 29%")],
)
def test_warning_says_how_much_one_will_see(consumers, here, words):
    """In words where there is one."""
    assert words in Attached(consumers, here).warning


def test_warning_shows_what_strangers_say_and_obeys_nothing():
    """A name is somebody else's text: it acts neither on a terminal nor for long."""
    hostile = someone(program="\x1b[2J<script>", stage="x" * 1000)
    lines = Attached(2, 1, (hostile,)).lines()

    assert "\x1b" not in lines[1]
    assert len(lines[1]) <= 210  # what is spelled out is longer than what it spells out

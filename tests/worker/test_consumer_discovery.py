"""Discovery of other consumers: the broker counts them, and workers answer who they are."""

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
from mousetrap.worker.consumer_discovery import Attached
from mousetrap.worker.discovery_messages import ConsumerInfo
from mousetrap.worker.worker import Worker


def make_info(**changes):
    values = {"worker": "w", "process": "p", "host": "h", "pid": 7, "program": "x", "stage": "s"}
    return ConsumerInfo(**(values | changes))


def test_worker_that_is_alone_asks_nobody(settings):
    """Without other consumers no query is sent, and the answer is there at once."""
    with Worker(QUICK, double, settings) as worker:
        started = time.monotonic()
        attached = worker.attached()

    assert (attached.consumers, attached.here, attached.lines()) == (1, 1, [])
    assert time.monotonic() - started < 0.3
    assert str(attached) == "1 attached"


def test_worker_counts_consumers_of_its_own_process(settings):
    """Two consumers of one process are both counted as here."""
    with Worker(QUICK, double, settings) as one, Worker(QUICK, double, settings):
        assert (one.attached().consumers, one.attached().elsewhere) == (2, 0)

    with Worker(QUICK, double, settings) as again:  # stopped workers are no longer counted
        wait_for(lambda: again.attached().consumers == 1)
        assert again.attached().here == 1


def test_worker_names_another_process(settings):
    """A worker of another process answers with its host, its pid and its program."""
    with Worker(QUICK, double, settings) as worker, other_process(settings) as other:
        attached = worker.attached()

    assert (attached.consumers, attached.here, attached.elsewhere) == (2, 1, 1)
    assert attached.warning == (
        "2 attached, 1 is not from this process: you will see about half of the messages"
    )
    [name] = attached.others
    assert (name.host, name.pid, name.stage) == (socket.gethostname(), other.pid, "elsewhere")
    assert attached.lines()[1] == f"python (elsewhere) on {name.host}, pid {other.pid}"


def test_worker_counts_consumers_that_do_not_answer(settings):
    """A plain pika consumer is counted, and its answer is waited for half a second."""
    with Worker(QUICK, double, settings) as worker, open_channel(settings) as channel:
        channel.basic_consume(settings.topology.wire_name("work"), lambda *_: None)
        started = time.monotonic()
        attached = worker.attached()

    assert 0.4 < time.monotonic() - started < 1
    assert attached.elsewhere == 1
    assert attached.lines()[1].startswith("1 without an answer")


def test_workers_of_two_namespaces_do_not_receive_each_others_queries(settings):
    """A query reaches only workers of the same namespace."""
    other = settings.replace(namespace=f"test-{uuid.uuid4().hex[:8]}")
    with Worker(QUICK, double, settings) as worker, other_process(other):
        assert worker._discovery.ask(1, 0.3) == ()
        assert worker.attached().consumers == 1


def test_worker_without_events_knows_numbers_only(settings):
    """With events switched off no query is sent, and there is no queue for it."""
    settings = settings.replace(events_exchange="")
    with Worker(QUICK, double, settings) as worker, other_process(settings):
        started = time.monotonic()
        attached = worker.attached()

        assert (attached.elsewhere, attached.others) == (1, ())
        assert time.monotonic() - started < 0.3
        assert worker._discovery.own_queue is None


def test_worker_answers_again_after_a_reconnect(settings, proxy):
    """The exclusive queue goes with its connection; the next connection has a new one."""
    with Worker(QUICK, double, proxy.settings) as one, other_process(settings):
        assert len(one.attached().others) == 1
        proxy.cut()
        wait_for(lambda: one.statistics().reconnects >= 2 and one.attached() is not None)
        wait_for(lambda: len(one.attached().others) == 1)


def test_worker_sends_no_answer_to_a_work_queue(settings):
    """A query whose reply-to is a work queue is not answered."""
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


def test_worker_works_where_the_exclusive_queue_is_refused(settings, monkeypatch):
    """Where the broker forbids the queue there are numbers only, and the worker goes on."""
    refused = f"amq.forbidden.{uuid.uuid4().hex}"  # the broker refuses names that begin so: 403
    monkeypatch.setattr("mousetrap.worker.consumer_discovery._stem", lambda _: refused)
    with Worker(QUICK, double, settings) as worker, other_process(settings):
        wait_for(lambda: worker._discovery.own_queue.is_refused)
        started = time.monotonic()
        attached = worker.attached()

        assert (attached.elsewhere, attached.others) == (1, ())
        assert time.monotonic() - started < 0.3
        assert worker.statistics().state == "open"
        assert worker.statistics().reconnects == 0


def test_discovery_leaves_no_queue_behind(settings):
    """The broker deletes the exclusive queue with its connection."""
    with Worker(QUICK, double, settings) as worker:
        wait_for(lambda: worker._discovery.own_queue.name)
        name = worker._discovery.own_queue.name

    assert depths([name], settings.replace(namespace="")) == [None]


def test_discovery_supports_the_longest_queue_name(settings):
    """A queue name of 190 bytes and a namespace of 40 give an exclusive queue of at most 255."""
    with Worker(
        "é" * 95, double, settings.replace(namespace=f"{settings.namespace:-<40}")
    ) as worker:
        wait_for(lambda: worker._discovery.own_queue.name)

        assert len(worker._discovery.own_queue.name.encode()) <= 255


@pytest.mark.parametrize(
    ("consumers", "here", "words"),
    [(2, 1, "about half"), (3, 1, "about a third"), (3, 2, "two thirds"), (7, 2, "about 29%")],
)
def test_warning_names_the_share_of_messages(consumers, here, words):
    """Common shares are words, the others are percentages."""
    assert words in Attached(consumers, here).warning


def test_answers_of_others_are_shown_as_safe_text():
    """Control characters in an answer are escaped, and its length is limited."""
    hostile = make_info(program="\x1b[2J<script>", stage="x" * 1000)
    lines = Attached(2, 1, (hostile,)).lines()

    assert "\x1b" not in lines[1]
    assert len(lines[1]) <= 210  # an escape is longer than its character

"""Run.settle: what it waits for, and what it raises, with workers and a broker."""

from __future__ import annotations

import random
import threading
import types

import pytest
from support.interrupts import interrupted
from support.messages import open_messages
from support.stages import QUICK, double, show, stubborn
from support.waiting import wait_for

import mousetrap
from mousetrap import Message, stage
from mousetrap.amqp import connection
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import (
    MessageDied,
    MousetrapError,
    NotSettled,
)
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.start_fetch import FetchJob


def test_settle_returns_only_when_nothing_is_open(settings):
    """After random failures, retries and outputs, no message is left when it returns."""
    chance = random.Random(7)

    @stage(reads="fan", writes="leaves", retry_delays=QUICK, concurrency=4)
    def fan_out(n: int) -> types.GeneratorType:
        if chance.random() < 0.2:
            raise ConnectionError("chance")
        yield from range(n)

    @stage(reads="leaves", retry_delays=QUICK, concurrency=4)
    def leaf(n: int) -> None:
        if chance.random() < 0.2:
            raise ConnectionError("chance")

    for _ in range(5):
        with mousetrap.run([fan_out, leaf], settings) as run:
            run.send_many(chance.choices(range(4), k=20))
            summary = run.settle(timeout=30)
            waiting = open_messages(run)
            in_progress = sum(worker.statistics().in_progress for worker in run.workers)

        assert (summary.lost, waiting, in_progress) == (0, 0, 0)
        assert summary.done + summary.dead == 20


def test_settle_says_where_each_message_is_after_the_timeout(settings):
    """The error has the messages, their queue and attempt, and the last failure."""
    with mousetrap.run(stubborn, settings) as run:
        run.send_many([1, 2])
        with pytest.raises(NotSettled) as stuck:
            run.settle(timeout=1.5)

    rows = list(stuck.value.table)
    assert [row["stopped in"] for row in rows] == ["numbers, after 30 s"] * 2
    assert [row["attempt"] for row in rows] == [2, 2]
    text = str(stuck.value)
    assert "no final outcome of 2 messages of 2 jobs after 1.5 s" in text
    assert "numbers.retry.30s: 2 wait" in text
    assert 'raise ConnectionError(f"no answer at {n}")' in text
    assert isinstance(stuck.value.__cause__, ConnectionError)
    assert isinstance(stuck.value, TimeoutError)


def test_settle_can_end_at_the_first_dead_letter(settings):
    """With `fail_fast`, the function's exception is the cause, and the error has its traceback."""
    with mousetrap.run(stubborn, settings, retry_delays=()) as run:
        run.send(7)
        with pytest.raises(MessageDied, match="died in stage stubborn at attempt 1") as died:
            run.settle(timeout=20, fail_fast=True)

    assert isinstance(died.value.__cause__, ConnectionError)
    assert died.value.__cause__.__traceback__ is not None
    assert "no answer at {n}" in str(died.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_settle_fails_at_once_when_a_handler_thread_dies(settings, monkeypatch):
    """A bug that ends a worker's thread is raised in the cell that waits, with its cause."""
    with mousetrap.run(double, settings) as run:
        monkeypatch.setattr(run.workers[0]._processor, "publish_outputs", lambda *_: 1 / 0)
        run.send(1)
        with pytest.raises(MousetrapError, match="a thread that calls double ended") as dead:
            run.settle(timeout=20)

    assert isinstance(dead.value.__cause__, ZeroDivisionError)


def test_settle_fails_at_once_when_a_process_dies(settings):
    """The error names the worker process that ended, with the end of its log."""
    with mousetrap.run(fetch, settings, workers="processes") as run:
        process = run.processes._running["fetch-0"]
        process.kill()
        run.send(FetchJob(1, latency=30))
        with pytest.raises(MousetrapError, match="fetch-0 ended with exit code -9"):
            run.settle(timeout=20)


def test_settle_waits_for_redeliveries_after_a_worker_was_killed(settings):
    """The other worker gets the messages of the killed one, and settle waits for them."""
    options = {"workers": "processes", "processes": 2, "retry_delays": QUICK}
    with mousetrap.run([fetch, process], settings, **options) as run:
        run.send_many(FetchJob(n, latency=0.01) for n in range(100))
        run.ledger.wait_for(lambda: run.ledger.open < 150, 20)
        run.processes.kill("fetch-0")
        run.processes.kill("process-1")
        summary = run.settle(timeout=40)
        waiting = open_messages(run)

    assert (summary.done, summary.lost, waiting) == (100, 0, 0)


def test_settle_waits_for_a_broker_that_is_away_although_all_outcomes_are_known(proxy):
    """It asks for the queue depths until the broker answers."""
    summaries = []
    with mousetrap.run([double, show], proxy.settings.replace(connect_timeout=1.0)) as run:
        run.send_many(range(5))
        assert run.ledger.wait_for(lambda: run.ledger.open == 0, 20)
        proxy.refuse()
        proxy.cut()
        before = proxy.connections
        settling = threading.Thread(target=lambda: summaries.append(run.settle(30)))
        settling.start()
        proxy.wait_for_connections(before + 3)  # those of the workers, and one for the depths
        assert settling.is_alive()
        proxy.accept()
        settling.join(30)

    assert [summary.done for summary in summaries] == [5]


def test_settle_survives_a_cut_connection(proxy):
    """Jobs whose confirms were lost are sent again; no job is lost."""
    with mousetrap.run([double, show], proxy.settings) as run:
        run.send_many(range(100, 400))
        proxy.cut()
        run.send_many(range(400, 500))
        summary = run.settle(timeout=60)

    assert (summary.sent, summary.confirmed, summary.done, summary.lost) == (400, 400, 400, 0)


def test_settle_waits_for_redeliveries_after_a_broken_connection(proxy, monkeypatch):
    """The broker redelivers when it notices the loss, maybe after the worker has reconnected."""
    monkeypatch.setattr(connection, "REDELIVERY_DELAY", 2.0)  # seconds
    with mousetrap.run(fetch, proxy.settings) as run:
        run.send(FetchJob())
        run.settle(20)
        proxy.cut()
        wait_for(lambda: run.workers[0].is_recovering)
        run.settle(30)

        assert not run.workers[0].is_recovering
        assert run.workers[0].statistics().reconnects >= 1


def test_settle_counts_late_jobs(settings):
    """Jobs that are sent after a settle belong to the next one."""
    with mousetrap.run(double, settings) as run:
        run.send(1)
        first = run.settle(timeout=10)
        with Publisher(run.settings) as publisher:  # a job that the run did not send
            publisher.publish(Message(2), "numbers").wait()
        run.send(3)
        run.settle(timeout=10)
        run.ledger.wait_for(lambda: run.summary().done == 3, 10)
        second = run.summary()

    assert (first.done, second.done, second.sent) == (1, 3, 3)


def test_a_run_settles_after_an_interrupt_of_send_many(settings, seeded_random):
    """Ctrl-C at a random moment: what was sent is counted and returned, and the run settles."""

    def jobs():
        yield from range(2000)
        threading.Event().wait(30)

    with mousetrap.run(double, settings, prefetch=256) as run:
        sent = 0
        for _ in range(5):
            with interrupted(after=seeded_random.uniform(0.001, 0.05)) as interrupt:
                run.send_many(jobs())
            sent += len(interrupt.value.receipts)
        summary = run.settle(timeout=60)

    assert (summary.sent, summary.done, summary.lost) == (sent, sent, 0)

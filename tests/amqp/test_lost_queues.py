"""A queue that was lost is noticed when the connection is restored, before it is declared again."""

from __future__ import annotations

import logging

import pytest
from support.messages import QUICK, double, send
from support.waiting import wait_for

from mousetrap.job_queue import delete, depth
from mousetrap.worker.worker import Worker

LOGGER = "mousetrap.amqp.lost_queues"


def lost_lines(caplog):
    return [each.getMessage() for each in caplog.records if each.name == LOGGER]


@pytest.mark.parametrize(
    ("is_deleted", "number"), [(True, 1), (False, 0)], ids=["deleted", "still there"]
)
def test_worker_says_that_its_queue_was_lost(settings, proxy, caplog, is_deleted, number):
    """Also while its publisher is connected again first; one line, and the problem names it."""
    caplog.set_level(logging.WARNING, LOGGER)
    with Worker(QUICK, double, proxy.settings, writes="out") as worker:
        before = worker.statistics().reconnects
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: not worker.statistics().connected)
        if is_deleted:
            wait_for(lambda: depth("work", settings).consumers == 0)
            delete("work", settings=settings)
        proxy.accept()
        wait_for(lambda: worker.statistics().reconnects >= before + 2)
        send(settings, 1)
        worker.wait_until(done=1)

        name = settings.topology.wire_name("work")
        assert len(lost_lines(caplog)) == number
        assert (f"queue '{name}' did not exist" in worker.statistics().problem) is is_deleted


def test_worker_says_that_its_queue_was_deleted(settings, caplog):
    """The broker cancels the consumer; the connection stays."""
    caplog.set_level(logging.WARNING, LOGGER)
    with Worker(QUICK, double, settings) as worker:
        delete("work", settings=settings)
        wait_for(lambda: "did not exist any more" in worker.statistics().problem)
        send(settings, 1)
        worker.wait_until(done=1)

    assert len(lost_lines(caplog)) == 1


def test_problem_is_shown_for_a_while(settings, monkeypatch):
    """Later the log has it, and the worker is well again."""
    with Worker(QUICK, double, settings) as worker:
        delete("work", settings=settings)
        wait_for(lambda: worker.statistics().problem)
        monkeypatch.setattr("mousetrap.amqp.lost_queues.SHOWN_TIME", 0.0)

        wait_for(lambda: not worker.statistics().problem)

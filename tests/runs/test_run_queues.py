"""A run says what is missing: results that it does not find, and queues that are not the first."""

from __future__ import annotations

import logging

import pytest

import mousetrap
from mousetrap import Reject, job_queue, stage
from mousetrap.errors import QueuesLost


@stage(reads="numbers", writes="doubled", retry_delays=())
def double(n: int) -> int:
    if n < 0:
        raise Reject("negative")
    return 2 * n


@pytest.fixture
def run(settings):
    with mousetrap.run(double, settings) as run:
        yield run


def test_results_say_how_many_are_missing_after_a_purge(run, caplog):
    """Others are returned; the ledger knows how many there should be."""
    run.send_many(range(30))
    run.settle(timeout=20)
    first = run.results()
    run.send_many(range(30, 50))
    run.settle(timeout=20)
    assert mousetrap.purge("doubled", run.settings) == 20
    run.send_many(range(50, 55))
    run.settle(timeout=20)

    second = run.results()

    assert (len(first), len(second)) == (30, 5)
    assert first.note == ""
    assert "20 of 25 results are not there" in second.note
    assert second.note in caplog.text
    assert run.results().note == "", "it was said, and is not said again"


def test_results_are_complete_with_duplicates_and_dead_letters(run, caplog):
    """A dead letter has no result, and a second copy of a result replaces none."""
    caplog.set_level(logging.WARNING)
    run.send_many([1, -1, 2, -2, 3])
    run.settle(timeout=20)
    [copy] = mousetrap.drain("doubled", 1, settings=run.settings)
    with mousetrap.Publisher(run.settings) as publisher:
        for _ in range(2):
            publisher.publish(copy, "doubled").wait()

    found = run.results()

    assert len(found) == 4
    assert found.note == ""
    assert [each for each in caplog.records if each.name == "mousetrap.runs.run"] == []


def test_results_of_a_deleted_queue_are_missing(run):
    """That the queue is missing is no error of its own."""
    run.send_many(range(10))
    run.settle(timeout=20)
    job_queue.delete("doubled", settings=run.settings)

    assert "10 of 10 results are not there" in run.results().note


def test_run_whose_queues_were_deleted_says_so(settings):
    """Sending and waiting end with the error; so do the workers, in the panel as well."""
    with mousetrap.run(double, settings) as run:
        run.send_many(range(10))
        run.settle(timeout=20)
        job_queue.delete(*run._queues.wire_names(), settings=settings.replace(namespace=""))

        with pytest.raises(QueuesLost, match="10 results") as raised:
            run.results()
        for action in (lambda: run.send(1), lambda: run.settle(timeout=5)):
            with pytest.raises(QueuesLost):
                action()
        html = run._repr_mimebundle_()["text/html"]
        [worker] = run.workers

    assert raised.value.taken == []
    assert "Start a new run" in worker.statistics().problem
    assert f"the queues of run {run.namespace} are gone" in html

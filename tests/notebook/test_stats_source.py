"""The statistics of workers that a panel shows."""

from __future__ import annotations

import pytest

import mousetrap
from mousetrap import Exchange, Queue, Worker, stage
from mousetrap.amqp.queue_depth import Depth
from mousetrap.flows.flow import Step
from mousetrap.notebook.run_stats import RunStatsSource
from mousetrap.notebook.stats_source import View
from mousetrap.notebook.worker_stats import WorkersStatsSource


@stage(reads="words", writes="lengths", retry_delays=(0.05,))
def measure(word: str) -> int:
    return len(word)


def test_workers_of_one_function_are_one_stage(settings):
    """Two workers of one function on one queue are one stage; another queue is another stage."""
    other = Worker("other", measure.handler, settings)
    workers = [measure.worker(settings), measure.worker(settings), other]
    source = WorkersStatsSource(workers, settings)

    steps = [each.step for each in source.view(1.0).stages]

    assert steps == [Step("measure", "words", ("lengths",)), Step("measure of other", "other")]


def test_workers_show_exchanges(settings):
    """Those that they write, and those to which their queue is bound."""
    orders, alarms = Exchange("orders"), Exchange("alarms", "fanout")
    queue = Queue("visits", bindings=[orders["*.paid"]])
    worker = Worker(queue, measure.handler, settings, writes=["lengths", alarms])

    [step] = [each.step for each in WorkersStatsSource([worker], settings).view(1.0).stages]

    assert step == Step("measure", "visits", ("lengths",), ("alarms",), (), ("orders",))


def test_depths_become_waiting_messages_and_the_age_of_the_oldest(settings):
    """Queues that no stage reads are listed apart; without a measurement nothing is known."""
    source = WorkersStatsSource([measure.worker(settings)], settings)
    [unknown] = source.view(99.0).stages
    retry = next(iter(measure.queue.retry_queues()))
    depths = {"words": 7, retry: 2, "lengths": 3}
    source.record_depths({name: Depth(name, number, 0) for name, number in depths.items()}, 100.0)
    view = source.view(104.0)

    [known] = view.stages
    assert (unknown.waiting, unknown.oldest) == (None, "")
    assert (known.waiting, known.waiting_retry, known.in_progress) == (7, 2, 0)
    assert known.oldest == "> 4 s"  # there at the first measurement: it may be older
    assert view.queues == {"lengths": 3}
    assert {"words", retry, "lengths"} <= set(source.queues())


@pytest.mark.parametrize(
    ("state", "is_finished"),
    [("new", False), ("open", False), ("closed", True), ("failed", True), ("replaced", True)],
)
def test_view_is_finished_when_it_will_not_change(state, is_finished):
    """A run or worker that has ended, however it ended."""
    assert View("title", "broker", state, (), {}, "out").is_finished is is_finished


def test_workers_of_a_closed_run_are_closed(settings):
    """Also while they still close their connections: the last picture of a run is of its end."""
    with mousetrap.run(measure, settings) as run:
        source = RunStatsSource(run)
        [open_stage] = source.view(0.0).stages
        run._state = "closed"  # as `stop` does first
        view = source.view(1.0)
        run._state = "open"

    assert open_stage.state == "open"
    assert view.is_finished
    assert [each.state for each in view.stages] == ["closed"]

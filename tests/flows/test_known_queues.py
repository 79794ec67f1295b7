"""A worker declares the queues that it writes with the arguments that its flow gives them."""

from __future__ import annotations

import os

import pytest
from support import their_flow
from support.quick import TESTS

import mousetrap
from mousetrap import Queue, Settings, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.flows.known_queues import known_beside, packed, unpacked
from mousetrap.job_queue import depth

JOBS = Queue("jobs", (), arguments={"x-max-priority": 5})
THEIRS = Queue("theirs", (), declare=False)


@stage(reads="raw", writes=["jobs", "theirs"], retry_delays=())
def split(number: int) -> int:
    return number


@stage(reads=JOBS, writes=Queue("done", arguments={"x-single-active-consumer": True}))
def work(number: int) -> int:
    return number


@stage(reads=THEIRS)
def keep(_: int) -> None: ...


def test_stage_knows_the_queues_of_the_stages_beside_it():
    """Those of its module or notebook, by their names; and those that it names itself."""
    assert known_beside(split)["jobs"] is JOBS
    assert set(known_beside(split)) == {"jobs", "theirs", "done"}
    worker = split.worker(Settings())
    named = {each.name: each for each in worker.targets.named.values()}

    assert named == {"jobs": JOBS, "theirs": THEIRS}
    assert worker.writes == ("jobs", "theirs")
    assert work.replace(prefetch=3).targets.named["done"].arguments
    assert split.worker(Settings(), queues={}).targets.named == {}


@pytest.mark.parametrize("other", [Queue("jobs", ()), Queue("jobs", (), declare=False)])
def test_flow_whose_stages_do_not_agree_is_refused(other):
    """Whoever started first would decide which arguments the queue has."""
    writer = stage(reads="raw", writes=JOBS)(lambda _: 1)
    reader = stage(reads=other, name="reader")(lambda _: None)

    with pytest.raises(SettingsError, match=r"give queue 'jobs' different arguments.*one Queue"):
        Flow([writer, reader])


def test_worker_of_another_process_gets_the_arguments_as_json():
    """Its stage may be in another module than the one that reads the queue."""
    given = Flow([split, work, keep]).known_queues

    found = unpacked(packed(given))

    assert {name: each.arguments for name, each in found.items()} == {
        name: each.arguments for name, each in given.items()
    }


def test_run_makes_all_queues_in_its_namespace(settings):
    """With their arguments, and those with ``declare=False`` as well."""
    with mousetrap.run([split, work, keep], settings) as run:
        run.send_many(range(3))
        assert run.settle(30).done == 3
        assert depth("done", run.settings).messages == 3
        with pytest.raises(mousetrap.MousetrapError, match="x-max-priority"):
            mousetrap.declare("jobs", settings=run.settings)


def test_worker_processes_of_a_run_know_the_queues_of_its_flow(settings, monkeypatch):
    """They are told on their command line: the stages may be in several modules."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    flow = [their_flow.accept, their_flow.price, their_flow.book]

    with mousetrap.run(flow, settings, workers="processes", retry_delays=(0.1,)) as run:
        run.send_many(range(1, 7))
        assert run.settle(60).dead == 0
        assert len(run.results(5.0)) == 6


def test_dead_letters_of_the_broker_stay_in_the_run(settings):
    """Their queue and their exchange are in its namespace, and what they get are results."""
    full = {"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "over"}
    bound = {"x-max-length": 1, "x-dead-letter-exchange": "graveyard"}
    full_stage = stage(reads=Queue("full", (), arguments=full), name="full")(lambda _: None)
    bound_stage = stage(reads=Queue("bound", (), arguments=bound), name="bound")(lambda _: None)

    with mousetrap.run([full_stage, bound_stage], settings, workers="none") as run:
        for queue in ("full", "bound"):
            run.send_many(range(3), to=queue)[-1].wait(10)
        found = run.results(5.0)
        assert sorted(each.data for each in found) == [0, 0, 1, 1]

"""Faults of a stage with batches: each message on its own is never lost, and never stored twice."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from rig import work_stage
from rig.trial import LONG, Trial, seconds_until_result, trial_counts
from support.waiting import wait_for
from test_faults_worker import kill_at, words

from mousetrap import Sink, stage
from mousetrap.model.poison_messages import MAX_LOSSES
from mousetrap.model.topology import Queue

WORK = Queue("work", work_stage.DELAYS)
SIZE = work_stage.BATCH.size
# The steps of one full batch: its messages arrive, each has one output, and all have one event.
STEPS = [
    ("Basic.Deliver", "from broker", "after", 1),  # it waits for a batch to fill
    ("Basic.Deliver", "from broker", "after", SIZE),
    "handler begins",
    "handler ends",
    *(("Basic.Publish", "to broker", when, n) for n in (1, SIZE) for when in ("before", "after")),
    ("Basic.Ack", "from broker", "before", 1),
    ("Basic.Ack", "from broker", "after", 1),
    ("Basic.Publish", "to broker", "after", SIZE + 1),
    ("Basic.Ack", "to broker", "before", 1),
    ("Basic.Ack", "to broker", "after", 1),
]


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        yield trial


@pytest.fixture
def rabbit_trial(rabbit_settings):
    """A trial on the broker that may be killed."""
    with Trial(rabbit_settings, WORK) as trial:
        yield trial


def finish(trial, sink) -> None:
    """Let a worker without faults handle what is left, in batches as well."""

    @stage(WORK, "out", name="work", batch=work_stage.BATCH)
    def table(ids: list[str]) -> list[str]:
        sink.store_each(ids)
        return ids

    with table.worker(trial.settings) as worker:
        trial.settle(30)
        trial.wait_until_idle(worker)


def check_sink(sink, trial) -> None:
    """Each job has one row, however often it was handled."""
    stored = Counter(row["data"] for row in sink.rows())
    assert stored == Counter(trial.history.confirmed - trial.history.dead.keys())


@pytest.mark.fault("F56")
@trial_counts(1, 30)
@pytest.mark.parametrize("step", STEPS, ids=words)
def test_batch_killed_at(trial, proxy, worker_pool, fault_row, tmp_path, step, times):
    """After SIGKILL at this step each message is delivered again, and is stored once."""
    options = {"RIG_BATCH": "1", "RIG_SINK": str(tmp_path / "rows.db")}
    with Sink(options["RIG_SINK"]) as sink:
        while fault_row.trials < times:
            trial.send([f"{fault_row.trials}-{i}" for i in range(SIZE)])
            if isinstance(step, str):
                killed = worker_pool.start(proxy.settings, RIG_KILL=step, **options)
            else:
                outcome = kill_at(step, proxy, worker_pool)
                killed = worker_pool.start(proxy.settings, **options)
                outcome.wait()
            assert killed.wait() == -9
            finish(trial, sink)
            fault_row.trials += 1
        fault_row.add(trial.drain_queues(), 0)
        check_sink(sink, trial)


@pytest.mark.fault("F56")
@trial_counts(1, 10)
def test_batch_with_a_message_that_crashes(trial, worker_pool, fault_row, times):
    """It is dead-lettered alone; what was in a batch with it, or waited for one, is done."""
    for n in range(times):
        trial.send([f"{n}-{i}" for i in range(10)])
        trial.send([f"crash-{n}"])
        trial.send([f"{n}-{i}" for i in range(10, 20)])
        for _ in range(MAX_LOSSES + 2):  # each crash ends one
            worker = worker_pool.start(trial.settings, RIG_BATCH="1", RIG_SURVIVOR_TIMEOUT="0.3")
            wait_for(lambda w=worker: not w.is_running or not (trial.collect() or trial.missing))
            if worker.is_running:
                break
        worker_pool.kill_all()

    history = trial.drain_queues()
    assert sorted(history.dead) == sorted(f"crash-{n}" for n in range(times))
    assert all(reason.startswith("WorkerLost") for reason in history.dead.values())
    fault_row.add(history, times)


@pytest.mark.fault("F56")
@trial_counts(3, 100)
def test_batch_whose_connection_is_cut(
    trial, proxy, worker_pool, fault_row, seeded_random, tmp_path, times
):
    """At any moment, while rows fail alone and with their batch: stored once, none dead for it."""
    path = str(tmp_path / "rows.db")
    worker_pool.start(proxy.settings, "--concurrency", "2", RIG_BATCH="1", RIG_SINK=path)

    def id_of(n: int) -> str:
        return f"{'fail-' if n % 10 == 3 else 'bad-' if n % 20 == 7 else ''}{n}"

    with trial.sending(40, id_of=id_of):
        seconds_until_result(trial, 20)
        for _ in range(times):
            threading.Event().wait(seeded_random.uniform(0.0, 0.5))  # the moment of the fault
            proxy.cut()
            fault_row.heal_seconds.append(seconds_until_result(trial, 30))
    trial.settle(60)
    worker_pool.kill_all()
    with Sink(path) as sink:
        finish(trial, sink)
        fault_row.add(trial.drain_queues(), times)
        stored = Counter(row["data"] for row in sink.rows())

    assert all(id.startswith(("fail", "bad")) for id in trial.history.dead)
    good = {id for id in trial.history.confirmed if not id.startswith(("fail", "bad"))}
    assert {id: number for id, number in stored.items() if id in good} == dict.fromkeys(good, 1)


@pytest.mark.fault("F56")
@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=LONG)])
def test_batch_when_the_broker_is_killed(
    rabbit_trial, rabbit, worker_pool, fault_row, seeded_random, tmp_path, kills
):
    """After SIGKILL of the broker the workers reconnect, and each message is stored once."""
    trial = rabbit_trial
    path = str(tmp_path / "rows.db")
    for _ in range(2):
        worker_pool.start(trial.settings, RIG_BATCH="1", RIG_SINK=path)
    with trial.sending(100):
        seconds_until_result(trial, 20)
        for _ in range(kills):
            threading.Event().wait(seeded_random.uniform(0.0, 2.0))  # the moment of the fault
            rabbit.kill()
            trial.collect()
            rabbit.start()
            fault_row.heal_seconds.append(seconds_until_result(trial, 30))
    trial.settle(60)
    worker_pool.kill_all()
    with Sink(path) as sink:
        finish(trial, sink)
        fault_row.add(trial.drain_queues(), kills)
        check_sink(sink, trial)

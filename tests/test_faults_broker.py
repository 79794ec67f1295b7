"""What happens to the broker: killed, full, without a queue."""

from __future__ import annotations

import json
import threading
import time

import pytest
from rig import flow
from rig.tap import Tap
from rig.trial import LONG, Trial, sizes, wait_for

from mousetrap.job_queue import delete, depths
from mousetrap.topology import Queue

WORK = Queue("work", flow.DELAYS)


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        yield trial


@pytest.fixture
def on_own(own):
    """A trial on the broker that may be broken."""
    with Trial(own, WORK) as trial:
        yield trial


def heals(trial, timeout):
    """Return how many seconds pass until there is a result of a job that is yet to be sent."""
    began, before = time.monotonic(), set(trial.history.attempted)
    wait_for(lambda: trial.collect() or trial.history.effects.keys() - before, timeout)
    return time.monotonic() - began


@pytest.mark.fault("F01")
@pytest.mark.parametrize(("kills", "rate"), [(2, 50), pytest.param(30, 100, marks=LONG)])
def test_broker_killed(on_own, rabbit, crew, tally, chance, kills, rate):
    """SIGKILL at any moment, 50 messages a second or more: the workers come back by themselves."""
    trial = on_own
    workers = [crew.start(trial.settings, "--concurrency", "4") for _ in range(2)]
    with trial.sending(rate):
        heals(trial, 20)
        for _ in range(kills):
            threading.Event().wait(chance.uniform(0.0, 3.0))  # the phase
            rabbit.kill()
            trial.collect()
            rabbit.start()
            tally.heals.append(heals(trial, 30))
    trial.settle(60)
    crew.kill_all()
    trial.finish()

    assert all(worker.code == -9 for worker in workers)  # until we ended them
    tally.judge(trial.observe(), kills)
    assert sorted(tally.heals)[int(0.95 * kills)] <= 10


@pytest.mark.fault("F05")
@sizes(50, 500)
def test_unroutable(trial, tally, times):
    """The queue downstream is deleted under way: not acked, said, put back, sent again."""
    deleted = 0
    with flow.work.worker(trial.settings) as worker:
        while tally.trials < times:
            trial.send(f"{tally.trials + n}" for n in range(10))
            tally.trials += 10
            trial.settle(20)
            delete("out", settings=trial.settings)
            deleted += 1
            trial.send([f"unroutable {deleted}"])
            wait_for(lambda: "out" in worker.statistics().problem)
            assert worker.unacked >= 1
            trial.settle(20)
        trial.rest(worker)
    tally.judge(trial.observe(), 0)


@pytest.mark.fault("F06")
@sizes(100, 1000)
@pytest.mark.parametrize("full", ["out", "work.dead"])
def test_refused(on_own, rabbit, tally, full, times):
    """A full queue refuses: not acked, tried at most once a second, done when there is room."""
    trial, name = on_own, on_own.name(full)
    limits = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    word = "fail-" if full == "work.dead" else ""
    with Tap(trial.settings) as tap, flow.work.worker(tap.settings, retry_delays=()) as worker:
        rabbit.rabbitmqctl("set_policy", "full", f"^{name}$", limits, "--apply-to", "queues")
        try:
            trial.send(f"{word}{n}" for n in range(times))
            wait_for(lambda: "refused" in worker.statistics().problem, 30)
            before, began = tap.passed["Basic.Publish", "to broker"], time.monotonic()
            threading.Event().wait(4)
            seconds = time.monotonic() - began
            attempts = tap.passed["Basic.Publish", "to broker"] - before
            assert 0 < attempts <= worker.prefetch * (seconds + 1)  # each at most once a second
            assert worker.unacked > 0
        finally:
            rabbit.rabbitmqctl("clear_policy", "full")
        trial.settle(60)
        trial.rest(worker)
    tally.judge(trial.observe(), times)


@pytest.mark.fault("F09")
@sizes(5, 50)
def test_consumer_cancelled(trial, tally, times):
    """Its queue is deleted: declared again and consumed again within five seconds."""
    with flow.work.worker(trial.settings) as worker:
        for n in range(times):
            trial.rest(worker)
            delete("work", settings=trial.settings)
            began = time.monotonic()
            wait_for(lambda: is_consumed(trial), 5)
            tally.heals.append(time.monotonic() - began)
            trial.send([str(n)])
            trial.settle()
        trial.rest(worker)
    tally.judge(trial.observe(), times)


def is_consumed(trial):
    [found] = depths(["work"], trial.settings)
    return found is not None and found.consumers == 1

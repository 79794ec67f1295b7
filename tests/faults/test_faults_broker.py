"""Faults of the broker: killed, out of memory or disk, a full queue, a deleted queue."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest
from rig import work_stage
from rig.byte_proxy import ByteProxy
from rig.trial import LONG, Trial, seconds_until_result, trial_counts
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, delete, depths
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

WORK = Queue("work", work_stage.DELAYS)
ALARMS = [  # the rabbitmqctl commands that set each off, and end it
    (("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.6")),
    (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "50MB")),
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


@pytest.mark.fault("F01")
@pytest.mark.parametrize(("kills", "rate"), [(2, 50), pytest.param(30, 100, marks=LONG)])
def test_broker_killed(rabbit_trial, rabbit, worker_pool, fault_row, seeded_random, kills, rate):
    """After SIGKILL at any moment, under 50 messages a second or more, the workers reconnect."""
    trial = rabbit_trial
    workers = [worker_pool.start(trial.settings, "--concurrency", "4") for _ in range(2)]
    with trial.sending(rate):
        seconds_until_result(trial, 20)
        for _ in range(kills):
            threading.Event().wait(seeded_random.uniform(0.0, 3.0))  # the phase
            rabbit.kill()
            trial.collect()
            rabbit.start()
            fault_row.heal_seconds.append(seconds_until_result(trial, 30))
    trial.settle(60)
    worker_pool.kill_all()
    trial.finish()

    assert all(worker.code == -9 for worker in workers)  # when the test ended them
    fault_row.add(trial.drain_queues(), kills)
    assert sorted(fault_row.heal_seconds)[int(0.95 * kills)] <= 10


@pytest.mark.fault("F01")
@trial_counts(1, 10)
def test_broker_reset(rabbit_settings, rabbit, worker_pool, fault_row, times):
    """A broker that has lost all queues: the workers go on, and one of them says what is gone."""
    workers = [worker_pool.start(rabbit_settings) for _ in range(2)]
    for n in range(times):
        if n == 0:
            wait_for(lambda: all("working:" in each.log.read_text() for each in workers), 30)
        for order in ("stop_app", "reset", "start_app"):
            rabbit.rabbitmqctl(order)
        rabbit.wait_until_ready()
        started = time.monotonic()
        wait_for(lambda n=n: lost_lines(workers, rabbit_settings) > n, 30)
        with Trial(rabbit_settings, WORK) as trial:
            trial.send([str(n)])
            trial.settle(30)
            fault_row.add(trial.drain_queues(), 1)
        fault_row.heal_seconds.append(time.monotonic() - started)
    assert lost_lines(workers, rabbit_settings) <= 2 * times


def lost_lines(workers, settings):
    line = f"queue '{settings.topology.wire_name('work')}' did not exist any more"
    return sum(each.log.read_text().count(line) for each in workers)


@pytest.mark.fault("F05")
@trial_counts(50, 500)
def test_unroutable(trial, fault_row, times):
    """A deleted output queue: the message is not acked, the queue is declared and it is resent."""
    deleted = 0
    with work_stage.work.worker(trial.settings) as worker:
        while fault_row.trials < times:
            trial.send(f"{fault_row.trials + n}" for n in range(10))
            fault_row.trials += 10
            trial.settle(20)
            delete("out", settings=trial.settings)
            deleted += 1
            trial.send([f"unroutable {deleted}"])
            wait_for(lambda: "out" in worker.statistics().problem)
            assert worker.unacked >= 1
            trial.settle(20)
        trial.wait_until_idle(worker)
    fault_row.add(trial.drain_queues(), 0)


@pytest.mark.fault("F06")
@trial_counts(100, 1000)
@pytest.mark.parametrize("full", ["out", "work.dead"])
def test_publish_refused(rabbit_trial, rabbit, fault_row, full, times):
    """A full queue refuses: no ack, at most one try a second, published when there is room."""
    trial, name = rabbit_trial, rabbit_trial.wire_name(full)
    limits = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    word = "fail-" if full == "work.dead" else ""
    with (
        ByteProxy(trial.settings) as byte_proxy,
        work_stage.work.worker(byte_proxy.settings, retry_delays=()) as worker,
    ):
        rabbit.rabbitmqctl("set_policy", "full", f"^{name}$", limits, "--apply-to", "queues")
        try:
            trial.send(f"{word}{n}" for n in range(times))
            wait_for(lambda: "refused" in worker.statistics().problem, 30)
            before, began = byte_proxy.passed["Basic.Publish", "to broker"], time.monotonic()
            threading.Event().wait(4)
            seconds = time.monotonic() - began
            attempts = byte_proxy.passed["Basic.Publish", "to broker"] - before
            assert (
                0 < attempts <= worker.statistics().prefetch * (seconds + 1)
            )  # each at most once a second
            assert worker.unacked > 0
        finally:
            rabbit.rabbitmqctl("clear_policy", "full")
        trial.settle(60)
        trial.wait_until_idle(worker)
    fault_row.add(trial.drain_queues(), times)


@pytest.mark.fault("F07")
@trial_counts(2, 20)
def test_alarm(rabbit_trial, rabbit, worker_pool, fault_row, tmp_path, times):
    """On a memory or disk alarm the worker reports `blocked`, and SIGTERM still ends it.

    A worker that publishes nothing goes on.
    """
    trial, silent = rabbit_trial, Queue("silent", ())
    settings = trial.settings.replace(events_exchange="")
    declare(silent, settings=settings)
    begun, gate = threading.Event(), threading.Event()

    def work(
        id: str,
    ) -> str:  # named as the stage in `work_stage`, so its results have the same ids
        begun.set()
        gate.wait(30)
        return id

    with Worker(WORK, work, trial.settings, writes="out") as worker:
        for n in range(times):
            set_off, end = ALARMS[n % len(ALARMS)]
            with Publisher(settings) as publisher:
                publisher.publish_until_confirmed([Message(i) for i in range(20)], silent.name)
            gate.clear()
            begun.clear()
            gate_file = tmp_path / str(n)
            process = worker_pool.start(trial.settings, "--grace", "1", RIG_GATE=str(gate_file))
            with trial.sending(50):
                wait_for(
                    lambda gate_file=gate_file: (
                        begun.is_set() and Path(f"{gate_file}.begun").exists()
                    )
                )
                rabbit.rabbitmqctl(*set_off)
                try:
                    gate.set()  # the broker blocks the results of both
                    gate_file.touch()
                    wait_for(lambda: worker.statistics().state == "blocked")
                    with Worker(silent, lambda _: None, settings) as other:
                        other.wait_until(done=20)
                    wait_for(lambda gate_file=gate_file: Path(f"{gate_file}.finished").exists())
                    began = time.monotonic()
                    process.kill(signal.SIGTERM)
                    assert process.wait() == 1  # its message in progress is redelivered
                    assert time.monotonic() - began < 6
                    assert worker.statistics().state == "blocked"
                finally:
                    rabbit.rabbitmqctl(*end)
                fault_row.heal_seconds.append(seconds_until_result(trial, 30))
        trial.settle(60)
        trial.wait_until_idle(worker)
    fault_row.add(trial.drain_queues(), times)


@pytest.mark.fault("F09")
@trial_counts(5, 50)
def test_consumer_cancelled(trial, fault_row, times):
    """A deleted work queue is declared and consumed again within five seconds."""
    with work_stage.work.worker(trial.settings) as worker:
        for n in range(times):
            trial.wait_until_idle(worker)
            delete("work", settings=trial.settings)
            began = time.monotonic()
            wait_for(lambda: is_consumed(trial), 5)
            fault_row.heal_seconds.append(time.monotonic() - began)
            trial.send([str(n)])
            trial.settle()
        trial.wait_until_idle(worker)
    fault_row.add(trial.drain_queues(), times)


def is_consumed(trial):
    [found] = depths(["work"], trial.settings)
    return found is not None and found.consumers == 1

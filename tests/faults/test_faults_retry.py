"""Faults while messages wait for their retry: broker killed, work queue full, retry queue gone."""

from __future__ import annotations

import threading
import time

import pytest
from rig.trial import LONG, Trial, trial_counts
from support.waiting import wait_for

from mousetrap import stage
from mousetrap.errors import NotSettled
from mousetrap.job_queue import delete, depth, depths, open_channel
from mousetrap.model.topology import Queue
from mousetrap.runs.run import Run
from mousetrap.worker.worker import Worker

RETRY_DELAY = 6.0  # seconds; with less, RabbitMQ has written more of the messages before the kill
# Seconds until everything has returned. If the work queue refuses a message, or is not there yet
# after a restart of the broker, RabbitMQ tries again when its timer of 180 seconds has run once or
# twice: only a message that was refused before the timer began is sent when it first ends.
RETURN_TIMEOUT = 2 * 180 + 60.0
SLOW = 0.002  # seconds for the second attempt; RabbitMQ needs less to return a message


class FailsOnce:
    """A handler that raises at the first attempt of each id; the others wait until `gate` is set.

    With the gate open, the second attempt takes `SLOW`.
    """

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.gate = threading.Event()

    def __call__(self, id: str) -> str:
        if id not in self.failed:
            self.failed.add(id)
            raise ConnectionError("no luck")
        self.gate.wait(60)
        time.sleep(SLOW)  # the work
        return id


@pytest.mark.fault("F30")
@pytest.mark.parametrize(
    ("queue_type", "kills", "times"),
    [
        ("classic", 1, 3_000),
        pytest.param("classic", 10, 10_000, marks=LONG),
        pytest.param("quorum", 10, 10_000, marks=LONG),
    ],
)
def test_broker_killed_while_retries_return(
    rabbit, rabbit_settings, fault_row, queue_type, kills, times
):
    """Messages that return from a retry queue to a slower worker survive SIGKILL of the broker."""
    for kill in range(kills):
        namespace = f"{rabbit_settings.namespace}-{kill}"
        settings = rabbit_settings.replace(namespace=namespace, queue_type=queue_type)
        fault_row.add(killed_while_retries_return(rabbit, settings, times))


def killed_while_retries_return(rabbit, settings, times):
    """Let each of so many messages fail once, and kill the broker when half of them are back."""
    handler = FailsOnce()
    with (
        Trial(settings, Queue("work", (RETRY_DELAY,))) as trial,
        Worker(trial.queue, handler, settings, writes="out", prefetch=256) as worker,
    ):
        trial.send(f"{n}" for n in range(times))
        worker.wait_until(retried=times, timeout=60)
        wait_for(lambda: depth("work", settings).messages >= times // 2, 60)
        rabbit.kill()
        handler.gate.set()
        rabbit.start()
        trial.settle(RETURN_TIMEOUT)
        trial.wait_until_idle(worker)
        return trial.drain_queues()


@pytest.mark.fault("F39")
@trial_counts(20, 100)
@pytest.mark.parametrize("how", ["deleted", "classic without arguments", "another delay"])
def test_retry_queue_is_not_ours(settings, fault_row, caplog, how, times):
    """A retry queue that is deleted or declared otherwise meanwhile: said, and none is stranded."""
    handler = FailsOnce()
    handler.gate.set()
    with (
        Trial(settings, Queue("work", (0.2,))) as trial,
        Worker(trial.queue, handler, settings, writes="out") as worker,
    ):
        trial.send(["first"])
        trial.settle()  # its retry queue was used, and is empty again
        name = trial.wire_name("work.retry.0.2s")
        with open_channel(settings) as channel:
            channel.queue_delete(name)
            if how == "classic without arguments":
                channel.queue_declare(name, durable=True)
            elif how == "another delay":
                arguments = {"x-queue-type": "quorum", "x-message-ttl": 3_600_000}
                channel.queue_declare(name, durable=True, arguments=arguments)
        trial.send(f"{n}" for n in range(times))
        trial.settle()
        trial.wait_until_idle(worker)
        problem = worker.statistics().problem
        delete(f"{trial.queue.retry_queue(0.2)}.2", settings=settings)

    found = depths(["work.retry.0.2s"], settings)
    assert found[0].messages == 0
    fault_row.add(trial.drain_queues(), times)
    if how != "deleted":
        assert name in problem
        assert name in caplog.text


@pytest.mark.fault("F38")
@trial_counts(1, 10)
def test_production_prefix_never_expires(settings, fault_row, times):
    """A namespace alone, even with a length of the expiry, makes no queue expire."""
    ours = settings.replace(queues_expire=False, queue_expiry=1.0)
    declared = [
        *ours.topology.declarations(Queue("work")),
        *ours.topology.failure_queues(Queue("work")),
    ]
    assert not any("x-expires" in each.arguments for each in declared)
    for _ in range(times):
        with Trial(ours, Queue("work", ())) as trial:
            trial.send(f"{n}" for n in range(50))
            threading.Event().wait(2.5)  # longer than the expiry; a passive declare would be a use

            assert depth("work", ours).messages == 50
            with Worker(trial.queue, lambda data: data, ours, writes="out") as worker:
                trial.settle()
                trial.wait_until_idle(worker)
            fault_row.add(trial.drain_queues())


@pytest.mark.fault("F31")
def test_retries_wait_for_room(rabbit, rabbit_settings):
    """What a full work queue refused is named by the run's error, and comes back by itself."""
    limit = '{"max-length": 5, "overflow": "reject-publish"}'
    timer = "rabbit, dead_letter_worker_publisher_confirm_timeout"
    rabbit.rabbitmqctl("eval", f"application:set_env({timer}, 3000).")  # instead of 180 seconds
    handler = FailsOnce()

    @stage("work", retry_delays=(3.0,))
    def work(id: str) -> None:
        handler(id)

    try:
        with Run(work, rabbit_settings, prefetch=10) as run:
            name = run.settings.topology.wire_name("work").replace(".", "\\.")
            run.send_many(f"{n}" for n in range(40))
            wait_for(lambda: len(handler.failed) == 40, 30)
            rabbit.rabbitmqctl("set_policy", "full", f"^{name}$", limit, "--apply-to", "queues")
            with pytest.raises(NotSettled, match=r"work\.retry\.3s: .*RabbitMQ's timer"):
                run.settle(6)
            rabbit.rabbitmqctl("clear_policy", "full")
            handler.gate.set()
            assert run.settle(60).lost == 0
    finally:
        rabbit.rabbitmqctl("eval", f"application:unset_env({timer}).")


@pytest.mark.fault("F31")
@pytest.mark.parametrize("times", [pytest.param(300, marks=LONG)])
def test_work_queue_is_full_when_retries_return(rabbit, rabbit_settings, fault_row, times):
    """What a full work queue refuses comes back when there is room, by RabbitMQ's timer."""
    settings = rabbit_settings
    handler = FailsOnce()
    with Trial(settings, Queue("work", (15.0,))) as trial:
        with Worker(trial.queue, handler, settings, writes="out") as worker:
            trial.send(f"{n}" for n in range(times))
            worker.wait_until(retried=times, timeout=60)
            # The work queue is empty: RabbitMQ would drop what exceeds the limit of a new policy.
            assert depth("work", settings).messages == 0
            limit = '{"max-length": 20, "overflow": "reject-publish"}'
            name = trial.wire_name("work").replace(".", "\\.")
            rabbit.rabbitmqctl("set_policy", "full", f"^{name}$", limit, "--apply-to", "queues")
            wait_for(lambda: depth("work", settings).messages == 20, 60)
            threading.Event().wait(3.0)  # the other retries return meanwhile, and are refused
            rabbit.rabbitmqctl("clear_policy", "full")
            handler.gate.set()
            started = time.monotonic()
            trial.settle(RETURN_TIMEOUT)
            fault_row.heal_seconds.append(time.monotonic() - started)
            trial.wait_until_idle(worker)
        fault_row.add(trial.drain_queues())
    assert 3.0 < fault_row.heal_seconds[0] < RETURN_TIMEOUT

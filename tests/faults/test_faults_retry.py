"""Faults while messages wait for their retry: broker killed, work queue full, retry queue gone."""

from __future__ import annotations

import threading
import time

import pytest
from rig.trial import LONG, Trial
from support.waiting import wait_for

from mousetrap.job_queue import depth
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

RETRY_DELAY = 6.0  # seconds; with less, RabbitMQ has written more of the messages before the kill
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
        trial.settle(120)
        trial.wait_until_idle(worker)
        return trial.drain_queues()

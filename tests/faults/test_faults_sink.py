"""Faults of a sink's database: frozen, and back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig.trial import trial_counts
from support.postgres import Postgres
from support.waiting import wait_for

from mousetrap import Sink
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import SinkBusy
from mousetrap.job_queue import declare
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

TIMEOUT = 2.0  # seconds; also the shortest for a login


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as server:
        yield server


def seconds_until_busy(sink: Sink, id: str) -> tuple[float, str]:
    started = time.monotonic()
    with pytest.raises(SinkBusy) as caught:
        sink.store(1, Message(id=id))
    return time.monotonic() - started, str(caught.value)


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_frozen_database(postgres, fault_row, times):
    """Each store of several threads fails within its time-out, and names the cause."""
    with Sink(postgres.url(), timeout=TIMEOUT) as sink:
        for n in range(times):
            assert sink.store(n, Message(id=f"before {n}"))
            with postgres.frozen(), ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda k: seconds_until_busy(sink, f"{k}"), range(4)))
            assert max(seconds for seconds, _ in found) < TIMEOUT + 1
            assert all("frozen" in text for _, text in found), found
            assert sink.store(n, Message(id=f"after {n}"))
            fault_row.trials += 1


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_login_to_a_frozen_database(postgres, fault_row, times):
    """A sink that was not used before fails within its time-out, too."""
    url = postgres.url()
    for _ in range(times):
        with postgres.frozen(), Sink(url, timeout=TIMEOUT) as sink:
            seconds, text = seconds_until_busy(sink, "a")
        assert seconds < TIMEOUT + 1
        assert "did not answer" in text
        fault_row.trials += 1


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_worker_beside_a_frozen_database(settings, postgres, fault_row, times):
    """Messages without the sink go on, those with it are retried, and the problem is named."""
    queue = Queue("work", (0.2,) * 100)
    with Sink(postgres.url(), timeout=TIMEOUT) as sink:

        def keep(n: int) -> None:
            if n % 2:
                sink.store(n)

        sink.store(0, Message(id="first"))
        declare(queue, settings=settings)
        with Worker(queue, keep, settings, concurrency=3) as worker, Publisher(settings) as sends:
            for n in range(times):
                done = 12 * n
                with postgres.frozen():
                    sends.publish_until_confirmed([Message(k) for k in range(12)], "work")
                    # half of them need no sink
                    worker.wait_until(done=done + 6, timeout=30)
                    wait_for(lambda: "frozen" in worker.statistics().problem)
                worker.wait_until(done=done + 12, timeout=30)
                wait_for(lambda: not worker.statistics().problem)
                fault_row.trials += 1
                fault_row.messages += 12
            assert worker.statistics().dead == 0
        assert len(sink) == 1 + 6 * times

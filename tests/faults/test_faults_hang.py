"""Handlers that never return, and orderly stops in the middle of long ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from rig import brokers
from rig.ack_timer import LATER, lose_ack_timer
from rig.trial import trial_counts
from support.waiting import wait_for

from mousetrap.amqp import overdue_acks
from mousetrap.amqp.publisher import Publisher
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import declare, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker
from mousetrap.worker.worker_process import MAX_RESTART_DELAY

WORK = Queue("work", ())
LONG = pytest.mark.long
GRACE = 0.3  # seconds
LIMIT = 0.5  # seconds


def send(settings, *ids):
    declare(WORK, "out", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(each, id=each) for each in ids], "work")


def found_in(queue, settings):
    """Take all messages from *queue*; return their ids and how many losses they count."""
    return {message.id: message.losses for message in drain(queue, settings=settings)}


@pytest.mark.fault("F37")
@trial_counts(2, 20)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_stopped_in_a_long_handler(
    settings, worker_pool, fault_row, seeded_random, tmp_path, queue_type, times
):
    """Each deploy interrupts a handler longer than the grace; nothing is counted or parked."""
    settings = settings.replace(queue_type=queue_type)
    ids = [f"m{n}" for n in range(6)]
    send(settings, *ids)
    for n in range(times):
        gate = tmp_path / str(n)  # never made: the handler waits for longer than the grace
        worker = worker_pool.start(
            settings, "--grace", str(GRACE), "--prefetch", "4", RIG_GATE=str(gate)
        )
        wait_for(gate.with_suffix(".begun").exists)
        stopped = time.monotonic()
        worker.kill(seeded_random.choice([signal.SIGTERM, signal.SIGINT]))
        assert worker.wait() == 0, worker.log.read_text()
        fault_row.heal_seconds.append(time.monotonic() - stopped)
        fault_row.trials += 1

    assert depth(WORK.dead, settings) is None or not depth(WORK.dead, settings).messages
    assert depth(WORK.quarantine, settings).messages == 0
    assert found_in("work", settings) == dict.fromkeys(ids, 0)


FLOW = """
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from mousetrap import stage

@stage(reads="work", writes="out", retry_delays=(), timeout=0.5)
def hang(id: str) -> str:
    if id.startswith("hang"):
        ThreadPoolExecutor(1).submit(threading.Event().wait).result()  # joined at the exit
    return id

# Each leaves a thread behind that never ends, and that the interpreter joins at its exit.

@stage(reads="work", retry_delays=())
async def waits_for_a_thread(id: str) -> None:
    await asyncio.to_thread(threading.Event().wait)

@stage(reads="work", retry_delays=())
async def waits_no_longer(id: str) -> None:
    await asyncio.wait_for(asyncio.to_thread(threading.Event().wait), 0.1)

@stage(reads="work", retry_delays=())
def leaves_a_pool_behind(id: str) -> None:
    ThreadPoolExecutor(1).submit(threading.Event().wait)
"""


class WorkCommand:
    """``mousetrap work`` with a health endpoint, in a folder of its own."""

    def __init__(self, settings, folder, *options, stage="hang"):
        (folder / "flow.py").write_text(FLOW)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mousetrap", "work", f"flow:{stage}", "--health", "0",
                 *options],
                cwd=folder, env=os.environ | settings.to_environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for(lambda: "health: " in self.log.read_text())
        self.url = re.search(r"health: (\S+)", self.log.read_text())[1]

    def health(self, path):
        """Return the HTTP status and the body; 0 and nothing when it has ended."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, json.load(answer)
        except OSError:
            return 0, {}

    def stop(self):
        """Send SIGTERM; return the exit code and the seconds until the exit."""
        started = time.monotonic()
        self.process.terminate()
        return self.process.wait(20), time.monotonic() - started


@pytest.fixture
def work(tmp_path):
    """Start ``mousetrap work``; it ends with the test."""
    running = []

    def work(settings, *options, **stage):
        running.append(WorkCommand(settings, tmp_path, *options, **stage))
        return running[-1]

    yield work
    for each in running:
        each.process.kill()
        each.process.wait(10)


@pytest.mark.fault("F33")
@trial_counts(1, 20)
def test_handlers_beyond_their_limit(settings, work, fault_row, times):
    """The message is dead-lettered in time; the worker is not alive, and ends with code 1."""
    for n in range(times):
        worker = work(settings)
        send(settings, f"hang{n}")
        begun = time.monotonic()
        wait_for(lambda n=n: found_in(WORK.dead, settings).keys() == {f"hang{n}"})
        fault_row.heal_seconds.append(time.monotonic() - begun)
        wait_for(
            lambda worker=worker: worker.health("live")[0] != 200,
            begun + LIMIT + 5 - time.monotonic(),
        )
        assert worker.process.wait(5) == 1, worker.log.read_text()
        assert "given up and still run" in worker.log.read_text()
        fault_row.trials += 1
    assert max(fault_row.heal_seconds) < LIMIT + 5


@pytest.mark.fault("F33")
@trial_counts(1, 20)
def test_handlers_beyond_their_limit_in_processes(settings, work, fault_row, times):
    """The process is replaced; what it held beside is done, and no loss is counted."""
    worker = work(settings, "--processes", "1")
    for n in range(times):
        send(settings, f"hang{n}", f"go{n}")
        wait_for(lambda n=n: f"go{n}" in [m.data for m in drain("out", settings=settings)], 20)
        # the pause before the next process doubles while each ends soon
        timeout = MAX_RESTART_DELAY + 20
        wait_for(lambda n=n: worker.health("")[1].get("replaced") == n + 1, timeout)
        fault_row.trials += 1
    dead = found_in(WORK.dead, settings)
    assert dead == {f"hang{n}": 0 for n in range(times)}
    assert depth(WORK.quarantine, settings).messages == 0
    assert worker.stop()[0] == 0


def hang_until_dead(settings, worker_settings, fault_row, n, once_begun=lambda: None):
    """Have message *n* hang a worker without a time limit, and wait for its dead letter."""
    gate = threading.Event()
    send(settings, f"hang{n}")
    with Worker(WORK, lambda _: gate.wait(200), worker_settings) as worker:
        begun = time.monotonic()
        wait_for(lambda: worker.statistics().oldest > 1)
        once_begun()
        worker.wait_until(dead=1, timeout=90)
        fault_row.heal_seconds.append(time.monotonic() - begun)
        # the handlers still run, and nothing is expected of them
        wait_for(lambda: (worker.statistics().in_progress, worker.statistics().oldest) == (0, 0))
        assert worker.statistics().stuck > 1
        gate.set()
    [dead] = drain(WORK.dead, settings=settings)
    assert dead.reason.startswith("AckTimedOut: 3 times"), dead.reason
    fault_row.trials += 1


@pytest.mark.fault("F33")
@trial_counts(1, 20)
@pytest.mark.parametrize("queue_type", ["quorum"])
def test_handler_that_never_returns_without_a_limit(
    short_ack_timeout, rabbit_settings, fault_row, queue_type, times
):
    """Each ack that times out begins it again, with a concurrency of 1; the third is the last."""
    settings = rabbit_settings.replace(queue_type=queue_type)
    for n in range(times):
        hang_until_dead(settings, settings, fault_row, n)


@pytest.mark.fault("F33")
@trial_counts(1, 20)
def test_handler_that_never_returns_since_before_a_cut(
    short_ack_timeout, rabbit_settings, fault_row, times
):
    """Its message is delivered again and waits for that very handler: it is dead-lettered, too."""
    settings = rabbit_settings.replace(queue_type="quorum")
    with Proxy(settings) as proxy:
        for n in range(times):
            hang_until_dead(settings, proxy.settings, fault_row, n, proxy.cut)


@pytest.mark.fault("F33")
@trial_counts(1, 20)
def test_handler_that_never_returns_and_the_broker_forgets(
    rabbit, rabbit_settings, monkeypatch, fault_row, times
):
    """RabbitMQ 4.3 loses the timer of its acks: the worker makes it look, and it takes it back."""
    if not fault_row.broker.startswith("4.3"):
        pytest.skip("only RabbitMQ 4.3 has a timer for each queue")
    monkeypatch.setattr(overdue_acks, "INTERVAL", 1.0)
    settings = rabbit_settings.replace(queue_type="quorum")
    begun = threading.Semaphore(0)
    with brokers.parameters(rabbit, consumer_timeout=8000):
        while fault_row.trials < times:
            gates = {"before": threading.Event(), "hang": threading.Event()}

            def hang(id, gates=gates):
                begun.release()
                gates[id].wait(100)

            with Worker(WORK, hang, settings) as worker:
                send(settings, "before")
                assert begun.acquire(timeout=20)
                wait_for(lambda: worker.statistics().oldest > 2 * LATER / 1000)
                gates["before"].set()
                worker.wait_until(done=1)
                send(settings, "hang")
                assert begun.acquire(timeout=20)
                is_lost = lose_ack_timer(rabbit, settings.topology.wire_name("work"))
                started = time.monotonic()
                began_again = begun.acquire(timeout=30) if is_lost else None
                gates["hang"].set()
                worker.wait_until(done=2)
            if is_lost:
                assert began_again, worker.statistics()
                fault_row.heal_seconds.append(time.monotonic() - started)
                fault_row.trials += 1
            else:
                fault_row.count_not_triggered(5 * times)


@pytest.mark.fault("F37")
@trial_counts(1, 5)
@pytest.mark.parametrize("processes", [None, 2, pytest.param(4, marks=pytest.mark.long)])
def test_stopped_with_the_default_grace(settings, work, fault_row, tmp_path, processes, times):
    """SIGTERM with handlers that hang, the default grace: it ends before Docker kills it."""
    number = processes or 1
    for n in range(times):
        options = [] if processes is None else ["--processes", str(processes)]
        worker = work(settings, "--timeout", "600", "--prefetch", "1", *options)
        ids = {f"hang{n}-{i}" for i in range(number)}
        send(settings, *ids)
        wait_for(lambda: worker.health("")[1].get("in_progress") == number, 40)  # noqa: B023
        code, seconds = worker.stop()
        fault_row.heal_seconds.append(seconds)
        assert (code, seconds < 9) == (0, True), (seconds, worker.log.read_text())
        assert found_in("work", settings) == dict.fromkeys(ids, 0)
        fault_row.trials += 1


@pytest.mark.fault("F37")
@trial_counts(1, 5)
@pytest.mark.parametrize(
    ("stage", "ended", "processes"),
    [
        pytest.param("waits_for_a_thread", None, None, id="that it waits for"),
        pytest.param("waits_no_longer", "dead", None, id="that it gave up"),
        pytest.param("leaves_a_pool_behind", "done", None, id="of its pool"),
        pytest.param("leaves_a_pool_behind", "done", 1, id="in a worker process", marks=LONG),
    ],
)
def test_stopped_while_a_thread_of_a_handler_hangs(
    settings, work, fault_row, stage, ended, processes, times
):
    """SIGTERM ends the process in time, whether the handler still waits for it or has returned."""
    for n in range(times):
        options = [] if processes is None else ["--processes", str(processes)]
        worker = work(settings, "--grace", str(GRACE), *options, stage=stage)
        send(settings, f"m{n}")
        wait_for(lambda: worker.health("")[1].get(ended or "in_progress") == 1, 40)  # noqa: B023
        code, seconds = worker.stop()
        fault_row.heal_seconds.append(seconds)
        assert (code, seconds < 9) == (0, True), (seconds, worker.log.read_text())
        left = {} if ended else {f"m{n}": 0}
        assert found_in("work", settings) == left
        fault_row.trials += 1

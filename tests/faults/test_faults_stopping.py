"""A worker that is stopped in any state, or whose clock is changed, loses nothing."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from rig import work_stage
from rig.trial import Trial, trial_counts
from rig.worker_pool import WorkerPool
from support.waiting import wait_for

from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import depth
from mousetrap.model.topology import Queue
from mousetrap.pytest_plugin import missing

WORK = Queue("work", work_stage.DELAYS)
STOP_TIMEOUT = 0.5  # seconds for the messages in progress
CLOSE_TIMEOUT = 4.0  # seconds to close two connections when the broker does not answer
PROMPT_EXIT = 1.0  # seconds for what needs no waiting


# Each of these brings a worker into a state and keeps it there until its block ends. *start* is
# `WorkerPool.start`, *gate* a file that the handler waits for.


@contextlib.contextmanager
def connecting(trial, start, gate):
    with socket.create_server(("127.0.0.1", 0)) as silent_port:
        worker = start(trial.settings.replace(host="127.0.0.1", port=silent_port.getsockname()[1]))
        silent_port.accept()
        yield worker


@contextlib.contextmanager
def idle(trial, start, gate):
    gate.touch()
    worker = start(trial.settings, RIG_GATE=str(gate))
    trial.settle()
    wait_for(lambda: depth("work", trial.settings).consumers == 1)
    yield worker


@contextlib.contextmanager
def handling(trial, start, gate):
    worker = start(trial.settings, RIG_GATE=str(gate))
    wait_for(gate.with_suffix(".begun").exists)
    yield worker


@contextlib.contextmanager
def confirming(trial, start, gate):
    with Proxy(trial.settings) as proxy:
        step = proxy.at("Basic.Publish", action=lambda: proxy.hold("from broker"))
        worker = start(proxy.settings)
        step.wait()
        yield worker


@contextlib.contextmanager
def cut_off(trial, start, gate):
    with Proxy(trial.settings) as proxy:
        worker = start(proxy.settings, RIG_GATE=str(gate))
        wait_for(gate.with_suffix(".begun").exists)
        proxy.refuse()
        proxy.cut()
        gate.touch()
        wait_for(lambda: "next try in" in worker.log.read_text())
        yield worker


@contextlib.contextmanager
def blocked(trial, start, gate, rabbit):
    rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0")
    try:
        worker = start(trial.settings)
        wait_for(lambda: "blocked" in worker.log.read_text())
        yield worker
    finally:
        rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0.6")


def stop_repeatedly(trial, worker_pool, fault_row, seeded_random, folder, state, times):
    while fault_row.trials < times:
        n = fault_row.trials
        trial.send(f"{n}-{i}" for i in range(3))
        gate = folder / str(n)
        number, is_twice = (
            seeded_random.choice([signal.SIGTERM, signal.SIGINT]),
            seeded_random.random() < 0.5,
        )

        def start(settings, **environment):
            return worker_pool.start(
                settings, "--grace", str(STOP_TIMEOUT), "--prefetch", "2", **environment
            )

        with state(trial, start, gate) as worker:
            signalled = time.monotonic()
            worker.kill(number)
            if state in (idle, handling):
                wait_for(lambda: depth("work", trial.settings).consumers == 0, PROMPT_EXIT)
            if is_twice and worker.is_running:
                signalled = time.monotonic()
                worker.kill(number)
            code = worker.wait()
            seconds = time.monotonic() - signalled
            # -number: the second signal came when the handler of signals was already removed
            expected = (0, 1, 128 + number, -number)
            assert code in expected, (number, is_twice, worker.log.read_text())
            assert seconds < (STOP_TIMEOUT + CLOSE_TIMEOUT if code in (0, 1) else PROMPT_EXIT)
        trial.finish()
        fault_row.trials += 1
    fault_row.add(trial.drain_queues(), 0)


@pytest.mark.fault("F21")
@trial_counts(3, 100)
@pytest.mark.parametrize("state", [connecting, idle, handling, confirming, cut_off],
                         ids=lambda state: state.__name__.replace("_", " "))  # fmt: skip
def test_stopped_while(settings, worker_pool, fault_row, seeded_random, tmp_path, state, times):
    """SIGTERM or SIGINT: no new message is taken, those in progress end or are redelivered.

    A second signal ends the worker at once.
    """
    with Trial(settings, WORK) as trial:
        stop_repeatedly(trial, worker_pool, fault_row, seeded_random, tmp_path, state, times)


@pytest.mark.fault("F21")
@trial_counts(2, 100)
def test_stopped_while_blocked(
    rabbit_settings, rabbit, worker_pool, fault_row, seeded_random, tmp_path, times
):
    """The same while an alarm blocks the publishing of its results."""
    with Trial(rabbit_settings, WORK) as trial:
        state = lambda *given: blocked(*given, rabbit)  # noqa: E731 -- adds an argument
        stop_repeatedly(trial, worker_pool, fault_row, seeded_random, tmp_path, state, times)


# ---- the clock -----------------------------------------------------------------------------------

CONFIRM_TIMEOUT = 2.0  # seconds


@pytest.fixture
def clock(tmp_path):
    """A file with the seconds by which the clock of the workers of `pool_with_clock` is wrong."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    return clock


@pytest.fixture
def pool_with_clock(tmp_path, clock):
    """Workers whose wall clock can be set, while the monotonic clock goes on."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        missing("no libfaketime: apt-get install libfaketime")
    with WorkerPool(
        tmp_path, LD_PRELOAD=str(libraries[0]), FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1",
    ) as worker_pool:  # fmt: skip
        yield worker_pool


@pytest.mark.fault("F20")
@trial_counts(2, 20)
def test_clock_jumps(settings, pool_with_clock, clock, fault_row, seeded_random, times):
    """When the clock jumps by an hour while a confirm is awaited, the timeout comes in time."""
    trial_settings = settings.replace(confirm_timeout=CONFIRM_TIMEOUT)
    with Trial(trial_settings, WORK) as trial:
        while fault_row.trials < times:
            clock.write_text("+0")
            trial.send([f"{fault_row.trials}", f"fail-{fault_row.trials}"])
            with Proxy(trial_settings) as proxy:
                step = proxy.at(
                    "Basic.Publish", action=lambda proxy=proxy: proxy.hold("from broker")
                )
                worker = pool_with_clock.start(proxy.settings)
                step.wait()
                clock.write_text(seeded_random.choice(["+3600", "-3600"]))
                wait_for(
                    lambda worker=worker: "no answer in" in worker.log.read_text(),
                    3 * CONFIRM_TIMEOUT,
                )
                fault_row.heal_seconds.append(abs(time.time() - step.at - CONFIRM_TIMEOUT))
                clock.write_text(seeded_random.choice(["+0", "+7200", "-7200"]))
                proxy.release()
                proxy.cut()
                trial.settle()
                worker.kill(signal.SIGTERM)
                assert worker.wait() == 0
            logged = re.search(r"^(\S+ \S+),\d+ .*no answer in", worker.log.read_text(), re.M)[1]
            there = time.mktime(time.strptime(logged, "%Y-%m-%d %H:%M:%S"))
            assert abs(there - time.time()) > 3000  # or the fault was not triggered
            fault_row.trials += 1
        trial.finish()
        fault_row.add(trial.drain_queues(), 0)
    assert max(fault_row.heal_seconds) <= 1.0

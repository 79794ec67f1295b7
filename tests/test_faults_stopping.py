"""A worker that is told to stop, once or twice, in whatever state: nothing is lost by it."""

from __future__ import annotations

import contextlib
import signal
import socket
import time

import pytest
from rig import flow
from rig.trial import Trial, sizes, wait_for

from mousetrap.faults.proxy import Proxy
from mousetrap.job_queue import depth
from mousetrap.topology import Queue

WORK = Queue("work", flow.DELAYS)
GRACE = 0.5  # seconds for what is in hand
CLOSING = 4.0  # seconds that closing two connections may take, when nobody answers
PROMPT = 1.0  # seconds


# Each of these brings a worker into a state, and leaves it there while its block lasts. *start* is
# `Crew.start`, *gate* a file that the handler waits for.


@contextlib.contextmanager
def connecting(trial, start, gate):
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        worker = start(trial.settings.but(host="127.0.0.1", port=dumb.getsockname()[1]))
        dumb.accept()
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


def stop_often(trial, crew, tally, chance, folder, state, times):
    while tally.trials < times:
        n = tally.trials
        trial.send(f"{n}-{i}" for i in range(3))
        gate = folder / str(n)
        number, is_twice = chance.choice([signal.SIGTERM, signal.SIGINT]), chance.random() < 0.5

        def start(settings, **environment):
            return crew.start(settings, "--grace", str(GRACE), "--prefetch", "2", **environment)

        with state(trial, start, gate) as worker:
            told = time.monotonic()
            worker.kill(number)
            if state in (idle, handling):
                wait_for(lambda: depth("work", trial.settings).consumers == 0, PROMPT)
            if is_twice and worker.is_running:
                told = time.monotonic()
                worker.kill(number)
            code = worker.wait()
            seconds = time.monotonic() - told
            assert code in (0, 1, 128 + number), worker.log.read_text()
            assert seconds < (PROMPT if code > 1 else GRACE + CLOSING)
        trial.finish()
        tally.trials += 1
    tally.judge(trial.observe(), 0)


@pytest.mark.fault("F21")
@sizes(3, 100)
@pytest.mark.parametrize("state", [connecting, idle, handling, confirming, cut_off],
                         ids=lambda state: state.__name__.replace("_", " "))  # fmt: skip
def test_told_to_stop(settings, crew, tally, chance, tmp_path, state, times):
    """SIGTERM or SIGINT: nothing new is taken, what is in hand ends or goes back; twice: now."""
    with Trial(settings, WORK) as trial:
        stop_often(trial, crew, tally, chance, tmp_path, state, times)


@pytest.mark.fault("F21")
@sizes(2, 100)
def test_told_to_stop_while_blocked(own, rabbit, crew, tally, chance, tmp_path, times):
    """The same while an alarm holds its results back."""
    with Trial(own, WORK) as trial:
        state = lambda *given: blocked(*given, rabbit)  # noqa: E731 -- one argument more
        stop_often(trial, crew, tally, chance, tmp_path, state, times)

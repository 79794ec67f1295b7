"""Faults while calls wait for their answers: each ends, with its own answer or an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig.trial import trial_counts
from support.waiting import wait_for

from mousetrap import call
from mousetrap.errors import CallTimedOut, MousetrapError, WireError
from mousetrap.job_queue import declare
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

THREADS, EACH = 4, 25
TIMEOUT = 60.0  # seconds of a call
KNOWN = (WireError, MousetrapError)


class Calls:
    """Calls from several threads, at full rate, and what became of each."""

    def __init__(self, settings, timeout=TIMEOUT) -> None:
        self.settings, self.timeout = settings, timeout
        self.answers: dict[int, object] = {}
        self.errors: dict[int, BaseException] = {}

    def __call__(self, thread: int) -> None:
        for n in range(thread * EACH, (thread + 1) * EACH):
            try:
                self.answers[n] = call("ask", n, self.timeout, self.settings)
            except MousetrapError as error:
                self.errors[n] = error

    def add_to(self, fault_row) -> None:
        """Count calls that have neither an answer nor an error as lost, others' as unexpected."""
        fault_row.trials += 1
        fault_row.messages += THREADS * EACH
        fault_row.lost += THREADS * EACH - len(self.answers) - len(self.errors)
        fault_row.unexpected += sum(found != {"of": n} for n, found in self.answers.items())
        assert (fault_row.lost, fault_row.unexpected) == (0, 0)


def reply(n: int) -> dict[str, int]:
    return {"of": n}


@pytest.mark.fault("F57")
@trial_counts(1, 20)
def test_connection_of_the_worker_cut_while_calls_wait(settings, proxy, fault_row, times):
    """The requests are delivered again, to a worker that answers: the caller notices nothing."""
    queue = Queue("ask", (0.05,))
    for _ in range(times):
        asked = Calls(settings)
        with Worker(queue, reply, proxy.settings), ThreadPoolExecutor(THREADS) as pool:
            done = pool.map(asked, range(THREADS))
            for answered in (10, 30, 60):
                wait_for(lambda a=asked, n=answered: len(a.answers) >= n, TIMEOUT)
                proxy.cut()
            list(done)
        assert asked.errors == {}
        asked.add_to(fault_row)


@pytest.mark.fault("F57")
@trial_counts(1, 10)
def test_broker_killed_while_calls_wait(rabbit, rabbit_settings, fault_row, times):
    """Those on their way fail at once and say so; the others, and the next ones, are answered."""
    queue = Queue("ask", (0.05,))
    for n in range(times):
        settings = rabbit_settings.replace(namespace=f"{rabbit_settings.namespace}-{n}")
        asked = Calls(settings)
        with Worker(queue, reply, settings), ThreadPoolExecutor(THREADS) as pool:
            done = pool.map(asked, range(THREADS))
            wait_for(lambda a=asked: len(a.answers) >= 10, TIMEOUT)
            rabbit.kill()
            rabbit.start()
            list(done)
        assert asked.answers.keys() & set(range(EACH - 1, THREADS * EACH, EACH))
        assert not any(isinstance(each, CallTimedOut) for each in asked.errors.values())
        assert len(asked.errors) <= THREADS * 5
        asked.add_to(fault_row)


@pytest.mark.fault("F57")
@trial_counts(1, 10)
def test_worker_stopped_while_calls_wait(settings, fault_row, times):
    """What it gives back is answered by the next one: with the request's name for answers."""
    queue = Queue("ask", (0.05,))
    for _ in range(times):
        asked, release = Calls(settings), threading.Event()

        def slow(n: int, release=release) -> dict[str, int]:
            release.wait(TIMEOUT)
            return reply(n)

        declare(queue, settings=settings)
        with ThreadPoolExecutor(THREADS) as pool:
            with Worker(queue, slow, settings, concurrency=2) as first:
                done = pool.map(asked, range(THREADS))
                wait_for(lambda w=first: w.unacked >= 2, TIMEOUT)
                first.stop(0.1, process_ends=True)
            release.set()
            with Worker(queue, reply, settings):
                list(done)
        assert asked.errors == {}
        asked.add_to(fault_row)

"""`settle` is exact: never early, never late, whatever happens to the workers meanwhile."""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import threading
import time

import pytest
from support.messages import open_messages

import mousetrap
from mousetrap import stage
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.start_fetch import FetchJob

DELAYS = (0.02, 0.05)  # seconds
TIMEOUT = 60.0  # seconds


def flow_of(chance):
    """Two stages that fan out, fail and dawdle by chance."""

    @stage(reads="roots", writes="leaves", concurrency=3)
    def branch(n: int):
        if chance.random() < 0.15:
            raise ConnectionError("chance")
        threading.Event().wait(chance.random() * 0.004)
        yield from range(n)

    @stage(reads="leaves", concurrency=3)
    def leaf(n: int) -> None:
        if chance.random() < 0.15:
            raise ConnectionError("chance")
        threading.Event().wait(chance.random() * 0.004 * (n % 3))

    return [branch, leaf]


def one_run(number, settings):
    """Run a flow with trouble in it; return what was found open afterwards, and the overhead."""
    chance = random.Random(number)
    with_processes = number % 5 == 4
    if with_processes:
        options = {"workers": "processes", "processes": 2}
        flow, jobs = [fetch, process], [
            FetchJob(n, places=3, failure_rate=0.15, latency=0.002) for n in range(40)
        ]  # fmt: skip
    else:
        options, flow = {}, flow_of(chance)
        jobs = chance.choices(range(5), k=30)
    with mousetrap.run(flow, settings, retry_delays=DELAYS, **options) as run:
        run.send_many(jobs)
        if with_processes:
            some = chance.randrange(len(jobs), 2 * len(jobs))
            run.ledger.wait_for(lambda: run.ledger.open < some, 20)
            run.processes.kill(chance.choice(["fetch-0", "process-1"]))
        elif number % 5 == 3:  # a worker's connection breaks instead
            run.ledger.wait_for(lambda: run.ledger.open < 25, 20)
            victim = chance.choice(run.workers)._consumer.connection
            victim.call(lambda: victim._connection._transport._sock.shutdown(socket.SHUT_RDWR))
        summary = run.settle(TIMEOUT)
        returned = time.time()
        last = max(entry.ended for entry in run.ledger.entries() if entry.ended)
        waiting = open_messages(run)
        in_progress = sum(worker.statistics().in_progress for worker in run.workers)
    assert summary.done + summary.dead == summary.sent == len(jobs)
    assert summary.lost == 0
    return waiting + in_progress, returned - last


def rehearse(numbers, settings, capsys):
    found, overheads = zip(*(one_run(n, settings) for n in numbers), strict=True)
    with capsys.disabled():
        print(
            f"\n{len(found)} runs: {sum(found)} messages open after settle; from the last fate to "
            f"the return: median {1000 * statistics.median(overheads):.1f} ms, "
            f"longest {1000 * max(overheads):.1f} ms"
        )
    assert sum(found) == 0


def test_settle_is_exact(settings, capsys):
    """Ten runs with failures, fan-out, cut connections and killed processes: nothing is open."""
    rehearse(range(10), settings, capsys)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_settle_is_exact_two_hundred_times(settings, capsys):
    """0 messages open afterwards in 200 runs, and none hangs."""
    rehearse(range(1000, 1200), settings, capsys)


def test_the_same_jobs_give_the_same_record(settings):
    """Times aside, twenty runs of the same jobs have one account."""
    counts = []
    for _ in itertools.repeat(None, 20):
        with mousetrap.run([fetch, process], settings, retry_delays=DELAYS, concurrency=3) as run:
            run.send_many(FetchJob(n, places=2, failure_rate=0.4) for n in range(30))
            counts.append(run.settle(TIMEOUT).counts())

    assert counts == counts[:1] * 20
    assert counts[0]["dead"] > 0

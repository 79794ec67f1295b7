"""A machine that was asleep: a run, its workers or a kernel stands still, for up to ten minutes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from rig.trial import LONG, trial_counts
from support.messages import send

from mousetrap.job_queue import drain

JOBS = 100  # of one trial
WORKERS = ["threads", "processes"]
SLEEPER = """
    import sys, time
    import mousetrap
    from mousetrap.errors import QueuesLost
    from mousetrap.run_fetch_worker import fetch
    from mousetrap.start_fetch import FetchJob
    settings = mousetrap.Settings.from_environment().replace(heartbeat=1.0)
    with mousetrap.run(fetch, settings, workers=sys.argv[1]) as run:
        run.send_many(FetchJob(n, latency=0.02) for n in range(100))
        run.ledger.wait_for(lambda: run.ledger.open < 90, 60)
        pids = run.processes.pids().values() if run.processes else ()
        print(*pids, flush=True)
        try:
            summary = run.settle(timeout=float(sys.argv[2]))
            results = {each.id for each in run.results()}
            print(summary.lost, summary.done, len(results), flush=True)
        except QueuesLost as error:
            print(error, flush=True)
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """A state folder of its own: no other run of this machine is swept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def asleep(settings, workers, seconds, *, expiry):
    """Stop the process of a run, or its workers, for *seconds*; return what it says, and how soon.

    The answer comes when the run has settled, or cannot.
    """
    child = subprocess.Popen(
        # its clock goes on while it is stopped
        [sys.executable, "-c", textwrap.dedent(SLEEPER), workers, str(seconds + 90)],
        stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.replace(queue_expiry=expiry).to_environment(),
    )  # fmt: skip
    try:
        pids = [int(pid) for pid in child.stdout.readline().split()] or [child.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)  # the pause is the subject
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        woke = time.monotonic()
        return child.stdout.readline().strip(), time.monotonic() - woke
    finally:
        child.kill()
        child.communicate()


@pytest.mark.fault("F50")
@trial_counts(1, 20)
@pytest.mark.parametrize("workers", WORKERS)
def test_asleep_for_less_than_the_expiry(settings, workers, fault_row, times):
    """The run, or its workers, lose their connections meanwhile; afterwards everything goes on."""
    for _ in range(times):
        answer, _ = asleep(settings, workers, 5, expiry=60)
        assert answer == "0 100 100"
        fault_row.trials += 1
        fault_row.messages += JOBS


@pytest.mark.fault("F50")
@trial_counts(1, 20)
def test_asleep_for_longer_than_the_expiry(settings, fault_row, times):
    """The run says within five seconds that its queues expired, and how much is lost."""
    for _ in range(times):
        answer, seconds = asleep(settings, "threads", 8, expiry=2)
        assert "because this machine slept" in answer
        assert "without a final outcome, and" in answer
        assert seconds < 5
        fault_row.heal_seconds.append(seconds)
        fault_row.trials += 1
        fault_row.messages += JOBS


@pytest.mark.fault("F50")
@trial_counts(1, 20)
def test_workers_asleep_for_longer_than_the_expiry(settings, fault_row, times):
    """The run is awake and renews the queues: nothing expires."""
    for _ in range(times):
        answer, _ = asleep(settings, "processes", 6, expiry=2)
        assert answer == "0 100 100"
        fault_row.trials += 1
        fault_row.messages += JOBS


@pytest.mark.fault("F50")
@pytest.mark.parametrize("seconds", [pytest.param(seconds, marks=LONG) for seconds in (90, 600)])
@pytest.mark.parametrize("workers", WORKERS)
def test_asleep_for_minutes(settings, workers, seconds, fault_row):
    """As for seconds: the broker has long closed every connection of the sleeper."""
    answer, _ = asleep(settings, workers, seconds, expiry=4 * seconds)
    assert answer == "0 100 100"
    fault_row.trials += 1
    fault_row.messages += JOBS


NOTEBOOK = f"""
from mousetrap.run_fetch_worker import fetch
from mousetrap.start_fetch import FetchJob
handle = consume("work", lambda n: n, writes="out")
run = mousetrap.run(fetch, Settings.from_environment()).start()
receipts = run.send_many(FetchJob(n, latency=0.02) for n in range({JOBS}))
run.ledger.wait_for(lambda: run.ledger.open < {JOBS - 10}, 60)
"""


@pytest.mark.fault("F50")
@pytest.mark.parametrize(
    "seconds", [5, *(pytest.param(seconds, marks=LONG) for seconds in (90, 600))]
)
def test_kernel_asleep_for(start_kernel, settings, seconds, fault_row):
    """A notebook's run and its background consumer go on, with what was sent meanwhile."""
    settings = settings.replace(heartbeat=1.0, queue_expiry=4.0 * seconds + 60)
    kernel = start_kernel(settings)
    kernel.run(NOTEBOOK)
    os.kill(kernel.pid, signal.SIGSTOP)
    jobs = send(settings, *range(20))
    time.sleep(seconds)  # the pause is the subject
    os.kill(kernel.pid, signal.SIGCONT)
    kernel.run(f"handle.wait_until(done={len(jobs)}, timeout=60)")

    summary = kernel.value("(s := run.settle(timeout=90)).lost, s.done", 120)
    assert summary == (0, JOBS)
    assert kernel.value("len({each.id for each in run.results()})") == JOBS
    assert kernel.value("handle.is_running")
    kernel.run("run.stop(); handle.stop()")
    results = {each.parent for each in drain("out", settings=settings, idle=0.5)}
    assert results == {each.id for each in jobs}
    fault_row.trials += 1
    fault_row.messages += JOBS + len(jobs)

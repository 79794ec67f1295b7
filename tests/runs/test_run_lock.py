"""A sweep deletes the queues of runs whose process is gone, and of no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from support.messages import existing_queues

import mousetrap
from mousetrap import stage
from mousetrap.run_fetch_worker import fetch
from mousetrap.runs.run_lock import RunLock, stale_runs, sweep


@stage(reads="numbers")
def double(n: int) -> int:
    return 2 * n


def test_run_is_stale_when_its_lock_is_free(settings, own_state):
    """A held lock means a live run; a released one a stale run; a deleted file no run at all."""
    lock = RunLock(settings.replace(namespace="run-1"), ["run-1.numbers"])
    live = stale_runs()
    lock.release()
    stale = stale_runs()
    lock.delete()

    assert (live, stale, stale_runs()) == ([], ["run-1"], [])
    assert list(own_state.iterdir()) == []


def test_sweep_removes_a_file_that_was_not_finished(settings, own_state):
    """The process was killed while it wrote the file, so it had not declared a queue."""
    RunLock(settings.replace(namespace="run-1"), []).release()
    (own_state / "run-1.json").write_text('{"host": "loc')

    assert sweep(settings) == []
    assert list(own_state.iterdir()) == []


def test_sweep_keeps_the_file_when_the_broker_cannot_be_reached(settings, own_state):
    """The next sweep tries again; the problem is in the result."""
    unreachable = settings.replace(namespace="run-1", port=1, connect_timeout=0.5)
    RunLock(unreachable, ["run-1.numbers"]).release()

    [stale] = sweep(settings.replace(connect_timeout=0.5))

    assert stale.queues == ()
    assert "no broker listens" in stale.problem
    assert len(list(own_state.iterdir())) == 1


def test_sweep_leaves_live_runs_alone(settings, own_state):
    """A live run holds its lock; a run that ended without an error has no file."""
    with mousetrap.run(double, settings) as run:
        assert sweep(settings) == []
        assert run.settle(timeout=5).sent == 0
        assert len(list(own_state.iterdir())) == 1

    assert list(own_state.iterdir()) == []


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_sweep_deletes_the_queues_of_a_killed_run(settings, own_state, workers):
    """After SIGKILL, the sweep names the run and deletes its queues; the next one finds nothing."""
    program = f"""
        import mousetrap
        from mousetrap.run_fetch_worker import fetch
        from mousetrap.start_fetch import FetchJob
        settings = mousetrap.Settings.from_environment()
        with mousetrap.run(fetch, settings, workers={workers!r}) as run:
            run.send_many(FetchJob(n, latency=0.1) for n in range(100))
            run.ledger.wait_for(lambda: run.ledger.open < 99, 30)
            print(run.namespace, flush=True)
            run.settle(timeout=60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.to_environment(),
    )  # fmt: skip
    namespace = child.stdout.readline().strip()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    run = mousetrap.run(fetch, settings)
    run._queues._settings = run.settings.replace(namespace=namespace)
    assert existing_queues(run)

    [stale] = sweep(settings)

    assert stale.namespace == namespace
    assert stale.problem == ""
    assert f"{namespace}.start_fetch" in stale.queues
    assert str(child.pid) in stale.process
    assert existing_queues(run) == {}
    assert sweep(settings) == []

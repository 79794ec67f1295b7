"""Runs beside `sweep` and `doctor`, in forked processes, and on a machine that was asleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest
from rig.trial import trial_counts

import mousetrap
from mousetrap import stage
from mousetrap.runs.locked_file import LockedFile
from mousetrap.runs.run_lock import RunLock, stale_runs

LISTER = """
    import json, sys, threading
    from mousetrap import Settings, doctor
    from mousetrap.runs.run_lock import stale_runs, sweep
    settings = Settings.from_environment().replace(connect_timeout=0.2)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    found, passes = set(), 0
    print("ready", flush=True)
    while not ended.is_set():
        passes += 1
        if sys.argv[1] == "sweep":
            found.update(each.namespace for each in sweep(settings))
        elif sys.argv[1] == "doctor":
            found.update(doctor._stale_runs().text.split())
        else:
            found.update(stale_runs())
    print(json.dumps([passes, sorted(found)]))
"""


@stage(reads="numbers", writes="doubled")
def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    """A state folder of its own: no other run of this machine is swept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "mousetrap" / "runs"


@pytest.fixture
def listers(settings, own_state):
    """Two processes that sweep in a tight loop, one that lists, and one that examines."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(LISTER), what],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | settings.to_environment(),
        )
        for what in ("sweep", "sweep", "list", "doctor")
    ]  # fmt: skip
    for each in started:
        assert each.stdout.readline() == "ready\n"
    yield started
    for each in started:
        each.kill()
        each.communicate()


def in_fork(action):
    """Call *action* in a forked child that then ends as a Python program does; wait for it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def short_lives(settings, numbers, forks, problems):
    """Let a run's file live for each of *numbers*, while it must be found locked and complete."""
    for n in numbers:
        lock = RunLock(settings.replace(namespace=f"live-{n}"), [f"live-{n}.numbers"])
        path = lock._file.path
        if n % forks == 0:
            in_fork(lock.delete)
        if LockedFile.try_open(path) is not None or '"queues"' not in path.read_text():
            problems.append(n)
        lock.delete()


@pytest.mark.fault("F47")
@trial_counts(500, 5000)
def test_live_runs_are_never_taken_for_dead(settings, own_state, listers, fault_row, times):
    """Whatever sweeps and lists beside them; a dead run whose broker is gone is kept."""
    RunLock(settings.replace(namespace="dead", port=1), ["dead.numbers"]).release()
    problems = []
    threads = [
        threading.Thread(target=short_lives, args=(settings, range(first, times, 3), 25, problems))
        for first in range(3)
    ]
    for each in threads:
        each.start()
    lost = 0
    for n in range(times // 100):
        with mousetrap.run(double, settings) as run:
            run.send(n)
            in_fork(run.stop)
            lost += run.settle(timeout=30).lost
            lost += 1 - len(run.results())
    for each in threads:
        each.join(600)
    found, passes = set(), 0
    for each in listers:
        out, _ = each.communicate(timeout=60)
        count, names = json.loads(out)
        passes += count
        found |= {name.strip(",") for name in names}

    assert (problems, lost) == ([], 0)
    assert passes > times // 10, "the listers did not run beside them"
    assert [name for name in found if name.startswith(("live-", settings.namespace[:8]))] == []
    assert "dead" in found
    assert stale_runs() == ["dead"]
    assert [each.name for each in own_state.glob("*.json")] == ["dead.json"]
    fault_row.trials = times
    fault_row.messages = times // 100

"""One worker process: its report, its exit, and the delay before the next one.

The processes are small Python programs that write a report as ``mousetrap work`` does.
"""

from __future__ import annotations

import json
import os
import sys

import pytest
from support.waiting import wait_for

from mousetrap.runtime import clock
from mousetrap.worker.worker_process import (
    FIRST_RESTART_DELAY,
    MAX_REPORT_AGE,
    MAX_RESTART_DELAY,
    STABLE_AFTER,
    WorkerProcess,
)

# Writes the report in its first argument to the file in its last one, then waits until its standard
# input closes, and exits with the code in its second argument.
REPORTS = """
import os, sys
with open(sys.argv[-1] + ".new", "w") as file:
    file.write(sys.argv[1])
os.replace(sys.argv[-1] + ".new", sys.argv[-1])
print("reported", flush=True)
sys.stdin.read()
sys.exit(int(sys.argv[2]))
"""
FACTS = dict.fromkeys(("alive", "connected", "consuming"), True)
WELL = json.dumps({"has_worked": True, "done": 3, "in_progress": 2} | FACTS)


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a worker process; it is killed at the end of the test."""
    made = []

    def make(report=WELL, code=0, program=REPORTS):
        command = [sys.executable, "-c", program, report, str(code)]
        worker = WorkerProcess("x-0", command, os.environ, tmp_path / "report.json",
                               log=tmp_path / "log")  # fmt: skip
        made.append(worker)
        return worker

    yield make
    for worker in made:
        if worker.process is not None:
            worker.kill()
            worker.process.wait(10)
            worker.process.stdin.close()


def test_figures_are_those_of_the_report(make):
    """Counts and facts of a running process; before the report there are none."""
    worker = make()
    worker.start()
    wait_for(worker.last_report)

    assert worker.facts() == FACTS
    assert worker.is_working
    assert worker.counts() == {"done": 3, "in_progress": 2} | dict.fromkeys(
        ("received", "retried", "dead", "reconnects", "prefetched", "stuck"), 0
    )
    assert worker.exit_cause() is None


def test_report_that_is_too_old_states_no_facts(make, monkeypatch):
    """Five seconds after the last report a process is not known to be alive; its counts stay."""
    worker = make()
    worker.start()
    wait_for(worker.last_report)
    late = clock.monotonic() + MAX_REPORT_AGE + 1
    monkeypatch.setattr(clock, "monotonic", lambda: late)

    assert not any(worker.facts().values())
    assert worker.counts()["done"] == 3


def test_request_stop_closes_the_standard_input(make):
    """The process finishes and exits by itself; its figures are still there."""
    worker = make(code=7)
    worker.start()
    wait_for(worker.last_report)
    worker.request_stop()

    assert worker.process.wait(10) == 7
    assert worker.counts()["done"] == 3
    assert worker.counts()["in_progress"] == 0
    assert not worker.is_working


@pytest.mark.parametrize(
    ("report", "code", "cause"),
    [(WELL, 2, "died"), ("{}", 2, "misconfigured"), ("{}", 3, "no broker"),
     ('{"has_worked": true, "state": "failed"}', 5, "misconfigured")],
)  # fmt: skip
def test_exit_cause_depends_on_the_code_and_the_last_report(make, report, code, cause):
    """A process that has worked before is not misconfigured, unless its report says so."""
    worker = make(report, code)
    worker.start()
    wait_for(lambda: b"reported" in worker._log.read_bytes())
    worker.request_stop()
    worker.process.wait(10)

    assert worker.exit_cause() == (cause, code)


def test_counts_of_ended_processes_are_added(make):
    """Two processes with three messages each have done six."""
    worker = make()
    for _ in range(2):
        worker.start()
        wait_for(worker.last_report)
        worker.kill()
        worker.process.wait(10)
        worker.mark_exited()

    assert worker.counts()["done"] == 6
    assert worker.counts()["in_progress"] == 0


def test_next_process_starts_after_the_delay(make, monkeypatch):
    """`replace_if_due` starts nothing before, and counts what it starts."""
    worker = make()
    worker.start()
    worker.kill()
    worker.process.wait(10)
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    delay = worker.mark_exited()

    now += delay - 0.01
    worker.replace_if_due()
    assert (worker.process, worker.replaced) == (None, 0)
    now += 0.02
    worker.replace_if_due()
    assert (worker.process is not None, worker.replaced) == (True, 1)


def test_delay_doubles_with_each_exit_up_to_a_maximum(make):
    """After a process that has run for long, the delay is the first one again."""
    worker = make(program="pass")

    def exit_once():
        worker.start()
        worker.process.wait(10)
        return worker.mark_exited()

    delays = [exit_once() for _ in range(10)]
    worker.start()
    worker.process.wait(10)
    worker._started -= STABLE_AFTER
    after_a_long_run = worker.mark_exited()

    for n, delay in enumerate(delays):
        ceiling = min(MAX_RESTART_DELAY, FIRST_RESTART_DELAY * 2**n)
        assert ceiling / 2 <= delay <= ceiling
    assert after_a_long_run <= FIRST_RESTART_DELAY

"""What a run says that can be called next works when it is called."""

from __future__ import annotations

import matplotlib
import pytest

import mousetrap
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.notebook.panel import Panel
from mousetrap.runs.next_calls import next_calls


@mousetrap.stage(reads="words", writes="lengths", retry_delays=())
def measure(word: str) -> int:
    return len(word) // bool(word)


def check_calls(run, expected):
    """The summary and the panel show the *expected* calls, and each of them works."""
    calls = run.summary().next

    assert calls == expected
    assert f"Next: {' · '.join(calls)}" in repr(Panel(run))
    assert f"Next: {' · '.join(calls)}" in str(run.summary())
    for call in calls:
        eval(call.replace("…", "['mouse', '']"), {"mousetrap": mousetrap, "run": run})


def test_calls_of_a_run_work_from_its_start_to_its_end(settings):
    """One job is done and one is dead; each state has its own calls."""
    matplotlib.use("agg")
    run = mousetrap.run(measure, settings)
    check_calls(run, ("run.start()",))
    check_calls(run, ("run.send_many(…)",))
    run.settle(20)
    check_calls(run, ("mousetrap.dead(run)", "run.results()", "run.plot()"))
    letters = repr(mousetrap.dead(run))
    assert f"✕ 1 dead letter of {run.namespace}, 1 of 2 jobs (50 %): 1 kind of error" in letters
    assert "Next: letters = mousetrap.dead(run) · " in letters
    run.stop()
    check_calls(run, ("mousetrap.dead(run)", "run.plot()"))


@pytest.mark.parametrize(
    ("state", "jobs", "expected"),
    [
        ("open", JobCounts(9, 4, 5, 0), ("run.settle()",)),
        ("open", JobCounts(9, 4, 4, 1), ("run.settle()", "mousetrap.dead(run)")),
        ("closed", JobCounts(9, 4, 5, 0), ("run.messages('open')", "run.plot()")),
        ("closed", JobCounts(9, 9, 0, 0), ("run.plot()",)),
    ],
)
def test_calls_depend_on_what_became_of_the_jobs(settings, monkeypatch, state, jobs, expected):
    run = mousetrap.run(measure, settings)
    monkeypatch.setattr(type(run), "state", state)

    assert next_calls(run, jobs) == expected

"""Defects are inserted into a flow and its notebook, and the check has to find each of them.

The notebook is small and has a module of stages beside it, as a user's project would.
"""

from __future__ import annotations

import re
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mousetrap.check import check
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded, ParameterError

DEADLINE = 20.0  # seconds for a whole run, with the start of its kernel

STAGES = """\
from mousetrap import stage

@stage(reads="numbers", writes="squares", retry_delays=(0.05,))
def square(n: int) -> int:
    return n * n

@stage(reads="squares", writes="words", retry_delays=(0.05,))
def spell(n: int) -> str:
    return f"number {n}"
"""
CELLS = {
    "imports": "import mousetrap, my_stages\nfrom mousetrap import drain",
    "parameters": "jobs: int = 10  # how many\nworkers: str = 'threads'  # or processes\n",
    "run": """\
with mousetrap.run(my_stages, mousetrap.Settings.from_environment(), workers=workers) as run:
    run.send_many(range(jobs))
    summary = run.settle(timeout=8)
    results = run.results()
    dead_letters = drain("numbers.dead", settings=run.settings)
""",
    "summary": "summary",
    "claims": """\
assert summary.sent == summary.done == jobs
assert run.flow.results == ["words"]
assert summary.lost == summary.dead == len(dead_letters) == 0
assert sorted(each.data for each in results) == sorted(f"number {n * n}" for n in range(jobs))
""",
}

# name -> (where, what is replaced there, by what)
DEFECTS = {
    "wrong result": ("stages", "n * n", "n * n + (n == 3)"),
    "result missing": ("stages", "return f", "return None if n == 9 else f"),
    "result twice": ("stages", "return f", "yield from [0] if n == 4 else []\n    yield f"),
    "wrong queue": ("stages", 'writes="words"', 'writes="wrods"'),
    "one job fails for good": ("stages", "return n * n", "return 9 // (n - 3) and n * n"),
    "every job fails": ("stages", "return n * n", "raise OSError('no')"),
    "handler exits with 0": ("stages", "return n * n", "raise SystemExit(0)"),
    "handler hangs": ("stages", "return n * n", "import threading; threading.Event().wait()"),
    "handler ends its process": ("stages", "return n * n", "import os; os._exit(0)"),
    "message of another type": ("stages", "n: int) -> int", "n: str) -> int"),
    "no retries and a first failure": (
        "stages", "retry_delays=(0.05,))\ndef square(n: int) -> int:",
        "retry_delays=())\ndef square(n: int) -> int:\n"
        "    from mousetrap.model.message import current_message\n"
        "    if current_message.get().attempt == 1: raise OSError('first')",
    ),
    "stage is missing": ("stages", '@stage(reads="squares"', '#\n@stage(reads="sqaures"'),
    "executor thread dies": (
        "run", "    run.send_many",
        "    run.workers[0]._processor.publish_outputs = None\n    run.send_many",
    ),
    "message lost": (
        "run", "    summary =",
        "    run.workers[1]._consumer.cancel()\n"
        "    drain('squares', n=1, timeout=5, settings=run.settings)\n    summary =",
    ),
    "queue purged": (
        "run", "    run.send_many(range(jobs))",
        "    run.workers[0]._consumer.cancel()\n"
        "    run.send_many(range(jobs)); run._sender.publisher.flush()\n"
        "    mousetrap.purge('numbers', run.settings)",
    ),
    "result stolen": (
        "run", "    results =", "    drain('words', settings=run.settings)\n    results ="
    ),
    "fewer jobs sent": ("run", "range(jobs)", "range(jobs - 1)"),
    "cell exits with 0": ("summary", "summary", "raise SystemExit(0)"),
    "cell calls os._exit": ("summary", "summary", "import os; os._exit(0)"),
    "cell hangs": ("summary", "summary", "import threading; threading.Event().wait()"),
    "cell loops": ("summary", "summary", "while True: pass"),
    "cell crashes the kernel": ("summary", "summary", "import ctypes; ctypes.string_at(0)"),
    "name misspelt": ("summary", "summary", "sumary"),
}  # fmt: skip
WORKERS = {"handler ends its process": "processes"}


def write_project(folder, defect=None):
    """Write the notebook and its stages, with *defect* in one of them; return the notebook."""
    sources = {"stages": STAGES} | CELLS
    if defect is not None:
        where, old, new = DEFECTS[defect]
        assert old in sources[where]
        sources[where] = sources[where].replace(old, new, 1)
    (folder / "my_stages.py").write_text(sources.pop("stages"))
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})
    for name, source in sources.items():
        cell = new_code_cell(source)
        cell.metadata["tags"] = ["parameters"] if name == "parameters" else []
        notebook.cells.append(cell)
    nbformat.write(notebook, folder / "check_squares.ipynb")
    return folder / "check_squares.ipynb"


def run(notebook, settings, **parameters):
    """Check *notebook* with the broker and the namespace of *settings*."""
    environment = settings.to_environment()
    return check(notebook, parameters, deadline=DEADLINE, environment=environment)


def assert_found(defect, settings, folder):
    """Assert that the check fails within its deadline and names a cell."""
    notebook = write_project(folder, defect)
    started = time.monotonic()

    with pytest.raises((CheckFailed, DeadlineExceeded)) as caught:
        run(notebook, settings, workers=WORKERS.get(defect, "threads"))

    assert time.monotonic() - started < DEADLINE + 10
    assert re.search(r"in cell \d", str(caught.value))
    assert caught.value.output.is_file()


def test_check_passes_without_a_defect(settings, tmp_path):
    """The notebook passes with threads and with processes."""
    notebook = write_project(tmp_path)

    for workers in ("threads", "processes"):
        assert run(notebook, settings, workers=workers).passed


@pytest.mark.parametrize(
    "defect", ["wrong result", "message lost", "executor thread dies", "cell exits with 0"]
)
def test_check_finds_a_defect(settings, tmp_path, defect):
    """These run in every tier; the long tier has all defects."""
    assert_found(defect, settings, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(DEADLINE + 40)
@pytest.mark.parametrize("defect", sorted(DEFECTS))
def test_check_finds_every_defect(settings, tmp_path, defect):
    """The check fails within its deadline."""
    assert_found(defect, settings, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jbos": 3}, "did you mean 'jobs'"),
        ({"jobs": "three"}, "a whole number"),
        ({"password": "hunter2"}, "looks like a secret"),
    ],
)
def test_check_refuses_a_wrong_parameter(settings, tmp_path, given, message):
    """A misspelt or mistyped parameter, or a secret, does not run with the defaults instead."""
    with pytest.raises(ParameterError, match=message):
        run(write_project(tmp_path), settings, **given)


def test_check_finds_a_skipped_cell(settings, tmp_path):
    """A cell with the tag skip-execution did not pass: it never ran."""
    notebook = write_project(tmp_path)
    document = nbformat.read(notebook, as_version=4)
    document.cells[4].metadata["tags"] = ["skip-execution"]
    nbformat.write(document, notebook)

    with pytest.raises(CheckError, match="it never ran"):
        run(notebook, settings)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_check_passes_a_hundred_times_without_a_defect(settings, tmp_path):
    """All of 100 runs pass with the same counts."""
    notebook = write_project(tmp_path)

    summaries = [run(notebook, settings).summary for _ in range(100)]

    counts = [{name: each[name] for name in ("sent", "done", "dead", "lost")} for each in summaries]
    assert counts == [{"sent": 10, "done": 10, "dead": 0, "lost": 0}] * 100

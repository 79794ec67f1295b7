"""A check that cannot turn red proves nothing: defects are planted, and each must be found.

The notebook is a small one of its own, with a module of stages beside it, as anybody's would be.
"""

from __future__ import annotations

import re
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mousetrap.check import check
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded, ParameterError

DEADLINE = 20.0  # seconds for a whole run, its kernel included

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
    record = run.settle(timeout=8)
    results = run.results()
    letters = drain("numbers.dead", settings=run.settings)
""",
    "record": "record",
    "claims": """\
assert record.sent == record.done == jobs
assert run.flow.results == ["words"]
assert record.lost == record.dead == len(letters) == 0
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
    "handler takes the process along": ("stages", "return n * n", "import os; os._exit(0)"),
    "message of another type": ("stages", "n: int) -> int", "n: str) -> int"),
    "no retries and a first failure": (
        "stages", "retry_delays=(0.05,))\ndef square(n: int) -> int:",
        "retry_delays=())\ndef square(n: int) -> int:\n"
        "    from mousetrap.model.message import current_message\n"
        "    if current_message.get().attempt == 1: raise OSError('first')",
    ),
    "stage that is not there": ("stages", '@stage(reads="squares"', '#\n@stage(reads="sqaures"'),
    "hand dies": (
        "run", "    run.send_many",
        "    run.workers[0]._processor.publish_outputs = None\n    run.send_many",
    ),
    "message lost": (
        "run", "    record =",
        "    run.workers[1]._consumer.cancel()\n"
        "    drain('squares', n=1, timeout=5, settings=run.settings)\n    record =",
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
    "cell exits with 0": ("record", "record", "raise SystemExit(0)"),
    "cell leaves by os._exit": ("record", "record", "import os; os._exit(0)"),
    "cell hangs": ("record", "record", "import threading; threading.Event().wait()"),
    "cell loops": ("record", "record", "while True: pass"),
    "cell crashes the kernel": ("record", "record", "import ctypes; ctypes.string_at(0)"),
    "name misspelt": ("record", "record", "recrod"),
}  # fmt: skip
WORKERS = {"handler takes the process along": "processes"}


def plant(folder, defect=None):
    """Write the notebook and its stages, with one defect in it."""
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
    environment = settings.to_environment()
    return check(notebook, parameters, deadline=DEADLINE, environment=environment)


def assert_red(defect, settings, folder):
    """The check fails, in time, and its copy names a cell."""
    notebook = plant(folder, defect)
    started = time.monotonic()

    with pytest.raises((CheckFailed, DeadlineExceeded)) as red:
        run(notebook, settings, workers=WORKERS.get(defect, "threads"))

    assert time.monotonic() - started < DEADLINE + 10
    assert re.search(r"in cell \d", str(red.value))
    assert red.value.output.is_file()


def test_the_notebook_without_a_defect_is_green(settings, tmp_path):
    """With threads, with processes: nothing is red that has nothing wrong."""
    notebook = plant(tmp_path)

    for workers in ("threads", "processes"):
        assert run(notebook, settings, workers=workers).passed


@pytest.mark.parametrize(
    "defect", ["wrong result", "message lost", "hand dies", "cell exits with 0"]
)
def test_a_planted_defect_turns_the_check_red(settings, tmp_path, defect):
    """Some of them in every run; all of them in the long tier."""
    assert_red(defect, settings, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(DEADLINE + 40)
@pytest.mark.parametrize("defect", sorted(DEFECTS))
def test_every_planted_defect_turns_the_check_red(settings, tmp_path, defect):
    """Each of them, within its deadline."""
    assert_red(defect, settings, tmp_path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"jbos": 3}, "did you mean 'jobs'"),
        ({"jobs": "three"}, "a whole number"),
        ({"password": "hunter2"}, "looks like a secret"),
    ],
)
def test_a_wrong_parameter_is_found_before_a_kernel_starts(settings, tmp_path, given, says):
    """Misspelt, mistyped, secret: an error, not a run with the defaults."""
    with pytest.raises(ParameterError, match=says):
        run(plant(tmp_path), settings, **given)


def test_a_cell_that_was_skipped_is_missed(settings, tmp_path):
    """A cell with the tag that keeps it from running: not passed, but never run."""
    notebook = plant(tmp_path)
    document = nbformat.read(notebook, as_version=4)
    document.cells[4].metadata["tags"] = ["skip-execution"]
    nbformat.write(document, notebook)

    with pytest.raises(CheckError, match="it never ran"):
        run(notebook, settings)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_runs_without_a_defect_are_green(settings, tmp_path):
    """0 red of 100, and the same account each time."""
    notebook = plant(tmp_path)

    records = [run(notebook, settings).record for _ in range(100)]

    counts = [{name: each[name] for name in ("sent", "done", "dead", "lost")} for each in records]
    assert counts == [{"sent": 10, "done": 10, "dead": 0, "lost": 0}] * 100

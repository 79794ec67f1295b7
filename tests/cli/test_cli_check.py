"""``mousetrap check``: its progress, grids, reports, and help."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from mousetrap.check import CheckProgress, CheckResult, GridProgress, Point, PointResult
from mousetrap.cli import app
from mousetrap.cli.progress import describe, watch_grid
from mousetrap.display import progress

PARAMETERS = """\
n: int = 1  # a [bold]number[/bold]
rate: float = 2 * 0.5
token: str = "hunter2"  # \\x1b[31mred
url: str = "amqp://me:hunter2@host/"
both: "int | None" = None
"""

# What a Run does while it is open.
WRITE_PROGRESS = """\
import json, os
from pathlib import Path
written = {"open": 12, "stages": {"fetch": {"done": 1088, "retried": 3, "dead": 0}}}
Path(os.environ["MOUSETRAP_PROGRESS"]).write_text(json.dumps(written))
"""

STAGES = {"fetch": {"done": 0, "dead": 0}, "process": {"done": 1088, "dead": 3}, "x": {}}


def run(*arguments):
    """Run a command in this process and return its result."""
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook with one parameter and the given cells."""

    def make(*cells, parameters="n: int = 1  # a number", name="notes"):
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[first, *map(new_code_cell, cells)]), path)
        return path

    return make


# --- help ----------------------------------------------------------------------------------------


def test_help_of_a_notebook_lists_its_parameters(notebook):
    """The help also has names, types, defaults and comments, wherever --help stands."""
    path = notebook(parameters="n: int = 1  # a number\nrate: float = 2 * 0.5")

    for arguments in ((path, "--help"), ("-h", path), ("--report", "x.ipynb", path, "-h")):
        result = run("check", *arguments)
        usual, _, own = result.output.partition(f"Parameters of {path}:")
        assert result.exit_code == 0
        assert "--grid NAME=V1,V2,..." in usual
        assert "-p n <int>" in own
        assert "a number  [default: 1]" in own
        assert "-p rate <float>" in own
        assert "[default: 2 * 0.5]" in own
        assert "x.ipynb" not in own.replace(str(path), "")


def test_help_of_a_notebook_is_escaped_and_shows_no_secret(notebook):
    """Comments and defaults are escaped, and a default that looks secret is masked."""
    output = run("check", notebook(parameters=PARAMETERS), "--help").output

    assert "[bold]number[/bold]" in output
    assert "\\x1b[31mred" in output
    assert "\x1b" not in output
    assert "hunter2" not in output
    assert output.count("[default: ********]") == 2
    assert "cannot be set: no type" in output


def test_help_reports_a_file_that_is_no_notebook(notebook, tmp_path):
    """The usual help is printed anyway."""
    notebook()
    result = run("check", tmp_path / "note.ipynb", "--help")

    assert result.exit_code == 0
    assert "Usage: " in result.output
    assert "did you mean" in " ".join(result.output.split())


def test_help_reports_a_notebook_without_parameters(notebook):
    """It prints that there are none, instead of an empty list."""
    assert "none: no cell" in run("check", notebook(parameters=""), "--help").output


def test_parameters_are_listed_without_secrets(notebook):
    """Secret-like defaults are masked in the table and in the JSON."""
    path = notebook(parameters=PARAMETERS)

    assert "hunter2" not in run("check", path, "--parameters").output
    written = json.loads(run("check", path, "--parameters", "--json").stdout)[str(path)]
    assert [each["default"] for each in written] == [1, "2 * 0.5", "********", "********", None]


# --- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "note"),
    [
        (CheckProgress(0, 5), "starting a kernel"),
        (CheckProgress(1, 5, 4, "send()"), "cell 4: send()"),
        (CheckProgress(1, 5, 4, "send()", STAGES, 1234),
         "cell 4: send(); fetch 0 done; process 1,088 done, 3 dead; x; 1,234 open"),
        (CheckProgress(1, 5, 4, "x" * 80, {"fetch": {}}), f"cell 4: {'x' * 24}…; fetch"),
    ],
)  # fmt: skip
def test_note_has_the_cell_and_the_counts_of_the_stages(seen, note):
    """Counts that are zero are left out; with counts, the cell's line is shorter."""
    assert describe(seen) == note


def test_check_shows_how_far_it_is(notebook, monkeypatch):
    """Without a terminal it prints lines with the cell and the counts of its Run."""
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr(progress, "REPORT_INTERVAL", 0.0)
    path = notebook(f"# as a Run does\n{WRITE_PROGRESS}", "n")

    result = run("check", path)

    assert result.exit_code == 0, result.output
    assert "notes.ipynb: cells: 1 of 3; cell 2: import json, os" in result.stderr
    assert "cell 3: n; fetch 1,088 done, 3 retried; 12 open" in result.stderr
    assert f"passed: {path}" in result.stderr


def test_grid_progress_is_plain_lines_without_a_terminal(capsys, monkeypatch):
    """Each point that ends gets a line, and at an interval each point that runs."""
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr(progress, "REPORT_INTERVAL", 0.0)
    with watch_grid() as show:
        show(grid_progress(running=2))
        show(grid_progress(ended=1, running=1))
        show(grid_progress(ended=2))

    assert capsys.readouterr().err.splitlines() == [
        "points: 0 of 3",
        "n=0: cells: 1 of 5; cell 4: send(); fetch 88 done",
        "n=1: cells: 1 of 5; cell 4: send(); fetch 88 done",
        "1 of 3 passed: n=0\\x07 in 1.5 s",
        "points: 1 of 3",
        "n=1: cells: 1 of 5; cell 4: send(); fetch 88 done",
        "2 of 3 not run: n=1\\x07",
        "points: 2 of 3",
    ]


def test_grid_progress_is_a_bar_for_each_that_runs(monkeypatch):
    """Points that have ended are printed above the bars; text of a notebook is escaped."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    with watch_grid() as show:
        show(grid_progress(running=2, line="\x1b]0;title\x07[red]"))
        wait_until(lambda: "n=1" in stream.getvalue())  # it draws itself ten times a second
        show(grid_progress(ended=1, running=1))

    seen = stream.getvalue()
    assert "\\x1b]0;title\\x07[red]" in seen
    assert "\x07" not in seen
    assert "fetch 88 done" in seen
    assert "passed: n=0\\x07 in 1.5 s" in seen


# --- grids and reports ---------------------------------------------------------------------------


def test_grid_runs_every_point_and_reports(notebook, tmp_path):
    """One point fails: exit code 1, a table, its error, and a page with all points."""
    path = notebook("assert n != 2, 'no luck'")

    result = run("check", path, "--grid", "n=1,2", "--parallel", 2, "--report", tmp_path / "out")

    assert result.exit_code == 1
    assert re.search(r"^2 +failed ", result.stdout, re.MULTILINE)
    assert "error: n=2: " in result.stderr
    assert "AssertionError: no luck" in result.stderr
    assert "1 of 2 points passed" in result.stderr
    assert str(tmp_path / "out" / "index.html") in result.stderr.replace("\n", "")
    assert {"index.html", "results.json", "junit.xml"} < {
        each.name for each in (tmp_path / "out").iterdir()
    }


def test_report_on_several_notebooks_as_json(notebook, tmp_path):
    """Without a grid each notebook is a point; --json prints the content of results.json."""
    paths = [notebook("n", name=name) for name in ("one", "two")]

    result = run("check", *paths, "--report", tmp_path / "out", "--parallel", 2, "--json")

    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert written == json.loads((tmp_path / "out" / "results.json").read_text())
    assert [each["name"] for each in written["points"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--grid", "n=1,x"], "'n' is 'x': it must be a whole number"),
        (["--grid", "n=1,1"], "the same"),
        (["--grid", "n="], "empty"),
        (["--grid", "m=1"], "has no parameter 'm'"),
        (["--grid", "n"], "prefetch=1,10,100"),
        (["--grid", "n=1", "-p", "n=2"], "both a parameter and in the grid"),
        (["--grid", "n=1,2", "--output", "x.ipynb"], "--output is for one run"),
        (["--report", "x", "--output", "x.ipynb"], "--output is for one run"),
        (["--parallel", "0"], "--parallel"),
        (["--grid", "n=1", "--total-deadline", "inf"], "not a number of seconds"),
    ],
)
def test_bad_grids_are_one_error_message(notebook, arguments, says, monkeypatch):
    """Exit code 2 before anything runs, without traceback."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))

    result = run("check", notebook("n"), *arguments)

    assert result.exit_code == 2, result.output
    assert says in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_grid_interrupted_ends_everything_and_reports(notebook, tmp_path):
    """Ctrl-C gives exit code 130; the report says which points ran and which did not."""
    path = notebook("open(f'begun{n}', 'w').close()\nimport time; time.sleep(60)")
    command = [sys.executable, "-m", "mousetrap", "check", path, "--grid", "n=1,2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "begun1").exists)

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert re.search(r"^2 +not run$", output, re.MULTILINE)
    assert "Traceback" not in errors
    assert "report: " in errors
    written = json.loads((tmp_path / "_build" / "notes.grid" / "results.json").read_text())
    assert written["ended"] == "interrupted"
    assert [each["verdict"] for each in written["points"]] == ["failed", "not run"]


def grid_progress(ended=0, running=0, line="send()"):
    """The progress of a grid of three points."""
    progress = CheckProgress(1, 5, 4, line, {"fetch": {"done": 88, "dead": 0}})
    path = Path("a.ipynb")
    return GridProgress(
        3,
        tuple(
            PointResult(n, f"n={n}\x07", {}, "x", n == 0, CheckResult(path, path, seconds=1.5))
            for n in range(ended)
        ),
        tuple(
            (Point(n, path, f"n={n}", {}, {}, "x.ipynb", "x"), progress)
            for n in range(ended, ended + running)
        ),
    )


def wait_until(claim, timeout=60.0):
    """Return when *claim* holds."""
    deadline = time.monotonic() + timeout
    while not claim():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.02)

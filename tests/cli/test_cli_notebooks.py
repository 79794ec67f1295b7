"""``mousetrap demo`` and ``mousetrap check`` of single notebooks."""

from __future__ import annotations

import json
import os
import signal

import nbformat
import pytest
from support.waiting import wait_for


def test_check_lists_parameters(run):
    """`--parameters` lists the parameters without a run."""
    output = run("check", "notebooks/check_pipeline.ipynb", "--parameters").output

    assert "failure_rate" in output
    assert "float" in output


def test_demo_accounts_for_every_job(run):
    """The demo runs real worker processes and prints the summary as JSON."""
    result = run("demo", "--jobs", 20, "-p", "broken_jobs=1", "--json")

    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["passed"]
    assert answer["summary"]["lost"] == 0
    assert answer["summary"]["dead"] >= 1


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook with one parameter and one cell."""

    def make(source):
        cells = [nbformat.v4.new_code_cell(each) for each in ("n: int = 1  # a number", source)]
        cells[0].metadata.tags = ["parameters"]
        path = tmp_path / "notes.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return make


def test_check_that_fails_names_the_cell(run, notebook):
    """It prints the cell and its error, with exit code 1; the JSON has the executed copy's path."""
    path = notebook("assert n == 2")

    result = run("check", path, "-p", "n=3", "--json")

    assert result.exit_code == 1
    assert "cell 2" in result.stderr
    answer = json.loads(result.stdout)
    assert not answer["passed"]
    assert answer["parameters"] == {"n": 3}
    assert os.path.exists(answer["output"])


def test_check_goes_on_after_a_failure(run, notebook, tmp_path):
    """Each of several notebooks runs; the highest exit code is the result."""
    path = notebook("n")

    result = run("check", tmp_path / "missing.ipynb", path)

    assert result.exit_code == 1
    assert f"passed: {path}" in result.stderr


def test_check_interrupted_ends_the_kernel_and_keeps_the_copy(start, notebook, tmp_path):
    """Ctrl-C in a cell gives exit code 130, and the executed copy records the interrupt."""
    path = notebook(f"open({str(tmp_path / 'begun')!r}, 'w').close()\nimport time; time.sleep(60)")
    process = start("check", str(path))
    wait_for((tmp_path / "begun").exists, timeout=60)

    process.send_signal(signal.SIGINT)
    _, problems = process.communicate(timeout=15)

    assert process.returncode == 130
    assert "Traceback" not in problems
    assert "KeyboardInterrupt" in (tmp_path / "_build" / "notes.ipynb").read_text()


def test_check_lists_parameters_as_json(run, notebook):
    """The JSON has name, type, default and help of each parameter."""
    path = notebook("n")

    assert json.loads(run("check", path, "--parameters", "--json").stdout) == {
        str(path): [{"name": "n", "type": "int", "default": 1, "help": "a number"}]
    }

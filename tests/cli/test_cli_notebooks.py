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


def test_notebooks_are_copied_and_nothing_is_overwritten(run, tmp_path):
    """A second time the command names the first file that is there, and changes nothing."""
    folder = tmp_path / "learn"
    first = run("notebooks", folder)
    (folder / "00_start_here.ipynb").write_text("mine")
    (folder / "01_channel.ipynb").unlink()

    second = run("notebooks", folder)

    assert first.exit_code == 0, first.output
    assert f"jupyter lab {folder}" in first.output
    assert second.exit_code == 2
    assert "00_start_here.ipynb exists already" in second.output
    assert (folder / "00_start_here.ipynb").read_text() == "mine"
    assert not (folder / "01_channel.ipynb").exists()


def test_notebooks_names_what_it_copied_as_json(run, tmp_path):
    """The JSON has the folder, and every file that is there now."""
    answer = json.loads(run("notebooks", tmp_path / "learn", "--json").stdout)

    files = {str(each) for each in (tmp_path / "learn").rglob("*") if each.is_file()}
    assert set(answer["files"]) == files
    assert answer["folder"] == str(tmp_path / "learn")


def test_check_of_a_notebook_that_is_in_the_package_says_how_to_get_it(run, tmp_path):
    """Outside a checkout, the path of the documentation is not there yet."""
    result = run("check", tmp_path / "check_pipeline.ipynb")

    assert result.exit_code == 1
    assert "copy it here with `mousetrap notebooks`" in result.output


def test_check_lets_a_notebook_import_from_the_current_folder(start, notebook, tmp_path):
    """As `mousetrap work` does: the notebook is in a folder of its own, and marks a function."""
    (tmp_path / "notebooks").mkdir()
    source = "from flow import double\n\n# same as flow:double\ndef twice(n: int) -> int:\n"
    path = notebook(source + '    print("doubling")\n    return 2 * n\n\nassert double(2) == 4')
    path = path.rename(tmp_path / "notebooks" / path.name)

    process = start("check", f"notebooks/{path.name}", PYTHONSAFEPATH="1")  # as a program installed
    _, problems = process.communicate(timeout=60)

    assert process.returncode == 0, problems

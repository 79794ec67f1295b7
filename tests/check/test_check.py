"""`check`: what it refuses before a kernel starts, and a run that passes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import nbformat
import pytest
from support.notebook_files import START_DETACHED, names_in, write_notebook
from support.processes import is_gone

from mousetrap.check import check, read
from mousetrap.errors import CheckError
from mousetrap.model.summary import SUMMARY_TYPE

PARAMETERS = """\
# what can be set
jobs: int = 500  # how many jobs to send
rate: float = 0.5
queue: str = "a=b"  # a name
wet = False
start = -1
limit: int = 2 * 60
both: "int | None" = None
"""

# A Run writes this while it runs.
WRITE_PROGRESS = """\
import json, os
from pathlib import Path
counts = {"namespace": "run-7f3a", "open": 12, "stages": {"fetch": {"done": 88, "dead": 0}}}
Path(os.environ["MOUSETRAP_PROGRESS"]).write_text(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """One run that passes, which many tests inspect: a kernel takes two seconds to start."""
    folder = tmp_path_factory.mktemp("passed {braces}")
    notebook = write_notebook(
        folder / "check_all.ipynb",
        "# a worker, and a Run\n" + START_DETACHED + WRITE_PROGRESS,
        "from IPython.display import display\n"
        f"display({{{SUMMARY_TYPE!r}: {{'lost': 9}}}}, raw=True)",
        f"""from ipykernel import get_connection_info
display({{{SUMMARY_TYPE!r}: {{
            'transport': get_connection_info(unpack=True)['transport'],
            'jobs': jobs, 'rate': rate, 'queue': queue, 'wet': wet,
            'folder': os.getcwd(), 'given': os.environ["GIVEN"], 'home': "PATH" in os.environ,
        }}}}, raw=True)""",
        "   ",
        parameters=PARAMETERS,
    )
    cells, progress = [], []
    result = check(
        notebook,
        {"jobs": "7", "rate": 1, "queue": 'it\'s "{x}"\\n', "wet": "yes"},
        environment={"GIVEN": "by us"},
        on_cell=lambda done, total: cells.append((done, total)),
        on_progress=progress.append,
    )
    return result, cells, progress


# --- before a kernel starts -----------------------------------------------------------------------


def test_check_says_which_notebook_is_missing(tmp_path, no_kernel):
    """The error for a misspelt file name suggests a similar file."""
    write_notebook(tmp_path / "check_pipeline.ipynb")

    with pytest.raises(CheckError, match=r"no notebook .*did you mean .*check_pipeline\.ipynb"):
        check(tmp_path / "check_pipelin.ipynb")


@pytest.mark.parametrize("content", [b"", b"print(1)", b"[]", b"{}", b'{"cells": 1}', b"\xff\xfe"])
def test_check_refuses_a_file_that_is_not_a_notebook(tmp_path, no_kernel, content):
    """The error is one sentence."""
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)

    with pytest.raises(CheckError, match=r"a\.ipynb (is not a Jupyter|cannot be read)") as caught:
        check(path)

    assert len(str(caught.value)) < 500


def test_check_refuses_a_folder(tmp_path, no_kernel):
    """A folder is not a notebook."""
    with pytest.raises(CheckError, match="cannot be read"):
        check(tmp_path)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf")])
def test_check_refuses_a_deadline_without_an_end(tmp_path, no_kernel, deadline):
    """Every run has to end."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match=r"deadline is .* above 0"):
        check(notebook, deadline=deadline)


def test_check_does_not_overwrite_the_notebook(tmp_path, no_kernel):
    """The executed copy cannot have the path of the notebook."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match="would overwrite"):
        check(notebook, output=tmp_path / "." / "a.ipynb")


def test_check_says_when_the_copy_cannot_be_written(tmp_path, no_kernel):
    """The error is raised before the notebook runs."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    (tmp_path / "file").write_text("")

    with pytest.raises(CheckError, match="cannot be written"):
        check(notebook, output=tmp_path / "file" / "a.ipynb")


def test_check_refuses_a_folder_as_output(tmp_path, no_kernel):
    """The executed copy is a file."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match="is a folder"):
        check(notebook, output=tmp_path)


def test_check_says_what_to_install(tmp_path, no_kernel, monkeypatch):
    """Without the notebook extra the error is one sentence with the command."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(CheckError, match=r"pip install 'mousetrap-mq\[notebook\]'"):
        check(notebook)


# --- a run that passes ----------------------------------------------------------------------------


def test_check_runs_with_the_parameters_in_their_types(passed):
    """Text is converted to the declared type; other parameters keep their defaults."""
    result, *_ = passed

    seen = {name: result.summary[name] for name in ("jobs", "rate", "queue", "wet")}
    assert seen == {"jobs": 7, "rate": 1.0, "queue": 'it\'s "{x}"\\n', "wet": True}
    assert result.parameters == seen | {"start": -1, "limit": "2 * 60", "both": None}


def test_check_returns_the_last_summary(passed):
    """A notebook can display its summary several times; the last one is returned."""
    result, *_ = passed

    assert "lost" not in result.summary
    assert result.passed


def test_check_runs_in_the_notebooks_folder(passed):
    """Relative paths are the same as in JupyterLab."""
    result, *_ = passed

    assert Path(result.summary["folder"]).samefile(result.notebook.parent)


def test_check_adds_to_the_environment(passed):
    """The kernel has the given variables and those of this process."""
    result, *_ = passed

    assert result.summary["given"] == "by us"
    assert result.summary["home"]


@pytest.mark.skipif(os.name == "nt", reason="there the kernel listens on ports")
def test_check_connects_to_its_kernel_by_unix_sockets(passed):
    """Kernels that start at the same time cannot get the same port."""
    result, *_ = passed

    assert result.summary["transport"] == "ipc"


def test_check_reports_each_cell(passed):
    """Each code cell that is not empty is counted when it ends."""
    result, cells, _ = passed

    assert cells == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.cells == 4


def test_check_reports_which_cell_runs(passed):
    """A cell has its number and its first line; before the first cell there is none."""
    _, _, progress = passed

    seen = list(dict.fromkeys((each.number, each.line) for each in progress))
    assert seen[-4:] == [
        (1, "jobs: int = 500  # how many jobs to send"),
        (3, "import subprocess, sys"),
        (4, "from IPython.display import display"),
        (5, "from ipykernel import get_connection_info"),
    ]
    assert seen[:-4] in ([], [(0, "")])  # a kernel that starts within half a second is not seen
    assert [each.done for each in progress] == sorted(each.done for each in progress)
    assert {each.total for each in progress} == {4}


def test_check_reports_the_counts_of_a_run(passed):
    """The progress contains the counts of a Run's stages."""
    _, _, progress = passed

    assert progress[-1].stages == {"fetch": {"done": 88, "dead": 0}}
    assert progress[-1].open == 12
    assert progress[0].open is None


def test_executed_copy_is_readable_by_its_owner_only(passed):
    """The copy is in _build beside the notebook; no draft is left."""
    result, *_ = passed

    assert result.output == result.notebook.parent / "_build" / "check_all.ipynb"
    assert stat.S_IMODE(result.output.stat().st_mode) == 0o600
    assert names_in(result.output.parent) == [".gitignore", "check_all.ipynb"]


def test_check_does_not_change_the_notebook(passed):
    """The source has no outputs and no injected cell."""
    result, *_ = passed

    source = nbformat.read(result.notebook, 4)
    assert len(source.cells) == 6
    assert not any(cell.get("outputs") for cell in source.cells)


def test_check_ends_processes_that_the_notebook_left_running(passed):
    """A worker that a passing notebook left does not stay as a consumer."""
    result, *_ = passed

    assert is_gone(int((result.notebook.parent / "worker.pid").read_text()))


def test_read_returns_what_check_returned(passed):
    """The executed copy contains the whole result."""
    result, *_ = passed

    assert read(result.output) == result


def test_check_result_has_a_short_repr(passed):
    """The repr is one line, and does not contain the summary."""
    result, *_ = passed

    assert repr(result).startswith("<CheckResult check_all.ipynb passed: 4 cells in ")
    assert repr(result).endswith("s, a summary of 8 fields>")

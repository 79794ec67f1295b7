"""`check`: one run of a notebook with real kernels, and all ways in which it can fail."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from support.notebook_files import WAIT_FOREVER, write_notebook
from support.processes import is_gone
from support.waiting import wait_for

from mousetrap.check import check, default_output, read
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded
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

# A worker that cannot be found by process group, parent or environment.
START_DETACHED = """\
import subprocess, sys
from pathlib import Path
worker = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
Path("worker.pid").write_text(str(worker.pid))
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


# --- runs that do not pass ------------------------------------------------------------------------


def test_check_names_the_cell_that_raised(tmp_path):
    """The error has the cell, its first line, the exception and the copy, in at most 20 lines."""
    notebook = write_notebook(
        tmp_path / "a.ipynb",
        "from IPython.display import display\n"
        f"display({{{SUMMARY_TYPE!r}: {{'lost': 1}}}}, raw=True)",
        "# the claim\nraise ValueError('\\x1b[31mred\\x1b[0m amqp://me:hunter2@h ' + 'x\\n' * 99)",
        "'never'",
    )
    stale = tmp_path / "out" / "b.ipynb"
    stale.parent.mkdir()
    stale.write_text("an older result")

    with pytest.raises(CheckFailed) as caught:
        check(notebook, output=stale)

    message = str(caught.value)
    assert "failed in cell 3 (In [2]): raise ValueError" in message
    assert "ValueError: red amqp://me:********@h x" in message
    assert str(stale) in message
    assert len(message.splitlines()) <= 20
    assert "\x1b" not in message
    copy = read(caught.value.output)
    assert not copy.passed
    assert copy.failing.number == 3
    assert copy.summary == {"lost": 1}
    assert "failed in cell 3" in nbformat.read(stale, 4).cells[0].source


@pytest.mark.parametrize("leave", ["raise SystemExit(0)", "import os; os._exit(0)"])
def test_check_fails_when_a_cell_exits_with_code_0(tmp_path, leave):
    """Exit code 0 is not a success: the cells after it did not run."""
    notebook = write_notebook(tmp_path / "a.ipynb", leave, "assert False")

    with pytest.raises(CheckFailed, match=r"failed in cell 2( \(In \[1\]\))?: ") as caught:
        check(notebook)

    assert read(caught.value.output).cells == 0


def test_check_fails_when_a_cell_was_skipped(tmp_path):
    """nbclient skips a cell with this tag; an assertion that did not run is not a success."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1", "assert False")
    document = nbformat.read(notebook, 4)
    document.cells[-1].metadata["tags"] = ["skip-execution"]
    nbformat.write(document, notebook)

    with pytest.raises(CheckFailed, match=r"cell 3: assert False\nit never ran"):
        check(notebook)


def test_check_says_when_there_is_no_such_kernel(tmp_path):
    """The error for a notebook with an unknown kernel says what to do."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1", kernel="nobody-has-this")

    with pytest.raises(CheckError, match=r"no kernel named 'nobody-has-this'.*kernelspec list"):
        check(notebook)


def test_check_says_why_a_kernel_did_not_start(tmp_path):
    """The error contains the last lines that the kernel wrote."""
    kernel = tmp_path / "kernels" / "broken" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-c", "import sys; sys.exit('my zmq is broken')", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "b", "language": "python"}))
    notebook = write_notebook(tmp_path / "a.ipynb", "1", kernel="broken")

    with pytest.raises(CheckError, match=r"(?s)could not be run: .*my zmq is broken") as caught:
        check(notebook, environment={"JUPYTER_PATH": str(tmp_path)})

    assert read(caught.value.output).cells == 0


def test_check_fails_when_a_cell_kills_papermill(tmp_path):
    """There is an error and an executed copy in this case, too."""
    kill = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    notebook = write_notebook(tmp_path / "a.ipynb", "1", kill)

    with pytest.raises(CheckFailed, match=r"cell 3: import os(?s:.)*ended unexpectedly") as caught:
        check(notebook)

    assert read(caught.value.output).cells == 1


def test_check_ends_a_cell_that_waits_for_ever(tmp_path):
    """At the deadline the cell is interrupted, and the executed copy shows it."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1", WAIT_FOREVER)
    started = time.monotonic()

    with pytest.raises(DeadlineExceeded, match=r"of 16 s in cell 3.*import threading") as caught:
        check(notebook, deadline=16)

    assert time.monotonic() - started < 16 + 6
    assert read(caught.value.output).failing.number == 3
    assert "KeyboardInterrupt" in caught.value.output.read_text()


def test_check_kills_what_ignores_its_signals(tmp_path):
    """A kernel that catches interrupts and a worker that ignores SIGTERM are killed."""
    ignores_sigterm = """["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]"""
    notebook = write_notebook(
        tmp_path / "a.ipynb",
        "import os\nopen('kernel.pid', 'w').write(str(os.getpid()))\n"
        + START_DETACHED.replace('["sleep", "600"]', ignores_sigterm),
        "print('on and on', flush=True)\n"
        "while True:\n    try:\n        worker.wait()\n    except BaseException:\n        pass",
    )

    with pytest.raises(DeadlineExceeded) as caught:
        check(notebook, deadline=16)

    assert is_gone(int((tmp_path / "kernel.pid").read_text()))
    assert is_gone(int((tmp_path / "worker.pid").read_text()))
    assert read(caught.value.output).cells == 1
    assert names_in(caught.value.output.parent) == [".gitignore", "a.ipynb"]


def test_check_ends_everything_on_ctrl_c(tmp_path):
    """A KeyboardInterrupt ends kernel and workers, keeps the copy, and is raised again."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, WAIT_FOREVER)

    def press_ctrl_c(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(notebook, on_cell=press_ctrl_c)

    assert is_gone(int((tmp_path / "worker.pid").read_text()))
    assert read(default_output(notebook)).error == "the run was ended by KeyboardInterrupt"


def test_on_failure_is_called_while_a_failed_kernel_runs(tmp_path):
    """The callback sees workers and queues before they are ended."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, "assert False", "'never'")
    alive = []

    def inspect():
        alive.append(not is_gone(int((tmp_path / "worker.pid").read_text())))

    with pytest.raises(CheckFailed):
        check(notebook, on_failure=inspect)

    assert alive == [True]
    assert is_gone(int((tmp_path / "worker.pid").read_text()))


def test_on_failure_is_called_at_the_deadline(tmp_path):
    """The callback is called before the cell is interrupted."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, WAIT_FOREVER)
    alive = []

    def inspect():
        alive.append(not is_gone(int((tmp_path / "worker.pid").read_text())))

    with pytest.raises(DeadlineExceeded):
        check(notebook, deadline=16, on_failure=inspect)

    assert alive == [True]


def test_check_keeps_the_copy_when_on_failure_raises(tmp_path):
    """The error of the callback is raised, after the run has been ended."""
    notebook = write_notebook(tmp_path / "a.ipynb", "print('so far')\nassert False")

    with pytest.raises(ZeroDivisionError):
        check(notebook, on_failure=lambda: 1 / 0)

    assert read(default_output(notebook)).error == "the run was ended by ZeroDivisionError"
    assert "so far" in default_output(notebook).read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_check_leaves_nothing_behind_when_its_process_is_killed(tmp_path):
    """After kill -9 of the caller, kernel and workers are ended, and the executed copy is kept."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, WAIT_FOREVER)
    program = f"from mousetrap.check import check; check({str(notebook)!r})"
    with subprocess.Popen([sys.executable, "-c", program]) as caller:
        wait_for((tmp_path / "worker.pid").exists)
        family = psutil.Process(caller.pid).children(recursive=True)
        caller.send_signal(signal.SIGKILL)

    wait_for(lambda: default_output(notebook).exists())
    wait_for(lambda: all(is_gone(process.pid) for process in family))
    assert len(family) >= 3  # papermill, kernel, worker
    assert "was ended" in read(default_output(notebook)).error


def names_in(folder):
    """Return the names of the files in *folder*, sorted."""
    return sorted(path.name for path in folder.iterdir())

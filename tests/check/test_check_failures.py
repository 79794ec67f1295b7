"""`check`: runs that do not pass, with real kernels, and how they are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from support.notebook_files import START_DETACHED, WAIT_FOREVER, names_in, write_notebook
from support.processes import is_gone
from support.waiting import wait_for

from mousetrap.check import check, default_output, read
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded
from mousetrap.model.summary import SUMMARY_TYPE


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

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mousetrap.check import (
    CheckResult,
    Parameter,
    check,
    default_output,
    parameters_of,
    parse_parameters,
    read,
)
from mousetrap.check.parameters import convert_parameters
from mousetrap.check.progress import read_stage_counts
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded, ParameterError
from mousetrap.model.summary import SUMMARY_TYPE as RECORD

PARAMETERS = """\
# what a person may set
jobs: int = 500  # how many jobs to send
rate: float = 0.5
queue: str = "a=b"  # a name
wet = False
start = -1
limit: int = 2 * 60
both: "int | None" = None
"""

# A worker that no process group, no parent and no environment leads to.
START_DETACHED = """\
import subprocess, sys
from pathlib import Path
worker = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
Path("worker.pid").write_text(str(worker.pid))
"""

# What a Run does as it goes.
TELL = """\
import json, os
from pathlib import Path
told = {"namespace": "run-7f3a", "open": 12, "stages": {"fetch": {"done": 88, "dead": 0}}}
Path(os.environ["MOUSETRAP_PROGRESS"]).write_text(json.dumps(told))
"""

WAIT = "import threading\nthreading.Event().wait()"


@pytest.fixture
def no_kernel(monkeypatch):
    """Whatever starts a process fails the test."""

    def refuse(*_, **__):
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """One run that passes, looked at by many tests: a kernel takes two seconds to start."""
    folder = tmp_path_factory.mktemp("passed {braces}")
    notebook = write_notebook(
        folder / "check_all.ipynb",
        "# a worker, and a Run\n" + START_DETACHED + TELL,
        f"from IPython.display import display\ndisplay({{{RECORD!r}: {{'lost': 9}}}}, raw=True)",
        f"""from ipykernel import get_connection_info
display({{{RECORD!r}: {{
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


def test_what_only_checks_notebooks_starts_without_the_grammar_of_iris(tmp_path):
    """jsonschema passes over what it cannot import; this one says so when it is."""
    (tmp_path / "rfc3987_syntax.py").write_text("print('loaded')")
    load = "from contextlib import suppress\nwith suppress(ImportError):\n    import rfc3987_syntax"
    light = "from mousetrap.check.parameters import skip_slow_imports\nskip_slow_imports()\n"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def said(code):
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env=environment, text=True, timeout=60)

    assert (said(load), said(light + load)) == ("loaded\n", "")


# --- what can be set ---------------------------------------------------------------------------


def test_parameters_of_reads_names_types_defaults_and_help(tmp_path, no_kernel):
    """Types come from annotations, else from defaults; help comes from the comment."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    assert parameters_of(notebook) == [
        Parameter("jobs", "int", 500, "how many jobs to send"),
        Parameter("rate", "float", 0.5),
        Parameter("queue", "str", "a=b", "a name"),
        Parameter("wet", "bool", False),
        Parameter("start", "int", -1),
        Parameter("limit", "int", "2 * 60"),
        Parameter("both", None, None),
    ]


def test_parameters_of_is_empty_without_a_parameters_cell(tmp_path):
    """A notebook need not let anything be set."""
    assert parameters_of(write_notebook(tmp_path / "a.ipynb", "1 + 1")) == []


def test_parameters_of_refuses_a_cell_that_is_no_python(tmp_path):
    """A parameters cell with a typing error is named, not skipped."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters="jobs: int = = 5")

    with pytest.raises(ParameterError, match="not plain Python"):
        parameters_of(notebook)


def test_parse_parameters_splits_at_the_first_equals_sign():
    """A value may contain the sign, and may be empty."""
    assert parse_parameters(["jobs=5", "queue=a=b", "name="]) == {
        "jobs": "5",
        "queue": "a=b",
        "name": "",
    }


@pytest.mark.parametrize("pair", ["jobs", "=5", "a b=5", "amqp://me:hunter2@host/?x=1", ""])
def test_parse_parameters_refuses_what_is_no_pair(pair):
    """The error says how to write it, and quotes nothing, for it may be a secret."""
    with pytest.raises(ParameterError, match="write it as jobs=500") as caught:
        parse_parameters([pair])

    assert "hunter2" not in str(caught.value)


def test_parse_parameters_refuses_a_name_given_twice():
    """Which of the two was meant is not for us to guess."""
    with pytest.raises(ParameterError, match="'jobs' is given twice"):
        parse_parameters(["jobs=1", "jobs=2"])


# --- before a kernel starts --------------------------------------------------------------------


def test_check_refuses_an_unknown_parameter(tmp_path, no_kernel):
    """A misspelt parameter is an error that knows what was meant and what exists."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    with pytest.raises(ParameterError) as caught:
        check(notebook, {"job": "7"})

    assert "no parameter 'job'; did you mean 'jobs'?" in str(caught.value)
    assert "rate, queue" in str(caught.value)
    assert not default_output(notebook).exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("jobs", "ten", "a whole number"),
        ("jobs", "1.5", "a whole number"),
        pytest.param("jobs", "9" * 5000, "a whole number", id="long text"),
        ("jobs", "", "a whole number"),
        ("jobs", 1.0, "a whole number"),
        ("jobs", True, "a whole number"),
        ("jobs", None, "a whole number"),
        pytest.param("jobs", 10**5000, "a whole number", id="long number"),
        ("rate", "nan", "a number"),
        ("rate", "inf", "a number"),
        ("rate", float("nan"), "a number"),
        pytest.param("rate", 10**400, "a number", id="overflow"),
        ("rate", True, "a number"),
        ("wet", "maybe", "true or false"),
        ("wet", 1, "true or false"),
        ("queue", 5, "text"),
        ("queue", "\udcff", "text"),
    ],
)
def test_check_refuses_a_mistyped_value(tmp_path, no_kernel, name, value, expected):
    """The error names the parameter, the value and the type that is expected."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    with pytest.raises(ParameterError, match=rf"'{name}' is .*must be {expected}") as caught:
        check(notebook, {name: value})

    assert len(str(caught.value)) < 200


def test_check_refuses_a_value_for_what_has_no_type(tmp_path, no_kernel):
    """A parameter that nobody can set says how to make it one that can be."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=PARAMETERS)

    with pytest.raises(ParameterError, match=r"'both' has no type.*annotate it"):
        check(notebook, {"both": "5"})


@pytest.mark.parametrize(
    "name",
    ["password", "RABBITMQ_PASSWORD", "passwd", "dbPassword", "rabbitmq_pass", "api_key", "apikey",
     "token", "accessToken", "client_secret", "credentials", "private_key", "auth"],
)  # fmt: skip
def test_check_refuses_a_parameter_that_smells_of_a_secret(tmp_path, no_kernel, name):
    """Parameters are saved in the executed notebook, so a secret must come another way."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=f"jobs = 5\n{name}: str = ''")

    with pytest.raises(ParameterError, match="environment") as caught:
        check(notebook, {name: "hunter2"})

    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_check_refuses_a_url_with_a_password(tmp_path, no_kernel):
    """A secret hidden in an address is one all the same, and is not quoted."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters="url: str = ''")

    with pytest.raises(ParameterError, match="URL with a password") as caught:
        check(notebook, {"url": "amqp://me:hunter2@host/"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("line", ["password = 'hunter2'", "url = 'amqp://me:hunter2@host/'"])
def test_check_refuses_a_secret_among_the_defaults(tmp_path, no_kernel, line):
    """A notebook that carries a secret is refused even if nobody sets it."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters=line)

    with pytest.raises(ParameterError, match=r"default of parameter.*os\.environ") as caught:
        check(notebook)

    assert "hunter2" not in str(caught.value)


def test_check_does_not_quote_a_mistyped_secret(tmp_path, no_kernel):
    """A number with a suspicious name may be set, but a wrong value of it is not repeated."""
    notebook = write_notebook(tmp_path / "a.ipynb", parameters="token: int = 5")

    with pytest.raises(ParameterError, match="must be a whole number") as caught:
        check(notebook, {"token": "hunter2"})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["compass", "keyboard", "passes", "bypass_rate", "author"])
def test_check_takes_no_offence_at_harmless_names(name):
    """Only whole words are suspicious."""
    declared = [Parameter(name, "str", "x")]

    assert convert_parameters({name: "y"}, declared, Path("a.ipynb")) == {name: "y"}


def test_check_refuses_parameters_without_a_parameters_cell(tmp_path, no_kernel):
    """They would be put on top by papermill, and be overwritten."""
    notebook = write_notebook(tmp_path / "a.ipynb", "jobs = 5")

    with pytest.raises(ParameterError, match="no cell tagged 'parameters', so 'jobs'"):
        check(notebook, {"jobs": 7})


def test_check_says_which_notebook_is_missing(tmp_path, no_kernel):
    """A misspelt file name is an error that knows its neighbours."""
    write_notebook(tmp_path / "check_pipeline.ipynb")

    with pytest.raises(CheckError, match=r"no notebook .*did you mean .*check_pipeline\.ipynb"):
        check(tmp_path / "check_pipelin.ipynb")


@pytest.mark.parametrize("content", [b"", b"print(1)", b"[]", b"{}", b'{"cells": 1}', b"\xff\xfe"])
def test_check_refuses_what_is_no_notebook(tmp_path, no_kernel, content):
    """Any other file is refused in one sentence."""
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)

    with pytest.raises(CheckError, match=r"a\.ipynb (is not a Jupyter|cannot be read)") as caught:
        check(path)

    assert len(str(caught.value)) < 500


def test_check_refuses_a_folder(tmp_path, no_kernel):
    """A folder is no notebook."""
    with pytest.raises(CheckError, match="cannot be read"):
        check(tmp_path)


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf")])
def test_check_refuses_a_deadline_that_is_none(tmp_path, no_kernel, deadline):
    """Every run ends."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match=r"deadline is .* above 0"):
        check(notebook, deadline=deadline)


def test_check_does_not_overwrite_the_notebook(tmp_path, no_kernel):
    """The executed copy is a copy."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match="would overwrite"):
        check(notebook, output=tmp_path / "." / "a.ipynb")


def test_check_says_when_the_copy_cannot_be_written(tmp_path, no_kernel):
    """No place for the result: said before the notebook runs for minutes."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    (tmp_path / "file").write_text("")

    with pytest.raises(CheckError, match="cannot be written"):
        check(notebook, output=tmp_path / "file" / "a.ipynb")


def test_check_refuses_a_folder_as_output(tmp_path, no_kernel):
    """The copy is a file."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")

    with pytest.raises(CheckError, match="is a folder"):
        check(notebook, output=tmp_path)


def test_check_says_what_to_install(tmp_path, no_kernel, monkeypatch):
    """Without the notebook extra there is one sentence with the way out."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(CheckError, match=r"pip install 'mousetrap-mq\[notebook\]'"):
        check(notebook)


# --- a run that passes -------------------------------------------------------------------------


def test_check_runs_with_the_parameters_in_their_types(passed):
    """Text becomes what the notebook declares; defaults hold for the rest."""
    result, *_ = passed

    seen = {name: result.summary[name] for name in ("jobs", "rate", "queue", "wet")}
    assert seen == {"jobs": 7, "rate": 1.0, "queue": 'it\'s "{x}"\\n', "wet": True}
    assert result.parameters == seen | {"start": -1, "limit": "2 * 60", "both": None}


def test_check_returns_the_last_record(passed):
    """A notebook may display its record as it grows; the last one counts."""
    result, *_ = passed

    assert "lost" not in result.summary
    assert result.passed


def test_check_runs_in_the_notebooks_folder(passed):
    """Relative paths mean what they mean in JupyterLab."""
    result, *_ = passed

    assert Path(result.summary["folder"]).samefile(result.notebook.parent)


def test_check_hands_the_environment_on(passed):
    """What is given is added to what there was."""
    result, *_ = passed

    assert result.summary["given"] == "by us"
    assert result.summary["home"]


@pytest.mark.skipif(os.name == "nt", reason="there the kernel listens on ports")
def test_check_talks_to_its_kernel_by_files(passed):
    """No port is guessed to be free, so kernels that start together are not given the same one."""
    result, *_ = passed

    assert result.summary["transport"] == "ipc"


def test_check_reports_progress(passed):
    """Each code cell that is not empty counts as it ends."""
    result, cells, _ = passed

    assert cells == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.cells == 4


def test_check_tells_which_cell_runs(passed):
    """A cell is named by its number and its first line; before the first there is none."""
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


def test_check_tells_what_a_run_counts(passed):
    """The counts of a Run's stages are part of how far the notebook is."""
    _, _, progress = passed

    assert progress[-1].stages == {"fetch": {"done": 88, "dead": 0}}
    assert progress[-1].open == 12
    assert progress[0].open is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('{"open": 3, "stages": {"fetch": {"done": 1}}}',
         {"open": 3, "stages": {"fetch": {"done": 1}}}),
        ('{"open": 3}', {"open": 3, "stages": {}}),
        ('{"open": "many", "stages": {"fetch": {"done": "all", "dead": 0}, "process": 5}}',
         {"stages": {"fetch": {"dead": 0}, "process": {}}}),
        ('{"open": true, "stages": [1]}', {"stages": {}}),
        ('{"open": -1, "stages": {"fetch": {"done": 1e99}}}', {"stages": {"fetch": {}}}),
        ("[]", {}),
        ('{"open": 3', {}),
        ("", {}),
        pytest.param("[" * 50_000, {}, id="deep"),
        pytest.param('{"open": 3}' + " " * 200_000, {}, id="long"),
        ('"\udcff"', {}),
    ],
)  # fmt: skip
def test_progress_of_a_run_is_read_with_care(tmp_path, told, expected):
    """A notebook can write anything there; what does not look as agreed is left out."""
    path = tmp_path / "progress.json"
    path.write_bytes(told.encode(errors="surrogateescape"))

    assert read_stage_counts(path) == expected


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_progress_of_a_run_is_not_waited_for(tmp_path):
    """A pipe, a folder or nothing at all of that name keeps nobody waiting."""
    os.mkfifo(tmp_path / "pipe")

    assert [read_stage_counts(tmp_path / name) for name in ("pipe", "", "missing")] == [{}, {}, {}]


def test_check_keeps_the_executed_copy_to_its_owner(passed):
    """The copy lies in _build beside the notebook, for nobody else to read, and no draft does."""
    result, *_ = passed

    assert result.output == result.notebook.parent / "_build" / "check_all.ipynb"
    assert stat.S_IMODE(result.output.stat().st_mode) == 0o600
    assert names_in(result.output.parent) == [".gitignore", "check_all.ipynb"]


def test_check_leaves_the_notebook_alone(passed):
    """The source has no outputs afterwards, and no injected cell."""
    result, *_ = passed

    source = nbformat.read(result.notebook, 4)
    assert len(source.cells) == 6
    assert not any(cell.get("outputs") for cell in source.cells)


def test_check_ends_what_the_notebook_left_running(passed):
    """A worker that a passing notebook forgot does not live on as a ghost consumer."""
    result, *_ = passed

    assert is_gone(int((result.notebook.parent / "worker.pid").read_text()))


def test_check_result_can_be_read_back(passed):
    """The executed copy holds all that `check` returned."""
    result, *_ = passed

    assert read(result.output) == result


def test_check_result_says_how_it_went(passed):
    """The repr fits on a line and does not spill the record."""
    result, *_ = passed

    assert repr(result).startswith("<CheckResult check_all.ipynb passed: 4 cells in ")
    assert repr(result).endswith("s, a summary of 8 fields>")


# --- runs that do not pass ---------------------------------------------------------------------


def test_check_names_the_cell_that_raised(tmp_path):
    """The error has the cell, its first line, the exception and the copy, in at most 20 lines."""
    notebook = write_notebook(
        tmp_path / "a.ipynb",
        f"from IPython.display import display\ndisplay({{{RECORD!r}: {{'lost': 1}}}}, raw=True)",
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
def test_check_fails_when_a_cell_leaves_politely(tmp_path, leave):
    """Exit code 0 is no success: the claims after it were never made."""
    notebook = write_notebook(tmp_path / "a.ipynb", leave, "assert False")

    with pytest.raises(CheckFailed, match=r"failed in cell 2( \(In \[1\]\))?: ") as caught:
        check(notebook)

    assert read(caught.value.output).cells == 0


def test_check_fails_when_a_cell_was_skipped(tmp_path):
    """A tag makes nbclient skip a cell; a check that skips its claim has not made it."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1", "assert False")
    document = nbformat.read(notebook, 4)
    document.cells[-1].metadata["tags"] = ["skip-execution"]
    nbformat.write(document, notebook)

    with pytest.raises(CheckFailed, match=r"cell 3: assert False\nit never ran"):
        check(notebook)


def test_check_says_when_there_is_no_such_kernel(tmp_path):
    """A notebook saved with somebody else's kernel says what to do."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1", kernel="nobody-has-this")

    with pytest.raises(CheckError, match=r"no kernel named 'nobody-has-this'.*kernelspec list"):
        check(notebook)


def test_check_says_why_a_kernel_did_not_start(tmp_path):
    """The last words of a broken kernel are in the error, for nobody else heard them."""
    kernel = tmp_path / "kernels" / "broken" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-c", "import sys; sys.exit('my zmq is broken')", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "b", "language": "python"}))
    notebook = write_notebook(tmp_path / "a.ipynb", "1", kernel="broken")

    with pytest.raises(CheckError, match=r"(?s)could not be run: .*my zmq is broken") as caught:
        check(notebook, environment={"JUPYTER_PATH": str(tmp_path)})

    assert read(caught.value.output).cells == 0


def test_check_fails_when_a_cell_kills_papermill(tmp_path):
    """Whatever dies, there is an error and an executed copy."""
    kill = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    notebook = write_notebook(tmp_path / "a.ipynb", "1", kill)

    with pytest.raises(CheckFailed, match=r"cell 3: import os(?s:.)*ended unexpectedly") as caught:
        check(notebook)

    assert read(caught.value.output).cells == 1


def test_check_ends_a_cell_that_waits_for_ever(tmp_path):
    """At the deadline the cell is interrupted, which the executed copy shows."""
    notebook = write_notebook(tmp_path / "a.ipynb", "1", WAIT)
    begun = time.monotonic()

    with pytest.raises(DeadlineExceeded, match=r"of 16 s in cell 3.*import threading") as caught:
        check(notebook, deadline=16)

    assert time.monotonic() - begun < 16 + 6
    assert read(caught.value.output).failing.number == 3
    assert "KeyboardInterrupt" in caught.value.output.read_text()


def test_check_ends_a_cell_that_will_not_end(tmp_path):
    """A kernel that swallows interrupts, and a worker that ignores SIGTERM, end all the same."""
    deaf = """["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]"""
    notebook = write_notebook(
        tmp_path / "a.ipynb",
        "import os\nopen('kernel.pid', 'w').write(str(os.getpid()))\n"
        + START_DETACHED.replace('["sleep", "600"]', deaf),
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
    """An interrupt of the caller ends kernel and workers, keeps the copy, and goes on upwards."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, WAIT)

    def press_ctrl_c(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(notebook, on_cell=press_ctrl_c)

    assert is_gone(int((tmp_path / "worker.pid").read_text()))
    assert read(default_output(notebook)).error == "the run was ended by KeyboardInterrupt"


def test_check_lets_others_look_while_a_failed_kernel_lives(tmp_path):
    """Whoever wants to see workers and queues as they were gets there before they are ended."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, "assert False", "'never'")
    alive = []

    def look():
        alive.append(not is_gone(int((tmp_path / "worker.pid").read_text())))

    with pytest.raises(CheckFailed):
        check(notebook, on_failure=look)

    assert alive == [True]
    assert is_gone(int((tmp_path / "worker.pid").read_text()))


def test_check_lets_others_look_when_time_is_up(tmp_path):
    """A cell that hangs is looked at before it is interrupted."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, WAIT)
    alive = []

    def look():
        alive.append(not is_gone(int((tmp_path / "worker.pid").read_text())))

    with pytest.raises(DeadlineExceeded):
        check(notebook, deadline=16, on_failure=look)

    assert alive == [True]


def test_check_keeps_the_copy_when_looking_fails(tmp_path):
    """An error of the onlooker goes on upwards, and the run ends in good order all the same."""
    notebook = write_notebook(tmp_path / "a.ipynb", "print('so far')\nassert False")

    with pytest.raises(ZeroDivisionError):
        check(notebook, on_failure=lambda: 1 / 0)

    assert read(default_output(notebook)).error == "the run was ended by ZeroDivisionError"
    assert "so far" in default_output(notebook).read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_check_leaves_nothing_behind_when_its_process_is_killed(tmp_path):
    """Even kill -9 of the caller ends kernel and workers, and the executed copy is kept."""
    notebook = write_notebook(tmp_path / "a.ipynb", START_DETACHED, WAIT)
    program = f"from mousetrap.check import check; check({str(notebook)!r})"
    with subprocess.Popen([sys.executable, "-c", program]) as caller:
        wait_until((tmp_path / "worker.pid").exists)
        family = psutil.Process(caller.pid).children(recursive=True)
        caller.send_signal(signal.SIGKILL)

    wait_until(lambda: default_output(notebook).exists())
    wait_until(lambda: all(is_gone(process.pid) for process in family))
    assert len(family) >= 3  # papermill, kernel, worker
    assert "was ended" in read(default_output(notebook)).error


# --- reading copies ----------------------------------------------------------------------------


def test_read_understands_a_copy_by_plain_papermill(tmp_path):
    """What `papermill in.ipynb out.ipynb` leaves can be read as well."""
    document = new_notebook()
    document.metadata["papermill"] = {
        "parameters": {"jobs": 7},
        "duration": 1.5,
        "input_path": "check_x.ipynb",
    }
    cell = new_code_cell("jobs: int = 5\nseed = 1", execution_count=1)
    cell.metadata["tags"] = ["parameters"]
    injected = new_code_cell("jobs = 7", execution_count=2)
    injected.metadata["tags"] = ["injected-parameters"]
    claim = new_code_cell("assert jobs == 5", execution_count=3)
    claim.outputs = [new_output("error", ename="AssertionError", evalue="", traceback=[])]
    document.cells = [cell, injected, claim]
    path = tmp_path / "out.ipynb"
    nbformat.write(document, path)

    result = read(path)

    assert result.notebook == Path("check_x.ipynb")
    assert result.parameters == {"jobs": 7, "seed": 1}
    assert result.seconds == 1.5
    assert result.failing.number == 2
    assert result.error == "cell 2: AssertionError:"
    assert not result.passed


def test_read_refuses_what_is_no_copy(tmp_path):
    """A missing file is said to be missing."""
    with pytest.raises(CheckError, match="no notebook"):
        read(tmp_path / "a.ipynb")


def test_check_result_is_a_plain_value():
    """It can be made without a run, for those who test against it."""
    result = CheckResult(Path("a.ipynb"), Path("_build/a.ipynb"), error="cell 1: no luck")

    assert repr(result) == "<CheckResult a.ipynb failed: 0 cells in 0.0 s, no summary>"


def write_notebook(path, *cells, parameters=None, kernel=None):
    """Write a notebook: parameters if any, a title, then the code cells."""
    document = new_notebook()
    if parameters is not None:
        cell = new_code_cell(parameters)
        cell.metadata["tags"] = ["parameters"]
        document.cells.append(cell)
    document.cells.append(new_markdown_cell("# Does it work?"))
    document.cells += [new_code_cell(cell) for cell in cells]
    if kernel is not None:
        document.metadata["kernelspec"] = {"name": kernel, "display_name": kernel}
    nbformat.write(document, path)
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def is_gone(pid):
    """Whether the process ended; a zombie did, even if nobody asked for its exit code."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition, timeout=30.0):
    """Return when *condition* holds; fail when it does not within *timeout* seconds."""
    limit = time.monotonic() + timeout
    never = threading.Event()
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        never.wait(0.02)

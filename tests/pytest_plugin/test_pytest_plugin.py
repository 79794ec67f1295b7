"""The plugin in a user's project: real kernels, a real broker, one process and several."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from support.notebook_files import WAIT_FOREVER
from support.processes import is_gone

from mousetrap import Settings, drain
from mousetrap.check import read
from mousetrap.errors import BrokerUnreachable, DeadlineExceeded
from mousetrap.job_queue import depths
from mousetrap.pytest_plugin import missing

pytest_plugins = "pytester"

PROJECT = """
[tool.pytest.ini_options]
pythonpath = ["."]
mousetrap_deadline = 90

[tool.mousetrap.notebooks."books/check_lengths.ipynb"]
parameters = [{ words = 3 }, { words = 2, poison = 1 }, { word = 3 }, { api_key = "hunter2" }]

[tool.mousetrap.notebooks."books/hangs.ipynb"]
deadline = 10
"""

STAGES = '''
from mousetrap import stage

@stage(reads="words", writes="lengths", retry_delays=(0.05,))
def measure(word: str) -> int:
    """Return how long *word* is."""
    if word == "poison":
        raise ValueError("no luck at amqp://me:letmein@host/ \\x1b[31m")
    return len(word)
'''

TESTS = """
import os
from lengths import measure
from mousetrap import Message, Publisher, drain

def test_flow(namespace):
    with measure.start(), Publisher() as publisher:
        publisher.publish(Message("trap"), "words").wait()
        assert drain("lengths", n=1, timeout=10)[0].data == 4

def test_outside():
    assert os.environ["MOUSETRAP_NAMESPACE"] == ""
    assert "MOUSETRAP_DECLARED" not in os.environ

def test_that_fails(namespace):
    with measure.start() as worker, Publisher() as publisher:
        publisher.publish(Message("poison"), "words").wait()
        worker.wait_until(dead=1, timeout=10)
        assert False, "see the queues"
"""

# Writes the environment of the kernel to a file that the tests read.
WRITE_ENVIRONMENT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, "..")
names = ("MOUSETRAP_NAMESPACE", "MOUSETRAP_BROKER", "RABBITMQ_URL", "MOUSETRAP_QUEUE_EXPIRY")
seen = {name: os.environ.get(name) for name in names}
with open("seen.jsonl", "a") as file:
    file.write(json.dumps(seen) + "\\n")
from lengths import measure
from mousetrap import Message, Publisher, drain
"""

SEND = """
worker = measure.start()
with Publisher() as publisher:
    for word in ["trap"] * words + ["poison"] * poison:
        publisher.publish(Message(word), "words").wait()
worker.wait_until(done=words, dead=poison, timeout=30)
"""

CLAIM = "assert len(drain('lengths', timeout=10)) == words\nassert not poison, 'there was poison'"

LEAVE = """
import subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path("forgotten.pid").write_text(str(child.pid))
"""


def write_notebook(path: Path, *cells: str, parameters: str = "", **metadata: object) -> Path:
    """Write a notebook: a parameters cell if given, then the code cells."""
    document = new_notebook(metadata=metadata)
    if parameters:
        cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        document.cells.append(cell)
    document.cells += [new_code_cell(cell.strip()) for cell in cells]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(document, path)
    return path


def write_project(root: Path) -> Path:
    """Write a user's project: a stage, its tests, and notebooks of each kind."""
    words = "words: int = 2  # how many words that succeed\npoison: int = 0  # how many fail"
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "lengths.py").write_text(STAGES)
    (root / "test_lengths.py").write_text(TESTS)
    books = root / "books"
    write_notebook(books / "check_lengths.ipynb", WRITE_ENVIRONMENT, SEND, CLAIM, parameters=words)
    write_notebook(
        books / "named.ipynb", WRITE_ENVIRONMENT, SEND, CLAIM,
        parameters=words, mousetrap={"parameters": {"quick": {"words": 1}}},
    )  # fmt: skip
    write_notebook(
        books / "plain.ipynb", WRITE_ENVIRONMENT, "words, poison = 1, 0", SEND, CLAIM, LEAVE
    )
    write_notebook(books / "fails.ipynb", WRITE_ENVIRONMENT, "words, poison = 1, 1", SEND, CLAIM)
    leave = LEAVE.replace("forgotten.pid", "hanging.pid")
    write_notebook(books / "hangs.ipynb", WRITE_ENVIRONMENT, leave, WAIT_FOREVER)
    prototype = STAGES.partition("\n\n")[2].replace("len(word)", "len(word) + 1")
    write_notebook(
        books / "drifted.ipynb",
        "from mousetrap import stage",
        f"# same as lengths:measure\n{prototype}",
    )
    return root


def run_pytest(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run pytest in the folder *root* with more variables in its *environment*."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=root, env=os.environ | environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip


class Report:
    """The output of one run of pytest in the project, and the files that it left."""

    def __init__(self, root: Path, output: str) -> None:
        self.root = root
        self.books = root / "books"
        self.output = output
        lines = (self.books / "seen.jsonl").read_text().splitlines()
        self.seen = [json.loads(line) for line in lines]
        self.outcomes = {
            found[2]: found[1] for found in re.finditer(r"^(PASSED|FAILED) (\S+)", output, re.M)
        }

    def of(self, name: str) -> str:
        """Return the part of the output about the failure of *name*."""
        found = re.search(rf"\n_+ \S*{re.escape(name)} _+\n(.*?)(?=\n_{{5}}|\n={{5}})",
                          self.output, re.DOTALL)  # fmt: skip
        assert found, self.output
        return found[1]

    def queues_of(self, name: str) -> str:
        return self.of(name).partition("- queues -")[2]


@pytest.fixture(scope="module")
def report(broker, tmp_path_factory):
    """One run of all tests in two processes, which many tests inspect: kernels are slow."""
    root = write_project(tmp_path_factory.mktemp("foreign"))
    done = run_pytest(root, "--nbmake", "-n", "2", "-rA", "--color=no", **broker.environment())
    return Report(root, done.stdout + done.stderr)


# ---- a project with everything -----------------------------------------------------------------


def test_project_has_an_item_for_each_set_of_parameters(report):
    """A set is named by its values, or as the table says."""
    assert report.outcomes == {
        "books/check_lengths.ipynb::words=3": "PASSED",
        "books/check_lengths.ipynb::words=2-poison=1": "FAILED",
        "books/check_lengths.ipynb::word=3": "FAILED",
        "books/check_lengths.ipynb::api_key=hidden": "FAILED",
        "books/named.ipynb::quick": "PASSED",
        "books/plain.ipynb::plain.ipynb": "PASSED",
        "books/fails.ipynb::fails.ipynb": "FAILED",
        "books/hangs.ipynb::hangs.ipynb": "FAILED",
        "books/drifted.ipynb::drifted.ipynb": "PASSED",
        "books/drifted.ipynb::drift": "FAILED",
        "test_lengths.py::test_flow": "PASSED",
        "test_lengths.py::test_outside": "PASSED",
        "test_lengths.py::test_that_fails": "FAILED",
    }


def test_output_names_the_broker(report, broker):
    """The output says once which broker the tests use."""
    address = f"{broker.settings.host}:{broker.settings.port}"

    assert re.search(rf"^mousetrap: using the broker external: .* on {address}$",
                     report.output, re.M)  # fmt: skip


def test_each_notebook_has_its_own_namespace(report, broker):
    """Kernels of checks and of nbmake have the broker and a namespace in their environment."""
    namespaces = [seen["MOUSETRAP_NAMESPACE"] for seen in report.seen]

    assert len(set(namespaces)) == len(namespaces) == 6
    assert {seen["MOUSETRAP_BROKER"] for seen in report.seen} == {"external"}
    assert {seen["RABBITMQ_URL"] for seen in report.seen} == {
        broker.settings.to_environment()["RABBITMQ_URL"]
    }


def test_notebooks_leave_no_queue_behind(report, broker):
    """Queues that were declared in a namespace are deleted, after a failure, too."""
    names = [f"{seen['MOUSETRAP_NAMESPACE']}.words.dead" for seen in report.seen]

    assert depths(names, broker.settings.replace(namespace="")) == [None] * len(names)


def test_failed_check_shows_cell_source_and_error(report):
    """The report has the cell, its source, the error, and the path of the executed copy."""
    text = report.of("check_lengths.ipynb::words=2-poison=1")

    assert "books/check_lengths.ipynb failed in cell 4 (In [5]): assert len(drain(" in text
    assert "assert not poison, 'there was poison'" in text
    assert "AssertionError: there was poison" in text
    assert "Executed copy: books/_build/check_lengths.words=2-poison=1.ipynb" in text


@pytest.mark.parametrize("name", ["check_lengths.ipynb::words=2-poison=1", "fails.ipynb"])
def test_failed_notebook_shows_its_queues(report, name):
    """They are those of the time when the cell failed: the worker still consumes.

    For the items of nbmake this depends on its internals; if they change, this test fails.
    """
    text = report.queues_of(name)

    assert re.search(r"^words +0 +1$", text, re.M)
    assert re.search(r"^words\.dead +1 +0$", text, re.M)
    assert re.search(r"in words\.dead, all of 1:\n  \w{8}  attempt 2, 8 bytes, failed with ", text)
    assert "ValueError: no luck at amqp://me:********@host/" in text


def test_failed_test_shows_its_queues(report):
    """The report of a failed test with a namespace has the queues."""
    text = report.queues_of("test_that_fails")

    assert re.search(r"^words\.dead +1 +0$", text, re.M)


def test_reports_show_neither_bodies_nor_secrets(report):
    """No body of a message is in a report, and no secret is in the name of an item."""
    queues = re.findall(r"- queues -+\n(.*?)(?=\n_{5}|\n={5})", report.output, re.DOTALL)

    assert len(queues) == 4
    assert not [text for text in queues if "poison" in text or "letmein" in text or "\x1b" in text]
    assert "hunter2" not in report.output


def test_refused_parameters_start_no_kernel(report):
    """The error is that of `mousetrap check`, and there is no executed copy."""
    assert "has no parameter 'word'; did you mean 'words'?" in report.of("ipynb::word=3")
    assert "parameter 'api_key' looks like a secret" in report.of("api_key=hidden")
    assert not list((report.books / "_build").glob("*word=3.ipynb"))
    assert "queues" not in report.of("ipynb::word=3")


def test_executed_copies_are_kept(report):
    """There is one for each check, and for each item of nbmake that failed."""
    built = {path.name: read(path) for path in (report.books / "_build").glob("*.ipynb")}

    assert {name for name, result in built.items() if result.passed} == {
        "check_lengths.words=3.ipynb", "named.quick.ipynb"
    }  # fmt: skip
    assert {name for name, result in built.items() if not result.passed} == {
        "check_lengths.words=2-poison=1.ipynb", "fails.ipynb", "hangs.ipynb"
    }  # fmt: skip
    assert built["check_lengths.words=3.ipynb"].parameters["words"] == 3


def test_notebook_of_nbmake_has_a_deadline(report):
    """At the deadline the cell is interrupted, and the report shows where it was."""
    text = report.of("hangs.ipynb")

    assert "hangs.ipynb took longer than its deadline of 10 s" in text
    assert "threading.Event().wait()" in text
    assert "mousetrap has declared no queue here" in text


@pytest.mark.parametrize("name", ["forgotten.pid", "hanging.pid"])
def test_notebook_of_nbmake_leaves_no_process_behind(report, name):
    """Its child processes are ended, after success and after failure."""
    assert is_gone(int((report.books / name).read_text()))


def test_drifted_notebook_fails_with_a_diff(report):
    """The comparison is an item of its own; the notebook itself passes."""
    text = report.of("drifted.ipynb::drift")

    assert "books/drifted.ipynb, cell 2, same as lengths:measure: it is not the same" in text
    assert "-    return len(word)\n+    return len(word) + 1" in text


# ---- choosing items ----------------------------------------------------------------------------


@pytest.fixture
def no_broker(monkeypatch):
    """An environment in which no broker can be found; in CI that is a failure."""
    monkeypatch.setenv("RABBITMQ_URL", "amqp://localhost:1")
    monkeypatch.setenv("CI", "true")


def test_collection_needs_no_broker(pytester, no_broker):
    """`--collect-only` lists the items, and -k selects among them."""
    write_project(pytester.path)

    result = pytester.runpytest_subprocess(
        "--nbmake", "--collect-only", "-q", "-k", "word or quick"
    )

    assert result.ret == 0
    assert [line for line in result.outlines if "::" in line] == [
        "books/check_lengths.ipynb::words=3",
        "books/check_lengths.ipynb::words=2-poison=1",
        "books/check_lengths.ipynb::word=3",
        "books/named.ipynb::quick",
    ]
    assert "using the broker" not in result.stdout.str() + result.stderr.str()


def test_items_exist_only_with_nbmake(pytester, no_broker):
    """Without the option pytest collects no notebook, not even one with a table."""
    write_project(pytester.path)

    result = pytester.runpytest_subprocess("--collect-only", "-q")

    assert "ipynb" not in result.stdout.str()


def test_one_item_can_be_run_by_its_id(pytester, broker, monkeypatch):
    """Its own deadline takes precedence over that of pytest-timeout."""
    write_project(pytester.path)
    for name, value in broker.environment().items():
        monkeypatch.setenv(name, value)

    result = pytester.runpytest_subprocess("--nbmake", "-otimeout=1", "books/named.ipynb::quick")

    result.assert_outcomes(passed=1)


def test_drift_needs_no_broker(pytester, no_broker):
    """The comparison starts neither broker nor kernel."""
    write_project(pytester.path)

    result = pytester.runpytest_subprocess("--nbmake", "books/drifted.ipynb::drift")

    result.assert_outcomes(failed=1)
    assert "no broker" not in result.stdout.str()


# ---- projects that do not use mousetrap --------------------------------------------------------


@pytest.fixture
def without_settings(monkeypatch):
    """An environment without variables of a broker, and without CI."""
    for name in [name for name in os.environ if name.startswith(("RABBITMQ_", "MOUSETRAP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CI", raising=False)
    return monkeypatch


UNTOUCHED = """
import os, sys
assert not [name for name in os.environ if name.startswith(("RABBITMQ_", "MOUSETRAP_"))]
loaded = {name for name in sys.modules if name.partition(".")[0] in HEAVY}
plugin = "mousetrap.pytest_plugin"
assert loaded <= {"mousetrap", plugin, plugin + ".stash"}, loaded
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_plugin_does_nothing_in_another_project(pytester, without_settings, processes):
    """Only the plugin is imported, no variable is set, and fixtures are not replaced."""
    heavy = {"mousetrap", "pika", "msgspec", "papermill", "IPython"}  # nbformat is nbmake's
    pytester.makeconftest("""
        import pytest
        @pytest.fixture
        def broker(): return "theirs"
        @pytest.fixture
        def run(broker): return broker
    """)
    pytester.makepyfile(
        "def test_untouched(broker, run, request):\n"
        "    assert run == 'theirs'\n"
        "    assert request.config.pluginmanager.hasplugin('mousetrap')\n"
        + textwrap.indent(UNTOUCHED.replace("HEAVY", str(heavy)), "    ")
    )

    result = pytester.runpytest_subprocess("-n", processes)

    result.assert_outcomes(passed=1)
    assert "mousetrap:" not in result.stdout.str()


def test_plugin_does_nothing_for_another_notebook(pytester, without_settings):
    """The notebook does not use mousetrap, and its project does not mention it."""
    heavy = {"mousetrap", "pika", "msgspec"}
    write_notebook(pytester.path / "a.ipynb", UNTOUCHED.replace("HEAVY", str(heavy)))

    result = pytester.runpytest_subprocess("--nbmake")

    result.assert_outcomes(passed=1)
    assert "mousetrap:" not in result.stdout.str()


# ---- a missing broker --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ci", "processes", "outcomes"), [("", "2", {"skipped": 2}), ("true", "0", {"errors": 2})]
)
def test_missing_broker_skips_at_home_and_fails_in_ci(
    pytester, without_settings, ci, processes, outcomes
):
    """Without the variable CI the tests are skipped; with it they fail."""
    without_settings.setenv("RABBITMQ_URL", "amqp://localhost:1")
    without_settings.setenv("CI", ci)
    pytester.makepyfile("def test_broker(broker): pass")
    write_notebook(pytester.path / "a.ipynb", "import mousetrap")

    result = pytester.runpytest_subprocess("--nbmake", "-rsE", "-n", processes)

    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(["*no broker: *localhost:1*"])


def test_embedded_broker_is_not_used_in_ci(pytester, without_settings):
    """It would be used without a RabbitMQ; in CI that is an error, unless it is chosen."""
    without_settings.setenv("RABBITMQ_PORT", "1")
    without_settings.setenv("CI", "true")
    without_settings.setenv("PATH", str(pytester.path))  # neither docker nor rabbitmq-server
    pytester.makepyfile("def test_broker(broker): pass")

    pytester.runpytest_subprocess("-rE").stdout.fnmatch_lines(["*there is no RabbitMQ, and in CI*"])

    without_settings.setenv("MOUSETRAP_BROKER", "embedded")
    pytester.runpytest_subprocess("-rE").assert_outcomes(passed=1)


# ---- fixtures ----------------------------------------------------------------------------------


def test_namespace_is_in_the_environment(namespace, broker):
    """Settings from the environment have the namespace and the broker of the fixtures."""
    settings = Settings.from_environment()

    assert settings == broker.settings.replace(namespace=namespace)
    assert os.environ["MOUSETRAP_BROKER"] == "external"


def test_namespace_may_be_made_longer(namespace):
    """A notebook, or a run, makes namespaces of its own out of the one that it finds."""
    Settings(namespace=f"{namespace}-12345678")


def test_channel_is_open_in_the_namespace(channel, namespace):
    """The channel takes the full names of queues."""
    name = f"{namespace}.start_fetch"

    channel.basic_publish("", name, b"1")

    assert [message.data for message in drain("start_fetch", n=1, timeout=5)] == [1]


def test_run_starts_a_flow_in_the_namespace(run, namespace):
    """The fixture returns a Run in a namespace within the test's; it is closed after the test."""
    from mousetrap.run_processing_worker import process

    started = run([process])

    assert started.namespace.startswith(namespace)


def test_fixtures_leave_nothing_behind(pytester, broker, monkeypatch):
    """After a test its queues are deleted, and the environment is restored."""
    monkeypatch.setenv("RABBITMQ_URL", broker.environment()["RABBITMQ_URL"])
    monkeypatch.setenv("MOUSETRAP_NAMESPACE", "before")
    pytester.makepyfile("""
        import os
        from mousetrap import Settings, declare
        def test_one(namespace, channel):
            declare("words")
            open("namespace", "w").write(namespace)
        def test_two():
            assert os.environ["MOUSETRAP_NAMESPACE"] == "before"
            assert "MOUSETRAP_DECLARED" not in os.environ
            assert "MOUSETRAP_BROKER" not in os.environ
    """)
    monkeypatch.delenv("MOUSETRAP_BROKER", raising=False)

    pytester.runpytest_subprocess().assert_outcomes(passed=2)

    namespace = (pytester.path / "namespace").read_text()
    names = ["words", "start_fetch"]
    assert depths(names, broker.settings.replace(namespace=namespace)) == [None, None]


@pytest.mark.local
def test_processes_share_one_private_node(pytester, without_settings):
    """The controller of xdist starts it when a worker requests it, and stops it at the end."""
    if shutil.which("rabbitmq-server") is None:
        missing("no rabbitmq-server on the PATH")
    without_settings.setenv("MOUSETRAP_BROKER", "local")
    pytester.makepyfile("""
        import os, pytest
        from mousetrap import ping
        @pytest.mark.parametrize("n", range(6))
        def test_port(n, broker, namespace):
            ping()
            worker = os.environ["PYTEST_XDIST_WORKER"]
            open(f"port-{worker}", "a").write(f"{broker.settings.port}\\n")
    """)

    result = pytester.runpytest_subprocess("-n", "2")

    result.assert_outcomes(passed=6)
    files = list(pytester.path.glob("port-*"))
    ports = {int(line) for file in files for line in file.read_text().split()}
    assert len(files) == 2
    assert len(ports) == 1
    assert result.stdout.str().count("mousetrap: using the broker local: ") == 1
    assert refuses_connections(ports.pop())


def refuses_connections(port: int) -> bool:
    """Return whether no broker answers on *port*."""
    try:
        depths(["words"], Settings(port=port, connect_timeout=1))
    except BrokerUnreachable:
        return True
    return False


# ---- tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[tool.mousetrap.notebooks."books/chek_lengths.ipynb"]', "did you mean 'check_lengths"),
        ("[tool.mousetrap.notebook]", "did you mean 'notebooks'"),
        ('[tool.mousetrap.notebooks."books/plain.ipynb"]\ndeadline = -1', "above 0"),
        ("[tool.pytest.ini_options]\nmousetrap_deadline = 'soon'", "must be a number of seconds"),
    ],
)
def test_wrong_table_ends_the_session_before_a_test_runs(pytester, no_broker, text, reason):
    """A misspelt notebook would never be tested."""
    write_project(pytester.path)
    (pytester.path / "pyproject.toml").write_text(text)

    result = pytester.runpytest_subprocess("--nbmake")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(rf"ERROR: .*{reason}", result.stderr.str())


def test_wrong_metadata_is_an_error_of_its_notebook(pytester, no_broker):
    """nbmake does not run the notebook without its table."""
    write_notebook(pytester.path / "a.ipynb", "1", mousetrap={"paramters": {}})

    result = pytester.runpytest_subprocess("--nbmake")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*metadata.mousetrap has no 'paramters'; did you mean*"])


# ---- deadlines --------------------------------------------------------------------


def test_deadline_watch_fails_a_notebook_that_catches_its_interrupt():
    """After the deadline the notebook fails, even if it goes on without an error."""
    from mousetrap.pytest_plugin.notebook_runtime import DeadlineWatch

    calls = []
    watch = DeadlineWatch(0.05, "no process has this run id", lambda: calls.append("inspect"))
    with pytest.raises(DeadlineExceeded, match=r"deadline of 0\.05 s"), watch:
        watch._thread.join(10)

    assert calls == ["inspect"]

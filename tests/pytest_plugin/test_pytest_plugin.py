"""The plugin in other people's projects: real kernels, the real broker, one process and several."""

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
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mousetrap import Message, Publisher, Settings, declare, drain
from mousetrap.amqp import declared_queues
from mousetrap.check import read
from mousetrap.errors import DeadlineExceeded, SettingsError
from mousetrap.job_queue import depths
from mousetrap.pytest_plugin import missing
from mousetrap.pytest_plugin.queue_report import describe_queues
from mousetrap.pytest_plugin.table import Plan, plan_of, read_plans, set_name

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
        assert False, "look at the queues"
"""

# What the kernel sees, for us to read afterwards.
TELL = """
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
    document = new_notebook(metadata=metadata)
    if parameters:
        cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        document.cells.append(cell)
    document.cells += [new_code_cell(cell.strip()) for cell in cells]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(document, path)
    return path


def write_project(root: Path) -> Path:
    """Somebody else's project: a stage, its tests, and notebooks of each kind."""
    words = "words: int = 2  # how many good words\npoison: int = 0  # how many that die"
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "lengths.py").write_text(STAGES)
    (root / "test_lengths.py").write_text(TESTS)
    books = root / "books"
    write_notebook(books / "check_lengths.ipynb", TELL, SEND, CLAIM, parameters=words)
    write_notebook(
        books / "named.ipynb", TELL, SEND, CLAIM,
        parameters=words, mousetrap={"parameters": {"quick": {"words": 1}}},
    )  # fmt: skip
    write_notebook(books / "plain.ipynb", TELL, "words, poison = 1, 0", SEND, CLAIM, LEAVE)
    write_notebook(books / "fails.ipynb", TELL, "words, poison = 1, 1", SEND, CLAIM)
    write_notebook(books / "hangs.ipynb", TELL, LEAVE.replace("forgotten.pid", "hanging.pid"),
                   "import threading\nthreading.Event().wait()")  # fmt: skip
    prototype = STAGES.partition("\n\n")[2].replace("len(word)", "len(word) + 1")
    write_notebook(
        books / "drifted.ipynb",
        "from mousetrap import stage",
        f"# same as lengths:measure\n{prototype}",
    )
    return root


def run_pytest(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=root, env=os.environ | environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip


class Report:
    """What one run of the project said and left."""

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
        """The part of the output that tells of the failure of *name*."""
        found = re.search(rf"\n_+ \S*{re.escape(name)} _+\n(.*?)(?=\n_{{5}}|\n={{5}})",
                          self.output, re.DOTALL)  # fmt: skip
        assert found, self.output
        return found[1]

    def queues_of(self, name: str) -> str:
        return self.of(name).partition("- queues -")[2]


@pytest.fixture(scope="module")
def report(broker, tmp_path_factory):
    """One run of everything in two processes, looked at by many tests: kernels take their time."""
    root = write_project(tmp_path_factory.mktemp("foreign"))
    done = run_pytest(root, "--nbmake", "-n", "2", "-rA", "--color=no", **broker.environment())
    return Report(root, done.stdout + done.stderr)


# ---- a project with everything -----------------------------------------------------------------


def test_project_has_an_item_for_each_set_of_parameters(report):
    """A table makes one item of each set, named by what is in it or as the table says."""
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


def test_project_names_its_broker(report, broker):
    """Whoever reads the output knows where the messages went."""
    address = f"{broker.settings.host}:{broker.settings.port}"

    assert re.search(rf"^mousetrap: using the broker external: .* on {address}$",
                     report.output, re.M)  # fmt: skip


def test_notebooks_have_a_namespace_each(report, broker):
    """Kernels of both kinds are told of the broker and of a namespace that nobody shares."""
    namespaces = [seen["MOUSETRAP_NAMESPACE"] for seen in report.seen]

    assert len(set(namespaces)) == len(namespaces) == 6
    assert {seen["MOUSETRAP_BROKER"] for seen in report.seen} == {"external"}
    assert {seen["RABBITMQ_URL"] for seen in report.seen} == {
        broker.settings.to_environment()["RABBITMQ_URL"]
    }


def test_notebooks_leave_no_queue_behind(report, broker):
    """What was declared in their namespaces is deleted, after a failure as well."""
    names = [f"{seen['MOUSETRAP_NAMESPACE']}.words.dead" for seen in report.seen]

    assert depths(names, broker.settings.replace(namespace="")) == [None] * len(names)


def test_failed_check_shows_cell_source_and_error(report):
    """The cell that failed, all of it, what it said, and where the executed copy is."""
    text = report.of("check_lengths.ipynb::words=2-poison=1")

    assert "books/check_lengths.ipynb failed in cell 4 (In [5]): assert len(drain(" in text
    assert "assert not poison, 'there was poison'" in text
    assert "AssertionError: there was poison" in text
    assert "Executed copy: books/_build/check_lengths.words=2-poison=1.ipynb" in text


@pytest.mark.parametrize("name", ["check_lengths.ipynb::words=2-poison=1", "fails.ipynb"])
def test_failed_notebook_shows_its_queues(report, name):
    """As they stood when the cell had failed: the worker still consumes, the letter has a reason.

    For nbmake's own items this leans on its insides; should they change, this test says so.
    """
    text = report.queues_of(name)

    assert re.search(r"^words +0 +1$", text, re.M)
    assert re.search(r"^words\.dead +1 +0$", text, re.M)
    assert re.search(r"in words\.dead, all of 1:\n  \w{8}  attempt 2, 8 bytes, failed with ", text)
    assert "ValueError: no luck at amqp://me:********@host/" in text


def test_failed_test_shows_its_queues(report):
    """A test with a namespace that fails is explained by the same picture."""
    text = report.queues_of("test_that_fails")

    assert re.search(r"^words\.dead +1 +0$", text, re.M)


def test_reports_show_neither_bodies_nor_secrets(report):
    """What a message says is nobody's business, and a password is not even in an item's name."""
    queues = re.findall(r"- queues -+\n(.*?)(?=\n_{5}|\n={5})", report.output, re.DOTALL)

    assert len(queues) == 4
    assert not [text for text in queues if "poison" in text or "letmein" in text or "\x1b" in text]
    assert "hunter2" not in report.output


def test_refused_parameters_start_no_kernel(report):
    """The words of `mousetrap check`, and no executed copy."""
    assert "has no parameter 'word'; did you mean 'words'?" in report.of("ipynb::word=3")
    assert "parameter 'api_key' looks like a secret" in report.of("api_key=hidden")
    assert not list((report.books / "_build").glob("*word=3.ipynb"))
    assert "queues" not in report.of("ipynb::word=3")


def test_executed_copies_are_kept(report):
    """Of every check, and of nbmake's items that failed; nowhere else is anything written."""
    built = {path.name: read(path) for path in (report.books / "_build").glob("*.ipynb")}

    assert {name for name, result in built.items() if result.passed} == {
        "check_lengths.words=3.ipynb", "named.quick.ipynb"
    }  # fmt: skip
    assert {name for name, result in built.items() if not result.passed} == {
        "check_lengths.words=2-poison=1.ipynb", "fails.ipynb", "hangs.ipynb"
    }  # fmt: skip
    assert built["check_lengths.words=3.ipynb"].parameters["words"] == 3


def test_notebook_of_nbmake_has_a_deadline(report):
    """At its end the cell is interrupted, and the report says why and where it hung."""
    text = report.of("hangs.ipynb")

    assert "hangs.ipynb took longer than its deadline of 10 s" in text
    assert "threading.Event().wait()" in text
    assert "mousetrap has declared no queue here" in text


@pytest.mark.parametrize("name", ["forgotten.pid", "hanging.pid"])
def test_notebook_of_nbmake_leaves_no_process_behind(report, name):
    """Whatever it started is ended, whether it passed or not."""
    pid = int((report.books / name).read_text())

    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_drifted_notebook_fails_with_a_diff(report):
    """In an item of its own; the notebook itself runs as ever."""
    text = report.of("drifted.ipynb::drift")

    assert "books/drifted.ipynb, cell 2, same as lengths:measure: it is not the same" in text
    assert "-    return len(word)\n+    return len(word) + 1" in text


# ---- choosing items ----------------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch):
    """Whoever asks for a broker here finds none, and in CI that is a failure."""
    monkeypatch.setenv("RABBITMQ_URL", "amqp://localhost:1")
    monkeypatch.setenv("CI", "true")


def test_collecting_asks_for_no_broker(pytester, nobody):
    """`--collect-only` lists the items by the names that select them; -k selects."""
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


def test_items_are_there_only_with_nbmake(pytester, nobody):
    """Without the option pytest collects no notebook, and a table changes nothing about that."""
    write_project(pytester.path)

    result = pytester.runpytest_subprocess("--collect-only", "-q")

    assert "ipynb" not in result.stdout.str()


def test_one_item_can_be_run_by_its_id(pytester, broker, monkeypatch):
    """With its own deadline, which rules over that of pytest-timeout."""
    write_project(pytester.path)
    for name, value in broker.environment().items():
        monkeypatch.setenv(name, value)

    result = pytester.runpytest_subprocess("--nbmake", "-otimeout=1", "books/named.ipynb::quick")

    result.assert_outcomes(passed=1)


def test_drift_needs_no_broker(pytester, nobody):
    """Comparing is quick and can be done anywhere."""
    write_project(pytester.path)

    result = pytester.runpytest_subprocess("--nbmake", "books/drifted.ipynb::drift")

    result.assert_outcomes(failed=1)
    assert "no broker" not in result.stdout.str()


# ---- projects that do not use mousetrap --------------------------------------------------------


@pytest.fixture
def bare(monkeypatch):
    """An environment that says nothing of brokers, and no CI."""
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
def test_foreign_project_sees_no_change(pytester, bare, processes):
    """Not a module more than the plugin itself, not a variable, and its fixtures are its own."""
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


def test_foreign_notebook_sees_no_change(pytester, bare):
    """Nor does a notebook that does not use mousetrap, in a project that does not mention it."""
    heavy = {"mousetrap", "pika", "msgspec"}
    write_notebook(pytester.path / "a.ipynb", UNTOUCHED.replace("HEAVY", str(heavy)))

    result = pytester.runpytest_subprocess("--nbmake")

    result.assert_outcomes(passed=1)
    assert "mousetrap:" not in result.stdout.str()


# ---- a missing broker --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ci", "processes", "outcomes"), [("", "2", {"skipped": 2}), ("true", "0", {"errors": 2})]
)
def test_missing_broker_skips_at_home_and_fails_in_ci(pytester, bare, ci, processes, outcomes):
    """A test and a notebook alike; the reason names the address."""
    bare.setenv("RABBITMQ_URL", "amqp://localhost:1")
    bare.setenv("CI", ci)
    pytester.makepyfile("def test_broker(broker): pass")
    write_notebook(pytester.path / "a.ipynb", "import mousetrap")

    result = pytester.runpytest_subprocess("--nbmake", "-rsE", "-n", processes)

    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(["*no broker: *localhost:1*"])


def test_ci_does_not_take_the_embedded_broker_for_rabbitmq(pytester, bare):
    """Without any RabbitMQ it would be the last way: that is said, not passed over."""
    bare.setenv("RABBITMQ_PORT", "1")
    bare.setenv("CI", "true")
    bare.setenv("PATH", str(pytester.path))  # neither docker nor rabbitmq-server
    pytester.makepyfile("def test_broker(broker): pass")

    pytester.runpytest_subprocess("-rE").stdout.fnmatch_lines(["*there is no RabbitMQ, and in CI*"])

    bare.setenv("MOUSETRAP_BROKER", "embedded")
    pytester.runpytest_subprocess("-rE").assert_outcomes(passed=1)


# ---- fixtures ----------------------------------------------------------------------------------


def test_namespace_is_in_the_environment(namespace, broker):
    """What reads the environment is on the broker of the tests and in the test's namespace."""
    settings = Settings.from_environment()

    assert settings == broker.settings.replace(namespace=namespace)
    assert os.environ["MOUSETRAP_BROKER"] == "external"


def test_namespace_may_be_made_longer(namespace):
    """A notebook, or a run, makes namespaces of its own out of the one that it finds."""
    Settings(namespace=f"{namespace}-12345678")


def test_channel_is_open_in_the_namespace(channel, namespace):
    """The tutorial's queues are there, by their names on the wire."""
    name = f"{namespace}.start_fetch"

    channel.basic_publish("", name, b"1")

    assert [message.data for message in drain("start_fetch", n=1, timeout=5)] == [1]


def test_run_starts_a_flow_in_the_namespace(run, namespace):
    """A Run that is closed with the test."""
    from mousetrap.run_processing_worker import process

    started = run([process])

    assert started.namespace.startswith(namespace)


def test_fixtures_leave_nothing_behind(pytester, broker, monkeypatch):
    """After a test its queues are gone, and the environment is what it was."""
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
def test_processes_share_one_private_node(pytester, bare):
    """The controller starts it when a worker needs it, and it ends with the session."""
    if shutil.which("rabbitmq-server") is None:
        missing("no rabbitmq-server on the PATH")
    bare.setenv("MOUSETRAP_BROKER", "local")
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
    assert depths_are_refused(ports.pop())


def depths_are_refused(port: int) -> bool:
    try:
        depths(["words"], Settings(port=port, connect_timeout=1))
    except Exception as error:
        return "nobody" in str(error).lower() or "refused" in str(error).lower()
    return False


# ---- tables ------------------------------------------------------------------------------------


def test_label_names_a_set_by_what_is_in_it():
    """As short as can be, fit for a file name and for the command line; a secret is hidden."""
    assert set_name({"jobs": 500, "failure_rate": 0.1}) == "jobs=500-failure_rate=0.1"
    assert set_name({}) == "defaults"
    assert set_name({"path": "a/b::c d[1]"}) == "path=a_b__c_d_1_"
    assert set_name({"password": "hunter2"}) == "password=hidden"
    assert set_name({"url": "amqp://me:hunter2@host/"}) == "url=hidden"


def test_label_of_a_large_set_is_cut_and_stays_its_own():
    """Two sets that differ at their ends have two names."""
    one, other = (set_name({"text": "x" * 100 + end}) for end in "ab")

    assert len(one) == len(other) == 80
    assert one != other


def test_plan_is_made_of_both_tables():
    """pyproject.toml wins, key by key, over what the notebook says of itself."""
    metadata = {"deadline": 60, "parameters": {"quick": {"jobs": 1}}}

    assert plan_of({}, {}, "a.ipynb") == Plan()
    assert plan_of({"deadline": 5}, metadata, "a.ipynb") == Plan({"quick": {"jobs": 1}}, 5.0)
    assert plan_of({"parameters": [{}]}, metadata, "a.ipynb") == Plan({"defaults": {}}, 60.0)


@pytest.mark.parametrize(
    ("text", "plans"), [(None, None), ("[tool.other]", None), ("[tool.mousetrap]", {})]
)
def test_plans_are_none_where_mousetrap_is_not_mentioned(tmp_path, text, plans):
    """A table of ours, be it empty, says that the notebooks use mousetrap."""
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)

    assert read_plans(tmp_path) == plans


def test_plans_in_a_file_that_is_no_toml(tmp_path):
    """pytest says so itself, unless its options are in another file; then we do."""
    (tmp_path / "pyproject.toml").write_text("[tool.mousetrap")

    with pytest.raises(SettingsError, match=r"pyproject\.toml cannot be read"):
        read_plans(tmp_path)


def test_plan_takes_no_notice_of_an_executed_copy():
    """What mousetrap check leaves in a copy's metadata is no table."""
    facts = {"notebook": "a.ipynb", "deadline": 300.0, "error": None, "failing": None}

    assert plan_of({}, facts, "copy.ipynb") == Plan()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"parmeters": {}}, "no 'parmeters'; did you mean 'parameters'"),
        ({"deadline": 0}, "a number of seconds above 0"),
        ({"deadline": "soon"}, "a number of seconds above 0"),
        ({"deadline": True}, "a number of seconds above 0"),
        ({"parameters": 5}, "must be a table"),
        ({"parameters": {"quick": 5}}, "parameters.quick must be a table"),
        ({"parameters": [{}, {}]}, "two sets of parameters are the same"),
        ({"parameters": {"a b": {}}}, "cannot be called 'a b'"),
        ({"parameters": {"drift": {}}}, "cannot be called 'drift'"),
        (5, "must be a table"),
    ],
)
def test_plan_refuses_what_cannot_be_meant(entry, reason):
    """The error says where it stands and what is allowed."""
    with pytest.raises(SettingsError, match=reason) as caught:
        plan_of(entry, {}, "pyproject.toml: here")

    assert "pyproject.toml: here" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[tool.mousetrap.notebooks."books/chek_lengths.ipynb"]', "did you mean 'check_lengths"),
        ("[tool.mousetrap.notebook]", "did you mean 'notebooks'"),
        ('[tool.mousetrap.notebooks."books/plain.ipynb"]\ndeadline = -1', "above 0"),
        ("[tool.pytest.ini_options]\nmousetrap_deadline = 'soon'", "must be a number of seconds"),
    ],
)
def test_bad_table_ends_the_session_before_anything_runs(pytester, nobody, text, reason):
    """A misspelt notebook would never be tested, and nobody would notice."""
    write_project(pytester.path)
    (pytester.path / "pyproject.toml").write_text(text)

    result = pytester.runpytest_subprocess("--nbmake")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(rf"ERROR: .*{reason}", result.stderr.str())


def test_bad_metadata_is_an_error_of_that_notebook(pytester, nobody):
    """It is not run by nbmake in the meantime, as if there were no table."""
    write_notebook(pytester.path / "a.ipynb", "1", mousetrap={"paramters": {}})

    result = pytester.runpytest_subprocess("--nbmake")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*metadata.mousetrap has no 'paramters'; did you mean*"])


# ---- pictures and deadlines --------------------------------------------------------------------


def test_picture_says_when_the_broker_cannot_be_asked():
    """A report of a failure does not fail itself."""
    settings = Settings(port=1, connect_timeout=0.2, namespace="gone")

    assert "the broker could not be queried: " in describe_queues(
        ["gone.words"], settings, "external"
    )


def test_picture_shows_the_first_messages_of_a_long_queue(namespace, broker):
    """By id, attempt and size; what was deleted is named; nothing acts on a terminal."""
    settings = broker.settings.replace(namespace=namespace)
    declare("words", "gone\x85\u202e", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_many([Message("secret") for _ in range(9)], "words")
        publisher.flush()
    names = declared_queues.names_in(os.environ["MOUSETRAP_DECLARED"])

    text = describe_queues([*names, f"{namespace}.never"], settings, "external")

    assert "in words, the first 5 of 9:" in text
    assert text.count("attempt 1, 8 bytes") == 5
    assert "deleted: never" in text
    assert "secret" not in text
    assert "\\x85\\u202e" in text


def test_watch_fails_a_notebook_that_swallows_its_interrupt():
    """Time was up, so it is red, whatever the notebook made of it."""
    from mousetrap.pytest_plugin.notebook_runtime import DeadlineWatch

    looks = []
    watch = DeadlineWatch(0.05, "no process bears this mark", lambda: looks.append("look"))
    with pytest.raises(DeadlineExceeded, match=r"deadline of 0\.05 s"), watch:
        watch._thread.join(10)

    assert looks == ["look"]

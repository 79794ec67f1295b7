"""The plugin in a user's project: real kernels, a real broker, one process and several."""

from __future__ import annotations

import os
import re
import shutil
import textwrap

import pytest
from support.plugin_project import write_notebook, write_project

from mousetrap import Settings, drain
from mousetrap.errors import BrokerUnreachable, DeadlineExceeded
from mousetrap.job_queue import depths
from mousetrap.pytest_plugin import missing

pytest_plugins = "pytester"


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

    assert settings == broker.settings.replace(namespace=namespace, queues_expire=True)
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

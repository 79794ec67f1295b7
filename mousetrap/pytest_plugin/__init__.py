"""The pytest plugin: fixtures for tests with a real broker, and notebooks as tests.

Fixtures: `broker`, `namespace`, `channel`, `run`.

With ``pytest --nbmake`` each notebook that uses mousetrap gets a broker and a namespace of its own
in its environment, a deadline, and after a failure a report of its queues; it can import from the
folders of pytest's option `pythonpath`, as tests can. A notebook with a table
of parameter sets (`mousetrap.pytest_plugin.table`) has one item for each set, which
`mousetrap.check` runs. A notebook with marked functions (`mousetrap.check.drift`) has an item that
compares them.

pytest imports this module in every project where mousetrap is installed. So the hooks only decide
whether a test or a notebook uses mousetrap; if it does, they import the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from mousetrap.pytest_plugin.stash import (
    NAMESPACE_ERROR,
    NEEDS_NAMESPACE,
    NOTEBOOK_ENTRIES,
    SESSION_BROKER,
    TEST_NAMESPACE,
    WORKER_INPUT,
    request_folder,
)

if TYPE_CHECKING:
    from mousetrap.amqp.blocking_channel import JobChannel
    from mousetrap.broker import Broker


def missing(what: str) -> NoReturn:
    """Skip the test because *what* is missing; in CI, where nothing may be missing, fail it."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


# ---- fixtures ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Broker:
    """A RabbitMQ, found or started by `mousetrap.broker.ensure`.

    Without one the test is skipped; if the environment variable CI is set, it fails.
    """
    from mousetrap.errors import MousetrapError
    from mousetrap.pytest_plugin.session_broker import session_broker

    try:
        return session_broker(pytestconfig).broker()
    except MousetrapError as error:
        missing(f"no broker: {error}")


@pytest.fixture
def namespace(request: pytest.FixtureRequest, broker: Broker) -> Iterator[str]:
    """A namespace for this test alone: the prefix of the names of all its queues.

    While the test runs the environment has the namespace and the broker. So
    ``Settings.from_environment()``, and with it `Publisher()`, ``stage.start()`` and child
    processes, use them without an argument. Afterwards the queues are deleted; queues that were
    declared by pika alone expire.
    """
    from mousetrap.pytest_plugin.test_namespace import TestNamespace

    with TestNamespace(broker, "test") as test_namespace:
        request.node.stash[TEST_NAMESPACE] = test_namespace
        yield test_namespace.namespace


# There is no fixture `settings`: pytest-django has one with this name. In a namespace
# Settings.from_environment() returns the same.


@pytest.fixture
def channel(broker: Broker, namespace: str) -> Iterator[JobChannel]:
    """An open channel in the test's namespace, with the methods of pika's channel.

    Its methods take the full names of queues: ``f"{namespace}.start_fetch"``.
    """
    from mousetrap.job_queue import open_channel

    with open_channel(broker.settings.replace(namespace=namespace, queues_expire=True)) as channel:
        yield channel


@pytest.fixture
def run(broker: Broker, namespace: str) -> Iterator[Callable[..., Any]]:
    """Start flows in the test's namespace: ``run(flow, **options)`` is an entered `mousetrap.Run`.

    *options* are those of `mousetrap.run`. The runs are closed after the test, the last one first.
    """
    from mousetrap.runs.run import run as start

    settings = broker.settings.replace(namespace=namespace, queues_expire=True)
    with ExitStack() as runs:
        yield lambda flow, **options: runs.enter_context(start(flow, settings, **options))


# ---- configuration and collection --------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option for the default deadline."""
    explanation = "seconds that a notebook may run, unless its table has its own (default: 300)"
    parser.addini("mousetrap_deadline", explanation, default="300")


def pytest_configure(config: pytest.Config) -> None:
    """Read the tables of notebooks, if pytest runs notebooks."""
    if not config.getoption("nbmake", default=False):
        return
    from mousetrap.errors import SettingsError
    from mousetrap.pytest_plugin.table import check_deadline, read_plans

    try:
        check_deadline(config.getini("mousetrap_deadline"), "ini option mousetrap_deadline")
        config.stash[NOTEBOOK_ENTRIES] = read_plans(config.rootpath)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Add collectors to nbmake's, or replace it."""
    found = yield
    if not found or file_path.suffix != ".ipynb" or NOTEBOOK_ENTRIES not in parent.config.stash:
        return found
    from mousetrap.pytest_plugin.items import collectors

    return collectors(file_path, parent, found, parent.config.stash[NOTEBOOK_ENTRIES])


@pytest.hookimpl(tryfirst=True)  # before xdist's worker reports what it has collected
def pytest_collection_finish(session: pytest.Session) -> None:
    """Request a broker if a test or a notebook needs one."""
    config = session.config
    if config.option.collectonly:
        return
    is_wanted = False
    for item in session.items:
        if item.path.suffix == ".ipynb" and NOTEBOOK_ENTRIES in config.stash:
            from mousetrap.pytest_plugin.items import needs_namespace

            item.stash[NEEDS_NAMESPACE] = needs_namespace(item)
            is_wanted = is_wanted or item.stash[NEEDS_NAMESPACE]
        else:
            is_wanted = is_wanted or _uses_our_broker(item)
    if is_wanted:
        from mousetrap.pytest_plugin.session_broker import session_broker

        session_broker(config).request()


def _uses_our_broker(item: pytest.Item) -> bool:
    # Other plugins can have a fixture with this name: no broker is started for it.
    known: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    used = known.get("broker", ())[-1:]  # the last one overrides the others
    return any(getattr(each.func, "__module__", "") == __name__ for each in used)


# ---- running -----------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start the broker before the first test, so that it does not use the test's time limit."""
    if not session.testsfailed and SESSION_BROKER in session.config.stash:
        session.config.stash[SESSION_BROKER].prepare()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In xdist's controller: give a new worker the folder where it can request the broker."""
    node.workerinput[WORKER_INPUT] = request_folder(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """In xdist's controller: answer a worker, which may have requested the broker."""
    if os.path.exists(request_folder(node.config)):
        from mousetrap.pytest_plugin.session_broker import session_broker

        session_broker(node.config).answer()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give a notebook its namespace, from its set-up to the end of its report."""
    if not item.stash.get(NEEDS_NAMESPACE, False):
        return (yield)
    from mousetrap.pytest_plugin.notebook_runtime import notebook_namespace

    with notebook_namespace(item):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a notebook, or fail it, if there is no broker for its namespace."""
    if reason := item.stash.get(NAMESPACE_ERROR, ""):
        missing(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Limit the time of a notebook that nbmake runs."""
    if not (getattr(item, "nbmake", False) and TEST_NAMESPACE in item.stash):
        return (yield)
    from mousetrap.pytest_plugin.notebook_runtime import deadline_watch

    with deadline_watch(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the queues to the report of a failed notebook, or of a failed test with a namespace."""
    report = yield
    if report.failed and call.excinfo and report.when == "call" and TEST_NAMESPACE in item.stash:
        from mousetrap.pytest_plugin.notebook_runtime import add_to_report

        add_to_report(item, call.excinfo, report)
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the broker if it was started for this session."""
    if SESSION_BROKER in config.stash:
        config.stash[SESSION_BROKER].close()

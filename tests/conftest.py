"""Fixtures for all tests: settings with a namespace of its own, a proxy, brokers to be killed.

The fixtures `broker` and `namespace` are those of `mousetrap.pytest_plugin`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import uuid

import hypothesis
import pytest
from rig import brokers, fault_table
from rig.fault_table import pytest_runtest_logreport, pytest_terminal_summary  # noqa: F401 -- hooks
from rig.seed import session_seed
from rig.worker_pool import WorkerPool
from support.jupyterlab import chromium
from support.order import longest_first
from support.quick import mark_quick

from mousetrap.amqp import new_queues, overdue_acks
from mousetrap.broker import Broker, ensure, probe
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

# A shell starts background processes with SIGINT ignored, and child processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline for an example: on a busy machine one takes longer than hypothesis' 200 ms. All else
# stays as it is; in CI that is hypothesis' own profile, which draws the same examples every time.
hypothesis.settings.register_profile("mousetrap", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("mousetrap")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items):
    """Mark the quick tests, and put the longest files first."""
    mark_quick(items)
    longest_first(items)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """From now on no bytecode is written: a test may write a module, and change it in a second.

    The second module would have the time of the first one, and Python would run that again.
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_configure(config):
    """Run all tests on a container of one version, if ``RIG_RABBITMQ=3.10`` is set."""
    session_seed()
    if os.environ.get(brokers.VERSION_VARIABLE) and not hasattr(config, "workerinput"):
        config.rig_broker = brokers.start_broker()
        os.environ["RABBITMQ_URL"] = config.rig_broker.settings.to_environment()["RABBITMQ_URL"]


def pytest_unconfigure(config):
    if hasattr(config, "rig_broker"):
        config.rig_broker.close()


@pytest.fixture
def page():
    """A page in Chromium, as large as a usual window."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)  # milliseconds
        yield page


@pytest.fixture
def node():
    """A private RabbitMQ node for one test, which may kill it or set off its alarms."""
    if shutil.which("rabbitmq-server") is None:
        missing("no rabbitmq-server on the PATH")
    with ensure("local", Settings()) as broker:
        yield broker.node
        for log in sorted((broker.node.folder / "log").glob("*localhost.log")):
            lines = log.read_text(errors="replace").splitlines()
            print(
                "the end of the node's log:", *lines[-120:], sep="\n"
            )  # shown if the test has failed


@pytest.fixture
def settings(broker: Broker, namespace: str) -> Settings:
    """Settings with a namespace of its own, whose queues expire a minute after their last use."""
    return broker.settings.replace(namespace=namespace, queues_expire=True, queue_expiry=60.0)


@pytest.fixture(params=["rabbitmq", "embedded"])
def anywhere(request):
    """Settings of a RabbitMQ, and of the embedded broker."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("settings")
        return
    with ensure("embedded", Settings()) as broker:
        yield broker.settings.replace(namespace="anywhere", queues_expire=True, queue_expiry=60.0)


@pytest.fixture
def proxy(settings: Settings):
    """A proxy in front of the broker that can inject faults: connect by ``proxy.settings``."""
    with Proxy(settings) as proxy:
        yield proxy


@pytest.fixture
def start_kernel(settings: Settings):
    """Start kernels that have *settings* in their environment; all end with the test."""
    from support.kernel import Kernel  # imports Jupyter, which most tests do without

    running = []

    def start(settings=settings, **environment):
        kernel = Kernel(settings.to_environment() | environment)
        running.append(kernel)
        return kernel.__enter__()

    yield start
    for kernel in running:
        kernel.__exit__()


@pytest.fixture
def kernel(start_kernel):
    return start_kernel()


@pytest.fixture(autouse=True)
def _confirms_count_at_once(request, monkeypatch):
    """In this process, confirms of a new quorum queue count at once if no test kills the broker.

    Otherwise each test in which a message fails would wait for `NEW_QUEUE_TIME`, and acks that the
    broker expects within two seconds would come too late.
    """
    fixtures = set(request.fixturenames)
    if "short_ack_timeout" in fixtures or not {"rabbit", "node", "cluster"} & fixtures:
        monkeypatch.setattr(new_queues, "NEW_QUEUE_TIME", 0.0)


@pytest.fixture(autouse=True)
def _no_calls_are_left():
    """The connection of calls, which a process keeps, ends with the test."""
    yield
    if (module := sys.modules.get("mousetrap.flows.call")) is not None:
        module.close_calls()


# ---- for the tests of faults -------------------------------------------------------------------


@pytest.fixture(scope="session")
def _session_rabbit():
    broker = brokers.start_broker()
    yield broker
    broker.close()


@pytest.fixture
def rabbit(_session_rabbit):
    """A running broker that the test may kill, stop, and set alarms on."""
    _session_rabbit.start()
    return _session_rabbit


@pytest.fixture
def rabbit_settings(rabbit):
    """Settings for `rabbit`, with a namespace of its own."""
    return rabbit.settings.replace(
        namespace=f"rig-{uuid.uuid4().hex[:10]}", queues_expire=True, queue_expiry=600.0
    )


@pytest.fixture
def short_ack_timeout(rabbit, monkeypatch):
    """A broker that waits two seconds for an ack, and checks twice a second.

    The broker reads the limit when a consumer starts (4.3) or a channel opens (before). Workers in
    this process have it look for overdue acks as often, in proportion.
    """
    limit = 2.0
    monkeypatch.setattr(overdue_acks, "INTERVAL", limit / 4)
    ticks = dict.fromkeys(("channel_tick_interval", "quorum_tick_interval"), round(250 * limit))
    with brokers.parameters(rabbit, consumer_timeout=round(1000 * limit), **ticks):
        yield limit


@pytest.fixture(scope="session")
def _worker_pool(tmp_path_factory):
    with WorkerPool(tmp_path_factory.mktemp("workers")) as worker_pool:
        yield worker_pool


@pytest.fixture
def worker_pool(_worker_pool):
    """Worker processes that may be killed; all end with the test."""
    yield _worker_pool
    _worker_pool.kill_all()


@pytest.fixture
def seeded_random(request):
    """Random numbers of this test, which the seed of the session repeats."""
    return random.Random(f"{session_seed()} {request.node.name}")


@pytest.fixture
def fault_row(request, record_property):
    """The row of this test in the table of faults; the marker `fault` says of which fault."""
    mark = request.node.get_closest_marker("fault")
    parameters = getattr(request.node, "callspec", None)
    parts = parameters.id.split("-") if parameters else []
    if parameters and "times" in parameters.params:  # which has a column of its own
        parts.remove(str(parameters.params["times"]))
    what = " ".join([request.node.originalname.removeprefix("test_").replace("_", " "), *parts])
    settings = request.getfixturevalue(
        "rabbit_settings" if "rabbit_settings" in request.fixturenames else "settings"
    )
    version = (probe.version(settings) or "").removeprefix("RabbitMQ ")
    row = fault_table.TableRow(mark.args[0], what, version, session_seed())
    yield row
    record_property("fault", fault_table.packed(row))

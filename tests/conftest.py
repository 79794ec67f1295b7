"""A namespace of the real broker for each test, a node that may be killed, a wire that can be cut.

The fixtures `broker` and `namespace` are those of `mousetrap.pytest_plugin`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import uuid

import hypothesis
import pytest
from rig import brokers, summary
from rig.crew import Crew
from rig.summary import pytest_runtest_logreport, pytest_terminal_summary  # noqa: F401 -- hooks
from support.jupyterlab import chromium

from mousetrap.broker import Broker, ensure, probe
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

# A shell starts what it puts into the background deaf to Ctrl-C, and our children would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline for an example: on a busy machine one takes longer than hypothesis' 200 ms. All else
# stays as it is; in CI that is hypothesis' own profile, which draws the same examples every time.
hypothesis.settings.register_profile("mousetrap", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("mousetrap")


def pytest_configure(config):
    """With ``RIG_RABBITMQ=3.10`` in the environment, all tests run on a container of that."""
    summary.seed()
    if os.environ.get(brokers.VERSION) and not hasattr(config, "workerinput"):
        config.rig_broker = brokers.breakable()
        os.environ["RABBITMQ_URL"] = config.rig_broker.settings.to_environment()["RABBITMQ_URL"]


def pytest_unconfigure(config):
    if hasattr(config, "rig_broker"):
        config.rig_broker.close()


@pytest.fixture
def page():
    """A page in a Chromium, as large as a person's window."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)  # milliseconds
        yield page


@pytest.fixture
def node():
    """A private node for one test: it may be killed, and alarms may be set off."""
    if shutil.which("rabbitmq-server") is None:
        missing("no rabbitmq-server on the PATH")
    with ensure("local", Settings()) as broker:
        yield broker.node
        for log in sorted((broker.node.folder / "log").glob("*localhost.log")):
            said = log.read_text(errors="replace").splitlines()
            print("the node's last words:", *said[-120:], sep="\n")  # shown if the test has failed


@pytest.fixture
def settings(broker: Broker, namespace: str) -> Settings:
    """Settings with a namespace of their own; its queues expire a minute after their last use."""
    return broker.settings.replace(namespace=namespace, queue_expiry=60.0)


@pytest.fixture
def proxy(settings: Settings):
    """A wire to the broker that can be cut: use ``proxy.settings`` to go through it."""
    with Proxy(settings) as proxy:
        yield proxy


@pytest.fixture
def start_kernel(settings: Settings):
    """Start a kernel that sees *settings*; all are ended with the test."""
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


# ---- for the tests of faults -------------------------------------------------------------------


@pytest.fixture(scope="session")
def _breakable():
    broker = brokers.breakable()
    yield broker
    broker.close()


@pytest.fixture
def rabbit(_breakable):
    """A broker of our own that may be killed, stopped, alarmed and asked; it runs."""
    _breakable.start()
    return _breakable


@pytest.fixture
def own(rabbit):
    """Settings for `rabbit`, with a namespace of their own."""
    return rabbit.settings.replace(namespace=f"rig-{uuid.uuid4().hex[:10]}", queue_expiry=600.0)


@pytest.fixture(scope="session")
def _crew(tmp_path_factory):
    with Crew(tmp_path_factory.mktemp("workers")) as crew:
        yield crew


@pytest.fixture
def crew(_crew):
    """Worker processes that may be killed; none outlives the test."""
    yield _crew
    _crew.kill_all()


@pytest.fixture
def chance(request):
    """Random numbers that the seed of the session repeats, for this test alone."""
    return random.Random(f"{summary.seed()} {request.node.name}")


@pytest.fixture
def tally(request, record_property):
    """The row of this test in the table of faults; its marker says of which fault."""
    mark = request.node.get_closest_marker("fault")
    parameters = getattr(request.node, "callspec", None)
    parts = (
        parameters.id.split("-")[: -("times" in parameters.params) or None] if parameters else []
    )
    what = " ".join([request.node.originalname.removeprefix("test_").replace("_", " "), *parts])
    settings = request.getfixturevalue("own" if "own" in request.fixturenames else "settings")
    version = (probe.version(settings) or "").removeprefix("RabbitMQ ")
    row = summary.Tally(mark.args[0], what, version, summary.seed())
    yield row
    record_property("fault", summary.packed(row))

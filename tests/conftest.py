"""A namespace of the real broker for each test, a node that may be killed, a wire that can be cut.

The fixtures `broker` and `namespace` are those of `mousetrap.pytest_plugin`.
"""

from __future__ import annotations

import shutil
import signal

import pytest
from lab import chromium

from mousetrap.broker import Broker, ensure
from mousetrap.faults.proxy import Proxy
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

# A shell starts what it puts into the background deaf to Ctrl-C, and our children would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def settings(broker: Broker, namespace: str) -> Settings:
    """Settings with a namespace of their own; its queues expire a minute after their last use."""
    return broker.settings.but(namespace=namespace, queue_expiry=60.0)


@pytest.fixture
def proxy(settings: Settings):
    """A wire to the broker that can be cut: use ``proxy.settings`` to go through it."""
    with Proxy(settings) as proxy:
        yield proxy

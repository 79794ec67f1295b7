"""A real broker for all tests, a namespace for each, and a wire that can be cut.

Without a broker the tests that need one are skipped at home and fail in CI.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid

import pytest
from proxy import Proxy

from mousetrap.broker import Broker, ensure
from mousetrap.errors import MousetrapError
from mousetrap.settings import Settings

_found: Broker | MousetrapError | None = None

# A shell starts what it puts into the background deaf to Ctrl-C, and our children would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find or start the broker once, and tell the notebooks' kernels by the environment."""
    global _found
    needed = any(
        item.path.suffix == ".ipynb" or "broker" in getattr(item, "fixturenames", ())
        for item in session.items
    )
    if not needed or session.config.option.collectonly:
        return
    try:
        _found = ensure()
    except MousetrapError as error:
        _found = error
    else:
        os.environ.update(_found.environment())


@pytest.fixture(scope="session")
def broker() -> Broker:
    if not isinstance(_found, Broker):
        missing(f"no broker: {_found}")
    return _found


def missing(what: str) -> None:
    """Skip at home, fail in CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture
def node():
    """A private node for one test: it may be killed, and alarms may be set off."""
    if shutil.which("rabbitmq-server") is None:
        missing("no rabbitmq-server on the PATH")
    with ensure("local", Settings()) as broker:
        yield broker.node


@pytest.fixture
def settings(broker: Broker) -> Settings:
    """Settings with a namespace of their own; its queues expire a minute after their last use."""
    return broker.settings.but(namespace=f"test-{uuid.uuid4().hex[:8]}", queue_expiry=60.0)


@pytest.fixture
def proxy(settings: Settings):
    """A wire to the broker that can be cut: use ``proxy.settings`` to go through it."""
    with Proxy(settings) as proxy:
        yield proxy

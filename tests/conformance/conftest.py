"""The brokers that the cases of this folder run on, and a connection for each case.

Without more the cases run on the embedded broker and on the one that the session uses.
``MOUSETRAP_CONFORMANCE`` names others instead, by URL, with spaces between them:

    export MOUSETRAP_CONFORMANCE="embedded amqp://DEV_USER:CHANGE_ME@localhost:5672 amqp://..."
    pytest tests/conformance
"""

from __future__ import annotations

import os
import uuid

import pytest
from client import Target

from mousetrap.embedded_broker import EmbeddedServer

USER, PASSWORD = "DEV_USER", "CHANGE_ME"


def pytest_generate_tests(metafunc):
    """Run each case on each broker; the name of the broker comes first."""
    if "target" in metafunc.fixturenames:
        named = os.environ.get("MOUSETRAP_CONFORMANCE", "embedded session").split()
        ids = [each.rpartition("@")[2] for each in named]
        metafunc.parametrize("target", named, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request):
    """One broker."""
    if request.param == "embedded":
        with EmbeddedServer({USER: PASSWORD}) as server:
            yield Target(f"amqp://{USER}:{PASSWORD}@127.0.0.1:{server.port}", server)
    elif request.param == "session":
        broker = request.getfixturevalue("broker")
        if broker.kind == "embedded":
            pytest.skip("the session's broker is the embedded one")
        yield Target(broker.settings.to_environment()["RABBITMQ_URL"])
    else:
        yield Target(request.param)


@pytest.fixture
def name(target):
    """Make names for queues and exchanges; what has one of them is deleted after the case."""
    prefix, made = f"conformance.{uuid.uuid4().hex[:10]}", []

    def name(word="queue"):
        made.append(f"{prefix}.{word}")
        return made[-1]

    yield name
    with target.connect() as connection:
        channel = connection.channel()
        for each in made:
            channel.queue_delete(each)
            channel.exchange_delete(each)


@pytest.fixture
def connect(target, name):
    """Open a connection with pika's options; it is closed after the case, before `name` cleans."""
    opened = []

    def connect(**options):
        opened.append(target.connect(**options))
        return opened[-1]

    yield connect
    for each in opened:
        if each.is_open:
            each.close()


@pytest.fixture
def channel(connect):
    """A channel with confirms: what was published has been dealt with when the call returns."""
    channel = connect().channel()
    channel.confirm_delivery()
    return channel


@pytest.fixture
def wire(target, name):
    """Open a connection of which every frame is seen: ``wire()``."""
    opened = []

    def wire(**options):
        opened.append(target.wire(**options))
        return opened[-1]

    yield wire
    for each in opened:
        each.hang_up()


@pytest.fixture
def queue(channel, name):
    """A durable classic queue."""
    return channel.queue_declare(name(), durable=True).method.queue

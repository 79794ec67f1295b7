"""Fixtures for the conformance tests: the brokers that they run on, and connections to them.

By default each test runs on the embedded broker and on the broker of the session. The variable
``MOUSETRAP_CONFORMANCE`` names other brokers, by URL, separated by spaces:

    export MOUSETRAP_CONFORMANCE="embedded amqp://DEV_USER:CHANGE_ME@localhost:5672 amqp://..."
    pytest tests/conformance
"""

from __future__ import annotations

import os
import uuid

import pytest
from client import PASSWORD, USER, Target

from mousetrap.embedded_broker import EmbeddedServer


def pytest_generate_tests(metafunc):
    """Run each test on each broker; the id of the test begins with the broker."""
    if "target" in metafunc.fixturenames:
        named = os.environ.get("MOUSETRAP_CONFORMANCE", "embedded session").split()
        ids = [each.rpartition("@")[2] for each in named]
        metafunc.parametrize("target", named, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request):
    """The broker that the test runs on, as a `Target`."""
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
    """Return names for queues and exchanges, which are deleted after the test."""
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
    """Open a connection with pika's options; it is closed before `name` deletes the queues."""
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
    """A channel in confirm mode: a publish returns when the broker has handled the message."""
    channel = connect().channel()
    channel.confirm_delivery()
    return channel


@pytest.fixture
def connect_raw(target, name):
    """Open a `RawConnection`; it is closed after the test."""
    opened = []

    def connect_raw(**options):
        opened.append(target.connect_raw(**options))
        return opened[-1]

    yield connect_raw
    for each in opened:
        each.hang_up()


@pytest.fixture
def queue(channel, name):
    """A durable classic queue."""
    return channel.queue_declare(name(), durable=True).method.queue

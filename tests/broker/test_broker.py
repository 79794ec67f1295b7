"""Which kind of broker is used, in which order, and what is reported about them."""

from __future__ import annotations

import pytest

from mousetrap import broker as brokers
from mousetrap.broker.configuration import free_ports
from mousetrap.errors import (
    BrokerSetupError,
    BrokerUnreachable,
    SettingsError,
)
from mousetrap.job_queue import ping
from mousetrap.settings import Settings


def fail_if_tried(*_):
    raise AssertionError("this kind must not be tried")


@pytest.fixture
def unreachable(monkeypatch):
    """Settings of an address where nothing listens, and kinds that fail with their names."""

    def refuse(name):
        def start(*_):
            raise BrokerSetupError(f"{name} cannot be started")

        return start

    for name in ("docker", "local"):
        for method in ("up", "join"):
            monkeypatch.setattr(brokers.KINDS[name], method, refuse(name))
    return Settings(port=free_ports(1)[0])


@pytest.mark.parametrize("kind", ["podman", "Docker"])
def test_ensure_refuses_an_unknown_kind(kind):
    """The error names the kinds that exist."""
    with pytest.raises(SettingsError, match="external, docker, local"):
        brokers.ensure(kind)
    with pytest.raises(SettingsError, match="external, docker, local"):
        brokers.down(kind)


def test_ensure_does_not_replace_a_named_broker(unreachable, monkeypatch, logged):
    """A named broker is used or is an error; no other broker takes its place."""
    monkeypatch.setattr(brokers.KINDS["docker"], "join", fail_if_tried)
    monkeypatch.setenv("RABBITMQ_HOST", "localhost")
    with pytest.raises(BrokerUnreachable, match="RABBITMQ_PORT"):
        brokers.ensure(settings=unreachable, log=logged.append)
    monkeypatch.delenv("RABBITMQ_HOST")
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://localhost:{unreachable.port}")
    with pytest.raises(BrokerUnreachable):
        brokers.ensure(log=logged.append)
    with pytest.raises(BrokerUnreachable):
        brokers.ensure("external", unreachable, log=logged.append)


def test_ensure_tries_docker_then_local_then_embedded(unreachable, logged):
    """The embedded broker is the last one; the reasons against the others are logged."""
    with brokers.ensure(settings=unreachable, log=logged.append) as broker:
        assert ping(broker.settings) < 3

    assert broker.kind == "embedded"
    assert logged == [
        "not using docker: docker cannot be started",
        "not using local: local cannot be started",
        f"using the broker {broker}; messages are gone when this process ends",
    ]


def test_up_reports_every_reason(unreachable, logged):
    """`up` does not try the embedded broker, but names it; each kind has a sentence."""
    expected = r"docker: docker cannot.*\n.*local: local cannot.*\n.*broker up --embedded$"
    with pytest.raises(BrokerSetupError, match=expected):
        brokers.up(settings=unreachable, log=logged.append)


def test_ensure_takes_the_kind_from_the_environment(unreachable, monkeypatch, logged):
    """MOUSETRAP_BROKER=local is --broker local; an argument wins over it."""
    monkeypatch.setenv("MOUSETRAP_BROKER", "local")
    with pytest.raises(BrokerSetupError, match="local cannot be started"):
        brokers.ensure(settings=unreachable, log=logged.append)
    with pytest.raises(BrokerSetupError, match="docker cannot be started"):
        brokers.ensure("docker", unreachable, log=logged.append)


@pytest.mark.local
def test_ensure_uses_what_answers(private, monkeypatch, logged):
    """A broker that answers and accepts the login is used and logged."""
    monkeypatch.setattr(brokers.KINDS["docker"], "join", fail_if_tried)

    found = brokers.ensure(settings=private.settings.replace(host="localhost"), log=logged.append)

    assert found.kind == "external"
    assert logged == [f"using the broker {found}"]


@pytest.mark.local
def test_ensure_skips_a_broker_that_refuses_the_login(private, unreachable, logged):
    """A broker with other credentials on the default port is not used, and a line says so."""
    stranger = private.settings.replace(user="stranger", password="Se3ret")

    with pytest.raises(BrokerSetupError, match="docker cannot be started"):
        brokers.up(settings=stranger, log=logged.append)

    assert logged[0].startswith("not using what runs here: ")
    assert "'stranger'" in logged[0]
    assert "Se3ret" not in "".join(logged)


@pytest.mark.local
def test_environment_makes_children_use_the_same_broker(private, monkeypatch, logged):
    """A kernel that calls `ensure` gets its parent's broker and starts none itself."""
    monkeypatch.setenv("MOUSETRAP_BROKER", "local")
    for name, value in private.environment().items():
        monkeypatch.setenv(name, value)

    found = brokers.ensure(log=logged.append)

    assert (found.kind, found.node) == ("external", None)
    assert found.settings.port == private.settings.port


@pytest.mark.local
def test_status_reports_and_changes_nothing(private, logged):
    """One `BrokerStatus` for each kind, with version and address where it runs."""
    external, in_docker, on_machine, in_memory = brokers.status(private.settings)

    assert (external.kind, external.is_running, external.is_available) == ("external", True, True)
    assert external.version.startswith("RabbitMQ ")
    assert (in_docker.kind, in_docker.is_running) == ("docker", False)
    assert (on_machine.kind, on_machine.is_running) == ("local", False)  # it is tied, not up
    assert (in_memory.kind, in_memory.is_available) == ("embedded", True)


def test_a_new_kind_needs_an_entry_in_the_registry_only(monkeypatch, logged):
    """`ensure`, `up`, `down` and `status` use a kind as soon as it is registered."""

    class Fake:
        name = "fake"
        is_in_process = False

        def status(self, _):
            return brokers.BrokerStatus("fake", is_available=True, is_running=False)

        def join(self, settings, *_):
            return brokers.Broker("fake", settings, "fake: joined")

        def up(self, settings, *_):
            return brokers.Broker("fake", settings, "fake: started")

        def down(self, _):
            return True

    monkeypatch.setitem(brokers.KINDS, "fake", Fake())

    assert str(brokers.ensure("fake", log=logged.append)) == "fake: joined"
    assert str(brokers.up("fake", log=logged.append)) == "fake: started"
    assert brokers.down("fake", log=logged.append) == ["fake"]
    assert brokers.status(Settings(port=free_ports(1)[0]))[-1].kind == "fake"

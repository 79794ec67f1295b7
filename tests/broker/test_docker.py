"""The broker in Docker: error messages, containers, volumes."""

from __future__ import annotations

import socket

import pytest
from rig.brokers import ask_docker, compose_project, remove_stale
from support.tools import needs

from mousetrap import broker as brokers
from mousetrap.broker import docker
from mousetrap.broker.configuration import free_ports
from mousetrap.errors import (
    AccessRefused,
    BrokerSetupError,
)
from mousetrap.settings import Settings

DOCKER = brokers.KINDS["docker"]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (None, "Docker is not installed .* another kind of broker"),
        ('[ "$1" = info ]', "no `docker compose`.*docker-compose-plugin"),
        ('[ "$1" = compose ] || { echo "Cannot connect" >&2; exit 1; }', "daemon is not running"),
        (
            '[ "$1" = compose ] || { echo "permission denied" >&2; exit 1; }',
            "may not use Docker.*usermod",
        ),
    ],
)
def test_docker_reports_what_is_missing(script, sentence, path, logged):
    """A missing program, plugin, daemon or permission has an error of its own."""
    if script:
        path("docker", script)

    with pytest.raises(BrokerSetupError, match=sentence):
        brokers.ensure("docker", log=logged.append)
    assert DOCKER.status(Settings()).note
    assert brokers.down("docker", log=logged.append) == []


COMPOSE = 'case "$*" in *"config --images"*) echo rabbitmq:4.3-management;; {} esac'


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            '"image inspect"*) exit 1;; *pull*) echo "no such host" >&2; exit 1;;',
            r"rabbitmq:4.3-management is not here .*no such host.*RABBITMQ_IMAGE",
        ),
        (
            '*" up "*) echo "Bind for 127.0.0.1:PORT failed: already allocated" >&2; exit 1;;',
            "port PORT is taken",
        ),
        (
            '*" up "*) echo "unhealthy" >&2; exit 1;; *logs*) echo "[error] hunter2";;',
            r"not ready after \d+ s \(\[error\] \*+\).*down --volumes",
        ),
    ],
)
def test_docker_reports_why_it_is_not_up(script, sentence, path, logged):
    """Image, port and boot failures have different errors, each with a fix and no password."""
    settings = Settings(port=free_ports(1)[0], password="hunter2")
    path("docker", COMPOSE.format(script.replace("PORT", str(settings.port))))

    with pytest.raises(BrokerSetupError, match=sentence.replace("PORT", str(settings.port))) as no:
        brokers.ensure("docker", settings, log=logged.append)
    assert "hunter2" not in str(no.value)


def test_docker_reports_that_the_port_is_taken(path, logged):
    """No container is started if another program has the port."""
    path("docker")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerSetupError, match=f"port {port} is taken"):
            brokers.ensure("docker", Settings(port=port), log=logged.append)


def test_docker_does_not_move_a_running_container(path, logged):
    """Another port or image than the running container's is refused: it may be in use."""
    path("docker", 'case "$1" in ps) echo "rabbitmq:4.3-management 127.0.0.1:7->5672/tcp";; esac')

    with pytest.raises(BrokerSetupError, match=r"runs already, on port 7 .*mousetrap broker down"):
        brokers.ensure("docker", log=logged.append)


@pytest.mark.parametrize(("port", "management"), [(5672, 15_672), (60_033, 50_033)])
def test_docker_management_port_follows_the_amqp_port(port, management, monkeypatch):
    """Two brokers on two ports have two management ports."""
    monkeypatch.delenv("RABBITMQ_MANAGEMENT_PORT", raising=False)

    assert docker._environment(Settings(port=port))["RABBITMQ_MANAGEMENT_PORT"] == str(management)


@pytest.fixture
def compose(monkeypatch):
    """Settings on free ports; the project's containers and volume are removed afterwards."""
    needs(docker.problem())
    remove_stale()
    port, management = free_ports(2)
    monkeypatch.setenv("RABBITMQ_MANAGEMENT_PORT", str(management))
    settings = Settings(port=port)
    environment = docker._environment(settings)
    yield settings
    docker._compose("down", "--volumes", "--timeout", "1", environment=environment, timeout=60)


@pytest.mark.docker
def test_docker_up_and_down_are_idempotent(compose, logged):
    """Two calls of `up` start one container, `ensure` joins it, `down` stops it once."""
    first = brokers.up("docker", compose, log=logged.append)
    second = brokers.up("docker", compose, log=logged.append)
    joined = brokers.ensure("docker", compose, log=logged.append)
    status = DOCKER.status(Settings())
    stopped = [brokers.down("docker", log=logged.append) for _ in range(2)]

    assert first == second == joined
    assert (status.is_running, status.address) == (True, f"localhost:{compose.port}")
    assert status.version in str(first)
    assert stopped == [["docker"], []]
    assert not DOCKER.status(Settings()).is_running


@pytest.mark.docker
def test_docker_reports_that_the_volume_has_other_credentials(compose, logged):
    """If the password has changed since the volume was made, the error explains it."""
    brokers.up("docker", compose, log=logged.append)
    environment = docker._environment(compose)
    docker._compose("down", "--timeout", "1", environment=environment, timeout=60)

    with pytest.raises(BrokerSetupError, match=r"refused the login.*down --volumes") as refused:
        brokers.up("docker", compose.replace(password="hunter2"), log=logged.append)
    assert isinstance(refused.value.__cause__, AccessRefused)
    assert "hunter2" not in str(refused.value)


@pytest.mark.docker
def test_containers_of_a_killed_test_run_are_removed():
    """Docker restarts the container of a killed test run until the next test run removes it."""
    needs(docker.problem())
    ours, left = compose_project(), "mousetrap-test-1-1"
    try:
        for project in (ours, left):
            labels = ("project", project), ("service", "rabbit")
            options = [f"--label=com.docker.compose.{name}={value}" for name, value in labels]
            ask_docker("create", f"--name={project}", *options, "rabbitmq:4.3-management")
        remove_stale()  # or another process of this test run has just done it
        there = ask_docker("ps", "--all", "--format", "{{.Names}}").split()
        assert (ours in there, left in there) == (True, False)
    finally:
        ask_docker("rm", "--force", ours, left)

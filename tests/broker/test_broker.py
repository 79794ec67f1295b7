"""The kinds of broker: their order, private nodes, containers, and error messages."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rig.brokers import ask_docker, compose_project, remove_stale

from mousetrap import broker as brokers
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import docker, executables, local, probe, rabbitmq_node
from mousetrap.broker.configuration import configure, free_ports
from mousetrap.errors import (
    AccessRefused,
    BrokerSetupError,
    BrokerUnreachable,
    SettingsError,
)
from mousetrap.job_queue import declare, depth, ping
from mousetrap.model.message import Message
from mousetrap.settings import Settings

DOCKER = brokers.KINDS["docker"]


def needs(problem: str | None):
    """Skip, or fail in CI, if *problem* says that a tool is missing."""
    if problem and os.environ.get("CI"):
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)


def eventually(claim, timeout=20.0):
    """Wait until *claim* holds."""
    deadline = time.monotonic() + timeout
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def listening(pid):
    """Return the addresses (hexadecimal, as in /proc/net) that process *pid* listens on."""
    sockets = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = handle.readlink()
        except OSError:
            continue
        sockets.add(str(target).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].split(":")[0])
    return found


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No broker is named, and state is written to a folder of this test."""
    for name in list(os.environ):
        if name.startswith(("RABBITMQ_", "MOUSETRAP_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MOUSETRAP_COMPOSE_PROJECT", compose_project())


@pytest.fixture
def logged():
    """The logged lines; its `append` is the *log* to pass."""
    return []


@pytest.fixture(scope="module")
def private():
    """A private node for the tests that leave it running."""
    needs(executables.problem())
    with brokers.ensure("local", Settings(password="p#s'\"w")) as broker:
        yield broker


# ---- a private node ------------------------------------------------------------------------------


@pytest.mark.local
def test_local_returns_a_message(private):
    """The broker of `ensure` is ready, and its line has the kind, the version and the address."""
    address = f"127.0.0.1:{private.settings.port}"

    assert ping(private.settings) < 3
    assert str(private).startswith("local: RabbitMQ ")
    assert str(private).endswith(f" on {address}")
    assert "p#s" not in repr(private)


@pytest.mark.local
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_local_listens_on_loopback_only(private):
    """AMQP, Erlang's distribution and epmd cannot be reached from another machine."""
    state = private.node.state()
    addresses = listening(state["node"]) | listening(state["epmd"])

    assert addresses
    assert addresses <= {"0100007F", "00000000000000000000000001000000"}


@pytest.mark.local
def test_local_folder_is_private(private):
    """Only this user can read data, cookie and password; no command line has the password."""
    mode = stat.S_IMODE(private.node.folder.stat().st_mode)
    everyone = subprocess.run(
        ["ps", "-eww", "-o", "args="], capture_output=True, text=True, check=True
    )

    assert mode == 0o700
    assert "p#s" not in everyone.stdout


@pytest.mark.local
def test_local_nodes_do_not_collide(private, logged):
    """Two nodes at a time have their own ports and their own data."""
    with brokers.ensure("local", log=logged.append) as other:
        assert other.settings.port != private.settings.port
        assert other.node.pid != private.node.pid
        assert ping(other.settings) < 3
        assert ping(private.settings) < 3

    assert not other.node.folder.exists()
    assert private.node.pid is not None


@pytest.mark.local
def test_local_node_keeps_messages_when_it_is_killed_and_started_again(logged):
    """After a crash and a restart the port, the durable queue and the message are the same."""
    needs(executables.problem())
    with brokers.ensure("local", log=logged.append) as broker:
        declare("kept", settings=broker.settings)
        with Publisher(broker.settings) as publisher:
            publisher.publish_until_confirmed([Message({"seed": 1})], "kept")
        first = broker.node.pid

        # 3.x (Mnesia) writes a new queue to the disk a moment after it has confirmed it
        broker.node.rabbitmqctl("eval", "catch mnesia:sync_log().")
        broker.node.kill()
        was_gone = broker.node.pid is None
        broker.node.start(log=logged.append)

        assert was_gone
        assert broker.node.pid not in (None, first)
        assert depth("kept", broker.settings).messages == 1


@pytest.mark.local
def test_local_node_stops_properly(private, logged):
    """`stop` ends the node and `start` brings it back on the same port."""
    private.node.stop()
    with pytest.raises(BrokerUnreachable):
        ping(private.settings)
    private.node.start(log=logged.append)

    assert ping(private.settings) < 3


@pytest.mark.local
def test_local_ends_when_its_process_is_killed():
    """After SIGKILL of the process, node, epmd, supervisor and folder are gone."""
    needs(executables.problem())
    script = textwrap.dedent("""
        import json, sys
        from mousetrap.broker import ensure
        node = ensure("local").node
        print(json.dumps(node.state() | {"folder": str(node.folder)}), flush=True)
        sys.stdin.read()
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    state = json.loads(parent.stdout.readline())
    pids = [state[role] for role in ("node", "epmd", "supervisor")]
    were_alive = [is_alive(pid) for pid in pids]

    parent.kill()
    parent.communicate()

    assert all(were_alive)
    eventually(lambda: not any(is_alive(pid) for pid in pids))
    eventually(lambda: not Path(state["folder"]).exists())


@pytest.mark.local
def test_local_close_leaves_nothing_when_the_supervisor_was_killed(logged):
    """If the supervisor is killed, `close` ends the node and epmd."""
    needs(executables.problem())
    with brokers.ensure("local", log=logged.append) as broker:
        state = broker.node.state()
        os.kill(state["supervisor"], signal.SIGKILL)

    eventually(lambda: not is_alive(state["node"]) and not is_alive(state["epmd"]))
    assert not broker.node.folder.exists()


@pytest.mark.local
def test_local_up_stays_until_down_and_both_are_idempotent(logged):
    """Two calls of `up` start one node, on the port of the settings; `down` stops it once."""
    needs(executables.problem())
    settings = Settings(port=free_ports(1)[0])
    script = f"from mousetrap.broker import up; from mousetrap.settings import Settings\n" \
             f"up('local', Settings(port={settings.port}))"  # fmt: skip
    try:
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        again = brokers.up("local", settings, log=logged.append)
        joined = brokers.ensure("local", settings, log=logged.append)
        [status] = [status for status in brokers.status(settings) if status.kind == "local"]
    finally:
        stopped = [brokers.down("local", log=logged.append) for _ in range(2)]
    [after] = [status for status in brokers.status(settings) if status.kind == "local"]

    assert again.settings.port == joined.settings.port == settings.port
    assert joined.node is None  # not started by this process
    assert (status.is_running, status.address) == (True, f"127.0.0.1:{settings.port}")
    assert status.version.startswith("RabbitMQ ")
    assert stopped == [["local"], []]
    assert not after.is_running


@pytest.mark.local
def test_local_up_reports_that_the_port_is_taken(logged):
    """`up` starts no node if another program has its port."""
    needs(executables.problem())
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerSetupError, match=f"port {port} is taken .* RABBITMQ_PORT="):
            brokers.up("local", Settings(port=port), log=logged.append)


@pytest.mark.local
@pytest.mark.parametrize("victim", ["amqp", "distribution", "epmd"])
def test_local_node_reports_that_a_port_was_taken_first(victim, tmp_path, monkeypatch, logged):
    """If one of its three ports is taken, the node ends with an error instead of hanging."""
    needs(executables.problem())
    amqp, distribution, epmd = free_ports(3)
    lost = {"amqp": amqp, "distribution": distribution, "epmd": epmd}[victim]
    monkeypatch.setattr("mousetrap.broker.configuration.free_ports", lambda _: [distribution, epmd])
    with socket.create_server(("127.0.0.1", lost)):
        lone = rabbitmq_node.RabbitMQNode(tmp_path, configure(tmp_path, Settings(port=amqp)))
        with lone, pytest.raises(BrokerSetupError, match=rabbitmq_node.PORT_TAKEN):
            lone.start(30, logged.append)


@pytest.mark.local
def test_local_start_tries_other_ports(monkeypatch, logged):
    """If a port is taken between the choice and the start, the next start uses others."""
    needs(executables.problem())
    with socket.create_server(("127.0.0.1", 0)) as other:
        choices = iter([[free_ports(1)[0], other.getsockname()[1]], free_ports(2)])
        monkeypatch.setattr("mousetrap.broker.configuration.free_ports", lambda _: next(choices))
        node = local.start(Settings(), 60, logged.append)
    node.close()

    assert any(rabbitmq_node.PORT_TAKEN in line for line in logged)


# ---- the choice ----------------------------------------------------------------------------------


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
    """`up` does not try the embedded broker; the error has a sentence for each kind."""
    with pytest.raises(BrokerSetupError, match=r"docker: docker cannot.*\n.*local: local cannot"):
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


def test_version_is_none_without_an_amqp_server():
    """A closed port and a server of another protocol have no version."""
    closed = Settings(port=free_ports(1)[0])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = Settings(host="127.0.0.1", port=silent.getsockname()[1])

        assert probe.version(mute, timeout=0.2) is None
    assert probe.version(closed) is None


# ---- what is missing -----------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH with only the programs that the test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(executables, "EXTRA_FOLDERS", ())
    monkeypatch.setattr(executables.sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder))

    def put(name, script="exit 0"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


def test_local_reports_what_is_missing(path, logged):
    """Without rabbitmq-server, and without Erlang, the error names what to install."""
    with pytest.raises(BrokerSetupError, match="apt-get install rabbitmq-server"):
        brokers.ensure("local", log=logged.append)
    path("rabbitmq-server")
    with pytest.raises(BrokerSetupError, match="Erlang is not installed"):
        brokers.ensure("local", log=logged.append)


def test_local_prefers_the_real_script_to_a_wrapper(path, tmp_path):
    """Debian's and conda's wrappers change user or folder; the real script is next to them."""
    path("rabbitmq-script-wrapper")
    path("rabbitmq-env")
    wrapper = tmp_path / "sbin" / "rabbitmq-server"
    wrapper.parent.mkdir()
    wrapper.symlink_to(tmp_path / "bin" / "rabbitmq-script-wrapper")
    executables.EXTRA_FOLDERS = (str(wrapper.parent),)

    assert executables.find_server() == wrapper  # no real one there yet
    path("rabbitmq-server")
    assert executables.find_server() == tmp_path / "bin" / "rabbitmq-server"


def test_local_reports_why_the_node_ended(path, logged, monkeypatch):
    """The error quotes a node that cannot boot, without the password."""
    monkeypatch.setattr(rabbitmq_node.sys, "executable", sys._base_executable)
    path("rabbitmq-server", "echo 'noise'; echo 'error: no luck with hunter2'; exit 3")
    path("rabbitmq-env")
    path("epmd", f'exec {sys._base_executable} -c "{FAKE_EPMD}" $2')

    with pytest.raises(BrokerSetupError, match=r"exit code 3\): error: no luck with \*") as caught:
        brokers.ensure("local", Settings(password="hunter2"), log=logged.append)

    assert "hunter2" not in str(caught.value)


FAKE_EPMD = "import socket,sys,time; s=socket.create_server(('127.0.0.1',int(sys.argv[1]))); s.accept(); time.sleep(60)"  # noqa: E501 -- one line, for `sh`


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (None, "Docker is not installed .* --broker local"),
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


def test_free_ports_are_not_those_of_outgoing_connections():
    """A broker's port stays free while the broker restarts."""
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert max(ports) < 32_768
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if given.exists():
        assert max(ports) < int(given.read_text().split()[0])


def test_free_ports_fails_when_hardly_one_is_free(monkeypatch):
    """The error has the command that lists the listeners."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chance = SimpleNamespace(sample=lambda _, tries: [port] * tries)
        monkeypatch.setattr("mousetrap.broker.configuration._RANDOM", chance)
        with pytest.raises(BrokerSetupError, match=r"hardly one is free.*ss -ltn"):
            free_ports(1)


# ---- containers ----------------------------------------------------------------------------------


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

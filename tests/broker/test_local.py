"""Private nodes: what they are, how they end, and what their errors say."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.processes import is_gone
from support.tools import needs
from support.waiting import wait_for

from mousetrap import broker as brokers
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import executables, local, rabbitmq_node
from mousetrap.broker.configuration import configure, free_ports
from mousetrap.errors import (
    BrokerSetupError,
    BrokerUnreachable,
)
from mousetrap.job_queue import declare, depth, ping
from mousetrap.model.message import Message
from mousetrap.settings import Settings


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
    were_alive = [not is_gone(pid) for pid in pids]

    parent.kill()
    parent.communicate()

    assert all(were_alive)
    wait_for(lambda: all(is_gone(pid) for pid in pids))
    wait_for(lambda: not Path(state["folder"]).exists())


@pytest.mark.local
def test_local_close_leaves_nothing_when_the_supervisor_was_killed(logged):
    """If the supervisor is killed, `close` ends the node and epmd."""
    needs(executables.problem())
    with brokers.ensure("local", log=logged.append) as broker:
        state = broker.node.state()
        os.kill(state["supervisor"], signal.SIGKILL)

    wait_for(lambda: is_gone(state["node"]) and is_gone(state["epmd"]))
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


def test_local_reports_what_is_missing(path, logged):
    """Without rabbitmq-server, and without Erlang, the error names what to install."""
    with pytest.raises(BrokerSetupError, match="apt-get install rabbitmq-server"):
        brokers.ensure("local", log=logged.append)
    path("rabbitmq-server")
    with pytest.raises(BrokerSetupError, match="Erlang is not installed"):
        brokers.ensure("local", log=logged.append)


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

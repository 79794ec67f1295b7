import contextlib
import os
import socket
import subprocess
import sys
import time

import pika
import pika.exceptions
import pytest

import mousetrap
from mousetrap.broker import ensure, overview, probe, up
from mousetrap.broker.configuration import free_ports
from mousetrap.embedded_broker import EmbeddedServer, Limits
from mousetrap.errors import BrokerSetupError, QueueMissing
from mousetrap.job_queue import ping
from mousetrap.settings import Settings


@pytest.fixture
def server():
    with EmbeddedServer({"guest": "guest"}) as server:
        yield server


def connect(server, **options):
    parameters = pika.ConnectionParameters("127.0.0.1", server.port, **options)
    return pika.BlockingConnection(parameters)


def test_ensure_starts_one_that_says_what_it_is():
    """Who asks for the embedded broker gets one, and reads that it is in memory."""
    lines = []

    with ensure("embedded", Settings(), log=lines.append) as broker:
        assert list(overview(broker.settings)["vhosts"]) == ["/"]

    assert str(broker).startswith("embedded, in memory: ")
    assert lines == [f"using the broker {broker}; messages are gone when this process ends"]


def test_up_refuses_to_leave_one_behind():
    """It lives in a process, so that it cannot stay after it: that is said, not pretended."""
    with pytest.raises(BrokerSetupError, match="ends with the process"):
        up("embedded", Settings())


def test_time_can_be_moved(server):
    """A message with a TTL of ten minutes is dead-lettered when time is moved by ten minutes."""
    with connect(server) as connection:
        channel = connection.channel()
        channel.queue_declare("dead")
        arguments = {"x-message-ttl": 600_000, "x-dead-letter-exchange": "",
                     "x-dead-letter-routing-key": "dead"}  # fmt: skip
        channel.queue_declare("waiting", arguments=arguments)
        channel.confirm_delivery()
        channel.basic_publish("", "waiting", b"slow")

        server.advance(minutes=9)
        assert channel.basic_get("dead")[0] is None
        server.advance(minutes=1)

        _, properties, body = channel.basic_get("dead", auto_ack=True)
        assert body == b"slow"
        assert properties.headers["x-death"][0]["reason"] == "expired"


def test_a_publisher_is_blocked_until_there_is_room():
    """Above the memory bound, publishing waits; it goes on when somebody has consumed."""
    with EmbeddedServer({"guest": "guest"}, limits=Limits(memory=100_000)) as server:
        with connect(server, blocked_connection_timeout=0.5) as connection:
            channel = connection.channel()
            channel.queue_declare("full")
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):  # noqa: PT012 -- in one of these
                for _ in range(5):
                    channel.basic_publish("", "full", bytes(90_000))
                connection.process_data_events(time_limit=20)
        with connect(server) as connection:
            assert connection.channel().queue_purge("full").method.message_count >= 1


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\0\0\x09\x01" + b"\xff" * 20, b"AMQP\1\1\0\x09",
     b"AMQP\0\0\x09\x01\x01\0\0\xff\xff\xff\xff\0"],
)  # fmt: skip
def test_nonsense_ends_its_own_connection_alone(server, bytes_sent):
    """Who sends what is no AMQP is hung up on; others work on."""
    with connect(server) as connection:
        channel = connection.channel()
        with socket.create_connection(("127.0.0.1", server.port), 10) as wire:
            wire.settimeout(10)
            wire.sendall(bytes_sent)
            while wire.recv(4096):
                pass

        assert channel.queue_declare("", exclusive=True).method.queue.startswith("amq.gen-")


def test_who_does_not_finish_the_handshake_is_cut_off():
    """A client that says nothing holds nothing for longer than the handshake may take."""
    with EmbeddedServer({}, limits=Limits(handshake=0.2)) as server:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), 10) as wire:
            wire.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert wire.recv(1) == b""

        assert time.monotonic() - started < 5


def test_a_wrong_password_is_refused(server):
    """The login of the settings is asked for."""
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(server, credentials=pika.PlainCredentials("guest", "wrong"))


# ---- as a process --------------------------------------------------------------------------------

PARENT = """
import os, subprocess, sys
command = [sys.executable, "-m", "mousetrap", "broker", "up", "--embedded", "--with-parent"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
print(child.pid, child.stderr.readline(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port(monkeypatch):
    """A free port, named by the environment; nothing else is."""
    for name in ("RABBITMQ_URL", "RABBITMQ_HOST", "MOUSETRAP_BROKER"):
        monkeypatch.delenv(name, raising=False)
    [port] = free_ports(1)
    monkeypatch.setenv("RABBITMQ_PORT", str(port))
    return port


def test_a_process_ends_with_its_parent(port):
    """However the parent ends: it is killed here."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        line = parent.stdout.readline()
        assert f"embedded, in memory: mousetrap embedded broker 0.1.0 on 127.0.0.1:{port}" in line
        ping(Settings(port=port))
        parent.kill()

    deadline = time.monotonic() + 10
    while not probe.is_free(port):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.01)


def test_a_process_ends_when_it_is_told_to(port):
    """SIGTERM is the usual way, with exit code 0."""
    command = [sys.executable, "-m", "mousetrap", "broker", "up", "--embedded"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "embedded, in memory" in process.stderr.readline()
        process.terminate()

        assert process.wait(10) == 0


# ---- its state as data ---------------------------------------------------------------------------


def test_overview_is_for_other_processes_too(server):
    """Depths, consumers, bindings and connections come over AMQP, without a plugin."""
    settings = Settings(user="guest", password="guest", port=server.port)
    with connect(server, client_properties={"product": "me"}) as connection:
        channel = connection.channel()
        channel.queue_declare("words", arguments={"x-max-length": 5})
        channel.queue_bind("words", "amq.topic", "w.#")
        channel.basic_publish("amq.topic", "w.1", b"hello")
        channel.basic_publish("amq.topic", "w.1", b"hello")
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("words", lambda *_: None, consumer_tag="me")
        connection.process_data_events(0)

        state = overview(settings)

    [queue] = state["vhosts"]["/"]["queues"]
    assert queue == {
        "name": "words", "type": "classic", "ready": 1, "unacked": 1, "consumers": ["me"],
        "arguments": {"x-max-length": 5},
    }  # fmt: skip
    [binding] = state["vhosts"]["/"]["bindings"]
    assert (binding["source"], binding["routing_key"]) == ("amq.topic", "w.#")
    assert {each["user"] for each in state["connections"]} == {"guest"}
    assert state["memory"] > 0


def test_overview_of_rabbitmq_is_refused(broker):
    """It has a plugin for that, and no such queue."""
    if broker.kind == "embedded":
        pytest.skip("the session's broker is the embedded one")
    with pytest.raises(QueueMissing):
        overview(broker.settings)


# ---- said to people ------------------------------------------------------------------------------


@pytest.fixture
def environment(server, monkeypatch):
    """Commands and panels use that server, which is not theirs."""
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://guest:guest@127.0.0.1:{server.port}")
    return os.environ | {"NO_COLOR": "1", "COLUMNS": "200"}


@pytest.mark.parametrize(
    "command",
    [["send", "words", "1", "--declare"], ["queues", "words"], ["doctor"], ["broker", "status"]],
    ids=lambda command: command[0],
)
def test_a_command_says_that_the_broker_is_in_memory(command, environment, server):
    """Whoever started it, and without a plugin."""
    with connect(server) as connection:
        connection.channel().queue_declare("words", durable=True)
    done = subprocess.run(
        [sys.executable, "-m", "mousetrap", *command], env=environment, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "embedded, in memory" in done.stdout + done.stderr


def test_a_worker_says_that_the_broker_is_in_memory(environment):
    """In the line that says what it works on."""
    command = [sys.executable, "-m", "mousetrap", "work", "mousetrap.run_fetch_worker:fetch"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if line.startswith("working: "))
        process.terminate()

    assert "embedded, in memory" in line


def test_a_panel_says_that_the_broker_is_in_memory(environment):
    """It asks for the depths as of any other."""
    with mousetrap.run(measure) as run:
        run.send("mouse")
        run.settle(timeout=10)
        panel = mousetrap.panel(run)
        panel.measure()

        assert "embedded, in memory" in repr(panel)


@mousetrap.stage(reads="words", writes="lengths")
def measure(word: str) -> int:
    return len(word)


def test_a_record_says_that_the_broker_is_in_memory(environment):
    """A reader of the figures should know that no disk was asked."""
    with mousetrap.run(measure) as run:
        run.send("mouse")
        record = run.settle(timeout=20)

    assert record.broker.startswith("embedded, in memory")
    assert record.broker in str(record)

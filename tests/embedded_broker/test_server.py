"""The embedded server: start and end, time, blocking, its state as data, and as a process."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import pika
import pika.exceptions
import pytest
from support.waiting import wait_for

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


def test_ensure_starts_an_embedded_broker():
    """It returns a running broker and logs that its messages are in memory."""
    lines = []

    with ensure("embedded", Settings(), log=lines.append) as broker:
        assert list(overview(broker.settings)["vhosts"]) == ["/"]

    assert str(broker).startswith("embedded, in memory: ")
    assert lines == [f"using the broker {broker}; messages are gone when this process ends"]


def test_up_fails_for_the_embedded_broker():
    """The embedded broker cannot stay after its process, and the error says so."""
    with pytest.raises(BrokerSetupError, match="ends with the process"):
        up("embedded", Settings())


def test_advance_moves_the_time(server):
    """A message with a TTL of ten minutes is dead-lettered when the time moves ten minutes."""
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


def test_a_publisher_is_blocked_above_the_memory_limit():
    """A publisher waits above the memory limit, and goes on when messages are consumed."""
    with EmbeddedServer({"guest": "guest"}, limits=Limits(memory=100_000)) as server:
        with connect(server, blocked_connection_timeout=0.5) as connection:
            channel = connection.channel()
            channel.queue_declare("full")
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):  # noqa: PT012 -- one of these raises
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
def test_invalid_bytes_close_their_own_connection_only(server, bytes_sent):
    """The broker closes a connection that sends no AMQP; other connections go on."""
    with connect(server) as connection:
        channel = connection.channel()
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.settimeout(10)
            client.sendall(bytes_sent)
            while client.recv(4096):
                pass

        assert channel.queue_declare("", exclusive=True).method.queue.startswith("amq.gen-")


def test_a_silent_client_exceeds_the_handshake_timeout():
    """The broker closes a connection that sends nothing within the handshake timeout."""
    with EmbeddedServer({}, limits=Limits(handshake=0.2)) as server:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""

        assert time.monotonic() - started < 5


def test_a_wrong_password_fails(server):
    """The broker accepts only the users that it was given."""
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(server, credentials=pika.PlainCredentials("guest", "wrong"))


def test_a_taken_port_is_an_os_error(server):
    """`start` raises the system's error; `mousetrap.broker` translates it."""
    with pytest.raises(OSError, match="in use"):
        EmbeddedServer({}, port=server.port).start()


def test_a_server_that_does_not_run_has_no_overview():
    """The methods that need the server's thread fail before `start`."""
    with pytest.raises(RuntimeError, match="not running"):
        EmbeddedServer({}).overview()


def test_random_names_can_be_replaced():
    """Names that the broker makes come from the function that it is given."""
    with (
        EmbeddedServer({"guest": "guest"}, random_token=lambda: "fixed") as server,
        connect(server) as connection,
    ):
        queue = connection.channel().queue_declare("", exclusive=True).method.queue

    assert queue == "amq.gen-fixed"


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
    """A free port in RABBITMQ_PORT; no other variable names a broker."""
    for name in ("RABBITMQ_URL", "RABBITMQ_HOST", "MOUSETRAP_BROKER"):
        monkeypatch.delenv(name, raising=False)
    [port] = free_ports(1)
    monkeypatch.setenv("RABBITMQ_PORT", str(port))
    return port


def test_a_process_ends_with_its_parent(port):
    """With --with-parent the broker ends when its parent is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        line = parent.stdout.readline()
        assert f"embedded, in memory: mousetrap embedded broker 0.1.0 on 127.0.0.1:{port}" in line
        ping(Settings(port=port))
        parent.kill()

    wait_for(lambda: probe.is_free(port))


def test_a_process_ends_on_sigterm(port):
    """Its exit code is 0."""
    command = [sys.executable, "-m", "mousetrap", "broker", "up", "--embedded"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert "embedded, in memory" in process.stderr.readline()
        process.terminate()

        assert process.wait(10) == 0


# ---- its state as data ---------------------------------------------------------------------------


def test_overview_comes_over_amqp(server):
    """Another process gets depths, consumers, bindings and connections, without a plugin."""
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


def test_overview_fails_on_rabbitmq(broker):
    """RabbitMQ has a management plugin instead, and no such queue."""
    if broker.kind == "embedded":
        pytest.skip("the session's broker is the embedded one")
    with pytest.raises(QueueMissing):
        overview(broker.settings)


# ---- what people see -----------------------------------------------------------------------------


@pytest.fixture
def environment(server, monkeypatch):
    """The environment of commands and panels that use the server as an external broker."""
    monkeypatch.setenv("RABBITMQ_URL", f"amqp://guest:guest@127.0.0.1:{server.port}")
    return os.environ | {"NO_COLOR": "1", "COLUMNS": "200"}


@pytest.mark.parametrize(
    "command",
    [["send", "words", "1", "--declare"], ["queues", "words"], ["doctor"], ["broker", "status"]],
    ids=lambda command: command[0],
)
def test_a_command_says_that_the_broker_is_in_memory(command, environment, server):
    """The command recognizes an embedded broker that another process started."""
    with connect(server) as connection:
        connection.channel().queue_declare("words", durable=True)
    done = subprocess.run(
        [sys.executable, "-m", "mousetrap", *command], env=environment, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "embedded, in memory" in done.stdout + done.stderr


def test_a_worker_says_that_the_broker_is_in_memory(environment):
    """The line that a worker logs at its start says it."""
    command = [sys.executable, "-m", "mousetrap", "work", "mousetrap.run_fetch_worker:fetch"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if line.startswith("working: "))
        process.terminate()

    assert "embedded, in memory" in line


def test_a_panel_says_that_the_broker_is_in_memory(environment):
    """The panel reads the depths as from any broker."""
    with mousetrap.run(measure) as run:
        run.send("mouse")
        run.settle(timeout=10)
        panel = mousetrap.panel(run)
        panel.measure()

        assert "embedded, in memory" in repr(panel)


@mousetrap.stage(reads="words", writes="lengths")
def measure(word: str) -> int:
    return len(word)


def test_a_run_summary_says_that_the_broker_is_in_memory(environment):
    """A reader of the figures sees that no disk was involved."""
    with mousetrap.run(measure) as run:
        run.send("mouse")
        summary = run.settle(timeout=20)

    assert summary.broker.startswith("embedded, in memory")
    assert summary.broker in str(summary)

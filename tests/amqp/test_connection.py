"""The connection: how it starts, restores itself and gives up."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref

import pika
import pytest

from mousetrap.amqp.connection import PERMANENT_ERRORS, Connection
from mousetrap.amqp.error_translation import translate
from mousetrap.amqp.fast_connection import FastConnection
from mousetrap.amqp.io_thread import IOThread
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelLost,
    ConnectionLost,
    TopologyMismatch,
)
from mousetrap.job_queue import declare, open_channel
from mousetrap.model.topology import Declaration
from mousetrap.worker.worker import Worker


class Listener:
    """The smallest session: counts what it is told."""

    def __init__(self, declaration=None):
        self.declaration = declaration
        self.openings = 0
        self.losses = []
        self.failure = None
        self.changed = threading.Condition()

    def opened(self, channel, ready):
        def on_qos(_):
            ready()
            with self.changed:
                self.openings += 1
                self.changed.notify_all()

        if self.declaration:
            channel.queue_declare(
                self.declaration.name, durable=True, arguments=dict(self.declaration.arguments)
            )
        channel.basic_qos(prefetch_count=1, callback=on_qos)

    def lost(self, error):
        with self.changed:
            self.losses.append(error)
            self.changed.notify_all()

    def failed(self, error):
        with self.changed:
            self.failure = error
            self.changed.notify_all()

    def wait(self, claim, timeout=10):
        with self.changed:
            assert self.changed.wait_for(claim, timeout)


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def connect(listener):
    made = []

    def connect(settings, session=listener):
        made.append(Connection(settings, "test", session))
        made[-1].open()
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def test_connection_opens_and_closes(settings, connect, listener):
    """After `open` the session has its channel; after `close` the I/O thread is gone."""
    connection = connect(settings)

    assert connection.state == "open"
    connection.close()
    assert connection.state == "closed"
    assert not any("mousetrap-io test" in thread.name for thread in threading.enumerate())
    connection.close()  # twice is fine


def test_connection_restores_itself_when_it_is_cut(proxy, connect, listener):
    """A reset wire is replaced, the session is told of the loss and gets a new channel."""
    connection = connect(proxy.settings)

    for n in range(1, 4):
        proxy.cut()
        listener.wait(lambda n=n: listener.openings == n + 1)

    assert connection.state == "open"
    assert connection.reconnects == 3
    assert len(listener.losses) == 3


def test_connection_that_broke_is_forgotten(proxy, connect, listener, monkeypatch):
    """At once, not when the collector comes by: a worker does not grow with each."""
    alive = weakref.WeakSet()

    def remembered(*args, **options):
        wire = FastConnection(*args, **options)
        alive.add(wire)
        return wire

    monkeypatch.setattr("mousetrap.amqp.connection.FastConnection", remembered)
    monkeypatch.setattr(
        "mousetrap.amqp.connection.CHANNEL_SETUP_TIMEOUT", 0.2
    )  # so long a new channel is watched
    gc.disable()
    try:
        connect(proxy.settings.replace(connect_timeout=0.2))
        for opening in range(2, 5):
            proxy.cut()
            listener.wait(lambda opening=opening: listener.openings == opening)
            listener.losses.clear()  # their tracebacks know it
        deadline = time.monotonic() + 10
        while len(alive) > 1:
            assert time.monotonic() < deadline, f"{len(alive)} connections, of which one is open"
            time.sleep(0.01)
    finally:
        gc.enable()


def test_connection_keeps_asking_while_the_broker_is_away(proxy, connect, listener):
    """After the first success there is no limit to the tries, and they get slower."""
    connection = connect(proxy.settings)

    proxy.refuse()
    proxy.cut()
    listener.wait(lambda: listener.losses)
    before = proxy.connections
    proxy.wait_for_connections(before + 3)
    proxy.accept()
    listener.wait(lambda: listener.openings == 2)

    assert connection.state == "open"
    assert proxy.connections < before + 10  # backs off instead of storming


def test_connection_that_breaks_as_soon_as_it_is_open_backs_off(proxy, connect, listener):
    """Each try succeeds, and is of no use: that is a failure, too. One that was of use is none."""
    connection = connect(proxy.settings)

    for n in range(1, 6):
        proxy.cut()
        listener.wait(lambda n=n: listener.openings == n + 1)

    assert connection._failures == 5
    connection.call(connection.reset_backoff)
    proxy.cut()
    listener.wait(lambda: listener.openings == 7)
    assert connection._failures == 1


def test_connection_waits_for_a_late_broker(settings, connect):
    """A broker that comes up within the connect time-out is not missed."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]

        def relay():
            listener = socket.create_server(("127.0.0.1", port))
            with listener:
                client, _ = listener.accept()
                server = socket.create_connection((settings.host, settings.port))
                threading.Thread(target=pump, args=(server, client), daemon=True).start()
                pump(client, server)

        def pump(source, sink):
            try:
                while data := source.recv(4096):
                    sink.sendall(data)
            except OSError:
                pass

    threading.Timer(0.7, relay).start()
    connection = connect(settings.replace(host="127.0.0.1", port=port, connect_timeout=10))

    assert connection.state == "open"
    assert connection.reconnects == 0


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"password": "wr0ng-canary"}, AccessRefused, "RABBITMQ_PASSWORD"),
        ({"user": "nobody"}, AccessRefused, "RABBITMQ_USER"),
        ({"vhost": "nowhere"}, AccessRefused, "RABBITMQ_VHOST"),
        ({"host": "no-such-host.invalid"}, BrokerUnreachable, "RABBITMQ_HOST"),
        ({"host": "127.0.0.1", "port": 1}, BrokerUnreachable, "RABBITMQ_PORT"),
    ],
)
def test_connection_says_what_to_check(settings, connect, change, error, says):
    """Each way of being wrong gets one sentence that names the variable, and no password."""
    with pytest.raises(error) as caught:
        connect(settings.replace(connect_timeout=1, **change))

    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert "wr0ng-canary" not in text
    assert settings.password not in text


def test_connection_is_not_fooled_by_a_dumb_port(settings, connect):
    """A port that is open and says nothing is an error within the connect time-out."""
    with socket.create_server(("127.0.0.1", 0)) as dumb, pytest.raises(BrokerUnreachable):
        connect(settings.replace(host="127.0.0.1", port=dumb.getsockname()[1], connect_timeout=0.5))


def test_connection_fails_for_good_on_a_topology_mismatch(settings, connect):
    """Declaring a queue with other arguments (406) is not tried again."""
    declare("here", settings=settings)
    ours = settings.topology.work_queue("here")
    other = Declaration(ours.name, {**ours.arguments, "x-max-length": 1})
    listener = Listener(other)

    with pytest.raises(TopologyMismatch, match="x-max-length"):
        connect(settings, listener)

    assert isinstance(listener.failure, TopologyMismatch)


def test_connection_says_why_it_failed_however_late_one_looks(settings):
    """By then it has closed itself, which is not why it failed."""
    declare("here", settings=settings)
    ours = settings.topology.work_queue("here")
    other = Declaration(ours.name, {**ours.arguments, "x-max-length": 1})
    connection = Connection(settings, "test", Listener(other))
    wait_for = connection._changed.wait_for
    connection._changed.wait_for = lambda claim, timeout: wait_for(
        lambda: claim() and connection._is_detached, timeout
    )

    with pytest.raises(TopologyMismatch, match="x-max-length"):
        connection.open()


def test_connection_stays_when_the_password_is_right_again(settings, connect):
    """One refused login ends the attempt at once and leaves nothing running."""
    with pytest.raises(AccessRefused):
        connect(settings.replace(password="x"))

    assert not any("mousetrap-io" in thread.name for thread in threading.enumerate())
    with open_channel(settings):
        pass


@pytest.mark.fault("F03")
@pytest.mark.parametrize("step", ["Connection.Start", "Connection.Tune", "Connection.OpenOk",
                                  "Channel.OpenOk", "Basic.QosOk"])  # fmt: skip
def test_connection_cut_while_it_opens_is_opened_again(proxy, step):
    """A broker that goes down in the middle of a handshake has refused nobody: try again."""
    listener = Listener()
    connection = Connection(proxy.settings, "test", listener)
    connection.open()
    try:
        cut = proxy.at(step, "from broker", "before")
        proxy.cut()
        cut.wait(10)
        with listener.changed:
            assert listener.changed.wait_for(lambda: listener.openings == 2, 20)
        assert connection.is_open
        assert listener.failure is None
    finally:
        connection.close()


def test_queue_that_is_not_ready_yet_is_asked_for_again(settings):
    """RabbitMQ says 404 of a queue that somebody else declares just then: that is no refusal."""
    text = "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost '/' is down or inaccessible"
    error = translate(pika.exceptions.ChannelClosedByBroker(404, text), settings)
    assert isinstance(error, ChannelLost)
    assert not isinstance(error, PERMANENT_ERRORS)
    assert "home node" in str(error)


@pytest.mark.fault("F21")
@pytest.mark.parametrize("step", ["Connection.Start", "Connection.Tune", "Connection.OpenOk"])
def test_connection_closed_while_it_opens_ends_quietly(proxy, step, caplog):
    """Told to close in the middle of a handshake: the I/O thread ends, and has not died."""
    listener = Listener()
    connection = Connection(proxy.settings, "test", listener)
    connection.open()
    reached = proxy.at(step, "from broker", "before", action=lambda: proxy.hold("from broker"))
    proxy.cut()
    reached.wait(10)
    connection.close()

    assert connection.state == "closed"
    assert "ended by an exception" not in caplog.text


def test_connection_leaves_a_broker_that_sets_up_no_channel(proxy, monkeypatch):
    """It took the connection and says no more, as without its cluster: the next one is tried."""
    monkeypatch.setattr("mousetrap.amqp.connection.CHANNEL_SETUP_TIMEOUT", 0.3)
    listener = Listener()
    connection = Connection(proxy.settings.replace(connect_timeout=1.0), "test", listener)
    connection.open()
    silenced = proxy.at("Basic.QosOk", "from broker", action=proxy.hold)
    proxy.cut()
    silenced.wait()
    proxy.wait_for_connections(proxy.connections + 1)
    proxy.release()
    listener.wait(lambda: listener.openings == 2)
    connection.close()

    assert connection.reconnects == 1
    assert "did not set up a channel within 1 s" in str(listener.losses[1])


def test_worker_that_could_not_start_stops_at_once(settings):
    """Its connections are closed already, one of them before it was opened: nothing to wait for."""
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        silent = settings.replace(host="127.0.0.1", port=dumb.getsockname()[1], connect_timeout=0.3)
        worker = Worker("work", print, silent)
        with pytest.raises(BrokerUnreachable):
            worker.start()
    stopping = threading.Thread(target=worker.stop, args=(60,))
    stopping.start()
    stopping.join(10)  # seconds, far from the sixty
    assert not stopping.is_alive()
    assert worker.statistics().state == "closed"


def test_connection_cannot_begin_on_a_thread_that_has_ended(settings):
    """The loop lives as long as somebody is on it; who comes after that is told."""
    io_thread = IOThread("test")
    first = Connection(settings, "test", Listener(), io_thread)
    first.open()
    first.close()

    with pytest.raises(ConnectionLost, match="has ended"):
        Connection(settings, "test", Listener(), io_thread).open()

"""The connection: how it starts, restores itself and gives up."""

from __future__ import annotations

import gc
import socket
import threading
import weakref

import pytest
from support.waiting import wait_for

from mousetrap.amqp.connection import Connection
from mousetrap.amqp.fast_connection import FastConnection
from mousetrap.amqp.io_thread import IOThread
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ConnectionLost,
    TopologyMismatch,
)
from mousetrap.job_queue import declare, open_channel
from mousetrap.model.topology import Declaration
from mousetrap.worker.worker import Worker


class Listener:
    """The smallest session: it counts openings and keeps the errors."""

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
    """After `open` the session has its channel; after `close` the I/O thread has ended."""
    connection = connect(settings)

    assert connection.state == "open"
    connection.close()
    assert connection.state == "closed"
    assert not any("mousetrap-io test" in thread.name for thread in threading.enumerate())
    connection.close()  # twice is fine


def test_connection_restores_itself_when_it_is_cut(proxy, connect, listener):
    """A connection that broke is replaced; the session gets the error and a new channel."""
    connection = connect(proxy.settings)

    for n in range(1, 4):
        proxy.cut()
        listener.wait(lambda n=n: listener.openings == n + 1)

    assert connection.state == "open"
    assert connection.reconnects == 3
    assert len(listener.losses) == 3


def test_connection_that_broke_is_freed(proxy, connect, listener, monkeypatch):
    """It is freed at once, without the garbage collector: a worker does not grow with each."""
    alive = weakref.WeakSet()

    def watched(*args, **options):
        connection = FastConnection(*args, **options)
        alive.add(connection)
        return connection

    monkeypatch.setattr("mousetrap.amqp.connection.FastConnection", watched)
    # A timer refers to each new channel for that long.
    monkeypatch.setattr("mousetrap.amqp.connection.CHANNEL_SETUP_TIMEOUT", 0.2)
    gc.disable()
    try:
        connect(proxy.settings.replace(connect_timeout=0.2))
        for opening in range(2, 5):
            proxy.cut()
            listener.wait(lambda opening=opening: listener.openings == opening)
            listener.losses.clear()  # their tracebacks refer to it
        wait_for(lambda: len(alive) == 1)
    finally:
        gc.enable()


def test_connection_keeps_trying_while_the_broker_is_away(proxy, connect, listener):
    """After the first success there is no limit to the tries, and the delays grow."""
    connection = connect(proxy.settings)

    proxy.refuse()
    proxy.cut()
    listener.wait(lambda: listener.losses)
    before = proxy.connections
    proxy.wait_for_connections(before + 3)
    proxy.accept()
    listener.wait(lambda: listener.openings == 2)

    assert connection.state == "open"
    assert proxy.connections < before + 10  # it backs off


def test_connection_that_breaks_as_soon_as_it_is_open_backs_off(proxy, connect, listener):
    """A connection that carried no message counts as a failure; one that did resets the backoff."""
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
    """A broker that starts within the connect time-out is reached."""
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
    """Each wrong setting gets one sentence that names the variable, and no password."""
    with pytest.raises(error) as caught:
        connect(settings.replace(connect_timeout=1, **change))

    text = str(caught.value)
    assert says in text
    assert "\n" not in text
    assert "wr0ng-canary" not in text
    assert settings.password not in text


def test_connection_to_a_port_that_never_answers_fails(settings, connect):
    """A port that is open and sends nothing is an error within the connect time-out."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BrokerUnreachable):
        connect(
            settings.replace(host="127.0.0.1", port=silent.getsockname()[1], connect_timeout=0.5)
        )


def test_connection_fails_permanently_on_a_topology_mismatch(settings, connect):
    """Declaring a queue with other arguments (406) is not tried again."""
    declare("here", settings=settings)
    ours = settings.topology.work_queue("here")
    other = Declaration(ours.name, {**ours.arguments, "x-max-length": 1})
    listener = Listener(other)

    with pytest.raises(TopologyMismatch, match="x-max-length"):
        connect(settings, listener)

    assert isinstance(listener.failure, TopologyMismatch)


def test_open_raises_the_cause_also_when_the_connection_has_closed_itself(settings):
    """The failure closes the connection; the error is still that of the failure."""
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


def test_connection_with_a_wrong_password_leaves_nothing_running(settings, connect):
    """A refused login ends the attempt and its thread; the next login works."""
    before = set(threading.enumerate())
    with pytest.raises(AccessRefused):
        connect(settings.replace(password="x"))

    wait_for(
        lambda: not any("mousetrap-io" in each.name for each in {*threading.enumerate()} - before)
    )
    with open_channel(settings):
        pass


@pytest.mark.fault("F03")
@pytest.mark.parametrize("step", ["Connection.Start", "Connection.Tune", "Connection.OpenOk",
                                  "Channel.OpenOk", "Basic.QosOk"])  # fmt: skip
def test_connection_cut_while_it_opens_is_opened_again(proxy, step):
    """A connection that breaks during the handshake is no refusal: it is tried again."""
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


@pytest.mark.fault("F21")
@pytest.mark.parametrize("step", ["Connection.Start", "Connection.Tune", "Connection.OpenOk"])
def test_connection_closed_while_it_opens_ends_quietly(proxy, step, caplog):
    """Closed in the middle of a handshake: the I/O thread ends without an exception."""
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
    """A node without its cluster accepts the connection and sends no more: another is tried."""
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
    """Its connections are closed already, one of them before it was opened: no wait."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        silent = settings.replace(host="127.0.0.1", port=port.getsockname()[1], connect_timeout=0.3)
        worker = Worker("work", print, silent)
        with pytest.raises(BrokerUnreachable):
            worker.start()
    stopping = threading.Thread(target=worker.stop, args=(60,))
    stopping.start()
    stopping.join(10)  # seconds, far from the sixty
    assert not stopping.is_alive()
    assert worker.statistics().state == "closed"


def test_connection_cannot_begin_on_a_thread_that_has_ended(settings):
    """A thread ends with its last member; a connection that comes later gets an error."""
    io_thread = IOThread("test")
    first = Connection(settings, "test", Listener(), io_thread)
    first.open()
    first.close()

    with pytest.raises(ConnectionLost, match="has ended"):
        Connection(settings, "test", Listener(), io_thread).open()

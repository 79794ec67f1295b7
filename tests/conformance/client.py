"""What the conformance tests use: plain pika, and a connection that shows each method frame.

Each test checks a fact about AMQP 0-9-1 as RabbitMQ implements it. The sources are the
specification and RabbitMQ's guides. Where versions differ, the test looks at `Target.version` and
says why.
"""

from __future__ import annotations

import contextlib
import copy
import re
import socket
import time

import pika
import pika.exceptions
import pika.frame
import pytest
from pika import spec

WAIT_TIMEOUT = 10.0  # seconds for anything that a test waits for
CHANNEL, CONNECTION = "channel", "connection"  # what an error closes
USER, PASSWORD = "DEV_USER", "CHANGE_ME"  # of the embedded broker
QUORUM = {"x-queue-type": "quorum"}
REQUEUE = {  # the methods that requeue a message
    "nack": lambda channel, tag: channel.basic_nack(tag),
    "reject": lambda channel, tag: channel.basic_reject(tag),
    "recover": lambda channel, _: channel.basic_recover(requeue=True),
}


class Target:
    """A broker that the tests run on."""

    def __init__(self, url, server=None):
        self.parameters = pika.URLParameters(url)
        self.server = server
        self.is_embedded = server is not None
        self.user = self.parameters.credentials.username
        self.version = (4, 3)  # the version that the embedded broker behaves as
        if not self.is_embedded:
            with self.connect() as connection:
                said = connection._impl.server_properties["version"]
            said = said.decode() if isinstance(said, bytes) else said
            self.version = tuple(int(each) for each in re.findall(r"\d+", said)[:2])

    def connect(self, **options):
        """Open a blocking connection."""
        parameters = copy.copy(self.parameters)
        parameters.blocked_connection_timeout = WAIT_TIMEOUT
        for option, value in options.items():
            setattr(parameters, option, value)
        return pika.BlockingConnection(parameters)

    def connect_raw(self, **options):
        """Open a connection that shows each method frame."""
        return RawConnection(self, **options)


class RawConnection:
    """A connection that sends single frames, valid or not, and returns the methods it receives."""

    def __init__(self, target, *, stage="channel", **tune):
        credentials = target.parameters.credentials
        self.user, self.password = credentials.username, credentials.password
        address = target.parameters.host, target.parameters.port
        self.socket = socket.create_connection(address, WAIT_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        if stage == "socket":
            return
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.start = self.expect(spec.Connection.Start)
        if stage == "start":
            return
        self.log_in()
        self.tune = self.expect(spec.Connection.Tune)
        if stage == "tune":
            return
        agreed = {"channel_max": 0, "frame_max": self.tune.frame_max, "heartbeat": 0} | tune
        if agreed["channel_max"] == 0:
            agreed["channel_max"] = self.tune.channel_max
        self.send(spec.Connection.TuneOk(**agreed), channel=0)
        self.send(spec.Connection.Open(), channel=0)
        self.expect(spec.Connection.OpenOk)
        if stage == "channel":
            self.call(spec.Channel.Open(), spec.Channel.OpenOk)

    def log_in(self, mechanism="PLAIN", response=None, **capabilities):
        """Send a start_ok with the login of the target, or with another *response*."""
        if response is None:
            response = f"\0{self.user}\0{self.password}"
        known = {
            "authentication_failure_close": True, "consumer_cancel_notify": True,
            "connection.blocked": True, "basic.nack": True, "publisher_confirms": True,
        }  # fmt: skip
        properties = {"product": "conformance", "capabilities": known | capabilities}
        self.send(spec.Connection.StartOk(properties, mechanism, response, "en_US"), channel=0)

    def send(self, method, channel=1):
        """Send a method."""
        self.socket.sendall(pika.frame.Method(channel, method).marshal())

    def frame(self, kind, payload, channel=1, end=b"\xce"):
        """Send a frame of any kind with any payload."""
        head = bytes([kind]) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big")
        self.socket.sendall(head + payload + end)

    def publish(self, queue, body=b"", *, exchange="", properties=None, mandatory=False, size=4000):
        """Publish in one write; each body frame has *size* bytes."""
        method = spec.Basic.Publish(exchange=exchange, routing_key=queue, mandatory=mandatory)
        properties = properties or spec.BasicProperties()
        frames = pika.frame.Method(1, method).marshal()
        frames += pika.frame.Header(1, len(body), properties).marshal()
        for start in range(0, len(body), size):
            frames += pika.frame.Body(1, body[start : start + size]).marshal()
        self.socket.sendall(frames)

    def next(self, timeout=WAIT_TIMEOUT):
        """Return the next method or heartbeat frame, without contents; None at the end.

        Raises:
            TimeoutError: no frame came within *timeout* seconds.
        """
        while True:
            self.socket.settimeout(timeout)
            used, frame = pika.frame.decode_frame(self._buffer)
            self._buffer = self._buffer[used:]
            if isinstance(frame, pika.frame.Method):
                return frame
            if isinstance(frame, pika.frame.Heartbeat):
                return frame
            if frame is None:
                try:
                    part = self.socket.recv(100_000)
                except ConnectionError:
                    return None
                if not part:
                    return None
                self._buffer += part

    def expect(self, kind, channel=None):
        """Return the next method, and check that it is of this *kind*."""
        frame = self.next()
        assert frame is not None, f"the connection was closed before {kind.NAME} came"
        assert isinstance(frame.method, kind), f"{frame.method} came in place of {kind.NAME}"
        assert channel in (None, frame.channel_number)
        return frame.method

    def call(self, method, kind, channel=1):
        """Send a method and return its answer."""
        self.send(method, channel)
        return self.expect(kind, channel)

    def declare(self, queue):
        """Declare a durable queue."""
        self.call(spec.Queue.Declare(queue=queue, durable=True), spec.Queue.DeclareOk)

    def expect_close(self, level, code):
        """Check that the broker closes *level* with *code*; return the close method."""
        kind = spec.Channel.Close if level == CHANNEL else spec.Connection.Close
        while True:
            frame = self.next()
            assert frame is not None, "the connection ended without a close method"
            if isinstance(frame.method, (spec.Channel.Close, spec.Connection.Close)):
                break
        assert isinstance(frame.method, kind), frame.method
        assert frame.method.reply_code == code, frame.method
        return frame.method

    def is_alive(self):
        """Whether the broker still answers on channel 1."""
        self.call(spec.Basic.Qos(prefetch_count=1), spec.Basic.QosOk)
        return True

    def expect_end(self):
        """Read until the broker closes the socket."""
        with contextlib.suppress(ConnectionError):
            while self.next() is not None:
                pass

    def hang_up(self):
        """Close the socket without a connection.close."""
        self.socket.close()


@contextlib.contextmanager
def expect_error(code, level=CHANNEL, text=""):
    """Check that the code in the block fails with *code*, and that the error closes *level*."""
    kinds = pika.exceptions.ChannelClosedByBroker, pika.exceptions.ConnectionClosedByBroker
    with pytest.raises(kinds) as caught:
        yield caught
    assert caught.value.reply_code == code, caught.value
    assert isinstance(caught.value, kinds[level == CONNECTION]), caught.value
    assert text in caught.value.reply_text


def publish(channel, queue, *bodies, exchange="", mandatory=True, **properties):
    """Publish each body; each is confirmed and, if *mandatory*, routed to a queue."""
    for body in bodies:
        channel.basic_publish(
            exchange, queue, body, pika.BasicProperties(**properties), mandatory=mandatory
        )


def get(channel, queue, *, auto_ack=True):
    """Wait for a message with basic.get; return its method, properties and body."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while True:
        found = channel.basic_get(queue, auto_ack=auto_ack)
        if found[0] is not None:
            return found
        assert time.monotonic() < deadline, f"no message came into {queue}"
        channel.connection.process_data_events(0.005)


def hold(channel, queue, count):
    """Get messages without an ack; return the delivery tags."""
    return [get(channel, queue, auto_ack=False)[0].delivery_tag for _ in range(count)]


def take_bodies(channel, queue):
    """Remove the ready messages, without waiting; return their bodies."""
    found = []
    while (taken := channel.basic_get(queue, auto_ack=True))[0] is not None:
        found.append(taken[2])
    return found


def ready_count(channel, queue):
    """Return how many messages are ready."""
    return channel.queue_declare(queue, passive=True).method.message_count


def wait_until(channel, condition):
    """Wait until *condition* returns a true value; return that value."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        channel.connection.process_data_events(0.005)
    return value


def queue_exists(connection, queue):
    """Whether *queue* exists. A bind finds out: a declaration would restart its expiry.

    It uses a connection of its own, because RabbitMQ closes a connection (541) that uses the queue
    at the moment when the queue is deleted.
    """
    with pika.BlockingConnection(connection._impl.params) as asking:
        try:
            asking.channel().queue_bind(queue, "amq.headers", "conformance", {"x-match": "any"})
        except pika.exceptions.ChannelClosedByBroker as closed:
            if closed.reply_code not in (404, 405):
                raise
            return closed.reply_code == 405  # it exists, and is exclusive to another connection
        except pika.exceptions.ConnectionClosedByBroker as closed:
            if closed.reply_code != 541:
                raise
        return True


class RecordingConsumer:
    """A consumer that keeps its deliveries: ``[(method, properties, body), ...]``."""

    def __init__(self, channel, queue, **options):
        self.channel = channel
        self.deliveries = []
        self.tag = channel.basic_consume(
            queue, lambda _, *delivery: self.deliveries.append(delivery), **options
        )

    def wait(self, count):
        """Wait for *count* deliveries; return the bodies of all."""
        wait_until(self.channel, lambda: len(self.deliveries) >= count)
        return self.bodies

    @property
    def bodies(self):
        """The bodies of the deliveries, in order."""
        return [body for _, _, body in self.deliveries]

    @property
    def tags(self):
        """The delivery tags, in order."""
        return [method.delivery_tag for method, _, _ in self.deliveries]


def sync(channel):
    """Return when the broker has handled what this channel sent before.

    RabbitMQ's queues are processes of their own, so deliveries may still come after that. A test
    can use it before it checks that a message came, and not to check that none comes.
    """
    channel.exchange_declare("amq.direct", passive=True)
    channel.connection.process_data_events(0)

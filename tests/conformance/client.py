"""What the conformance cases speak: plain pika, and a wire on which every frame is seen.

A case is a fact about AMQP 0-9-1 as RabbitMQ speaks it. Its sources are the specification and
RabbitMQ's guides; where versions differ, `Target.version` tells and the case says why.
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

PATIENCE = 10.0  # seconds; a fact that takes longer is none
CHANNEL, CONNECTION = "channel", "connection"  # what an error closes


class Target:
    """A broker that the cases run on."""

    def __init__(self, url, server=None):
        self.parameters = pika.URLParameters(url)
        self.server = server
        self.is_embedded = server is not None
        self.user = self.parameters.credentials.username
        self.version = (4, 3)  # what the embedded one is held to
        if not self.is_embedded:
            with self.connect() as connection:
                said = connection._impl.server_properties["version"]
            said = said.decode() if isinstance(said, bytes) else said
            self.version = tuple(int(each) for each in re.findall(r"\d+", said)[:2])

    def connect(self, **options):
        """Open a blocking connection."""
        parameters = copy.copy(self.parameters)
        parameters.blocked_connection_timeout = PATIENCE
        for option, value in options.items():
            setattr(parameters, option, value)
        return pika.BlockingConnection(parameters)

    def wire(self, **options):
        """Open a `FastConnection`."""
        return FastConnection(self, **options)


class FastConnection:
    """A connection that sends what it is told to and shows what comes, frame by frame."""

    def __init__(self, target, *, stage="channel", **tune):
        credentials = target.parameters.credentials
        self.user, self.password = credentials.username, credentials.password
        address = target.parameters.host, target.parameters.port
        self.socket = socket.create_connection(address, PATIENCE)
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
        """Say who we are."""
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
        """Send a frame of any kind, whatever is in it."""
        head = bytes([kind]) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big")
        self.socket.sendall(head + payload + end)

    def publish(self, queue, body=b"", *, exchange="", properties=None, mandatory=False, size=4000):
        """Publish, in one write, with bodies of *size* bytes a frame."""
        method = spec.Basic.Publish(exchange=exchange, routing_key=queue, mandatory=mandatory)
        properties = properties or spec.BasicProperties()
        frames = pika.frame.Method(1, method).marshal()
        frames += pika.frame.Header(1, len(body), properties).marshal()
        for start in range(0, len(body), size):
            frames += pika.frame.Body(1, body[start : start + size]).marshal()
        self.socket.sendall(frames)

    def next(self, timeout=PATIENCE):
        """Return the next method frame (content is skipped); None when the socket is closed.

        Raises:
            TimeoutError: nothing came.
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
        """Return the next method, which has to be of this *kind*."""
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
        """Expect that the channel or the connection is closed; return the method that does it."""
        kind = spec.Channel.Close if level == CHANNEL else spec.Connection.Close
        while True:
            frame = self.next()
            assert frame is not None, "the connection ended without a word"
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
        """Expect the end of the connection, whatever comes before."""
        with contextlib.suppress(ConnectionError):
            while self.next() is not None:
                pass

    def hang_up(self):
        """Close the socket and nothing else."""
        self.socket.close()


@contextlib.contextmanager
def refused(code, level=CHANNEL, text=""):
    """Claim that the broker refuses what is done here, with this code, by closing that."""
    kinds = pika.exceptions.ChannelClosedByBroker, pika.exceptions.ConnectionClosedByBroker
    with pytest.raises(kinds) as caught:
        yield caught
    assert caught.value.reply_code == code, caught.value
    assert isinstance(caught.value, kinds[level == CONNECTION]), caught.value
    assert text in caught.value.reply_text


def publish(channel, queue, *bodies, exchange="", mandatory=True, **properties):
    """Publish each body, confirmed and routed."""
    for body in bodies:
        channel.basic_publish(
            exchange, queue, body, pika.BasicProperties(**properties), mandatory=mandatory
        )


def get(channel, queue, *, auto_ack=True):
    """Take a message that comes in time: method, properties, body."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = channel.basic_get(queue, auto_ack=auto_ack)
        if found[0] is not None:
            return found
        assert time.monotonic() < deadline, f"nothing came into {queue}"
        channel.connection.process_data_events(0.005)


def bodies(channel, queue):
    """Take what is ready, without waiting; return the bodies."""
    found = []
    while (taken := channel.basic_get(queue, auto_ack=True))[0] is not None:
        found.append(taken[2])
    return found


def count(channel, queue):
    """Return how many messages are ready."""
    return channel.queue_declare(queue, passive=True).method.message_count


def eventually(channel, claim):
    """Wait until *claim* holds; return its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := claim()):
        assert time.monotonic() < deadline, "it did not come true"
        channel.connection.process_data_events(0.005)
    return value


def exists(connection, queue):
    """Whether there is such a queue. Asked by a binding: a declaration would put its expiry off.

    On a connection of its own, because RabbitMQ ends the connection that asks at the very moment
    when the queue goes (541).
    """
    with pika.BlockingConnection(connection._impl.params) as asking:
        try:
            asking.channel().queue_bind(queue, "amq.headers", "conformance", {"x-match": "any"})
        except pika.exceptions.ChannelClosedByBroker as closed:
            if closed.reply_code not in (404, 405):
                raise
            return closed.reply_code == 405  # there, and somebody else's
        except pika.exceptions.ConnectionClosedByBroker as closed:
            if closed.reply_code != 541:
                raise
        return True


class Consuming:
    """A consumer of a channel, and what it got: ``[(method, properties, body), ...]``."""

    def __init__(self, channel, queue, **options):
        self.channel = channel
        self.got = []
        self.tag = channel.basic_consume(
            queue, lambda _, *delivery: self.got.append(delivery), **options
        )

    def wait(self, many):
        """Return the bodies once there are *many* of them."""
        eventually(self.channel, lambda: len(self.got) >= many)
        return self.bodies

    @property
    def bodies(self):
        """What came, in its order."""
        return [body for _, _, body in self.got]

    @property
    def tags(self):
        """The delivery tags of what came."""
        return [method.delivery_tag for method, _, _ in self.got]


def settle(channel):
    """Return when the broker has done what this channel asked for before.

    Deliveries that were caused by it may still be on their way: RabbitMQ's queues are processes of
    their own. So this shows that something came, never that nothing will.
    """
    channel.exchange_declare("amq.direct", passive=True)
    channel.connection.process_data_events(0)

"""A broker without a thread and a socket: `ServerState` and `Connection` with a given loop."""

from __future__ import annotations

import asyncio

import pika.frame
import pytest
from pika import spec

from mousetrap.embedded_broker.connection import PROTOCOL_HEADER, Connection
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.state import ServerState


class RecordingTransport(asyncio.Transport):
    """Keeps what the broker sends, and whether it reads."""

    def __init__(self):
        super().__init__()
        self.sent = b""
        self.is_paused = False

    def write(self, data):
        self.sent += data

    def is_closing(self):
        return False

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False

    def close(self):
        pass

    def methods(self):
        """Return the methods that were sent since the last call."""
        found, rest = [], self.sent
        self.sent = b""
        while rest:
            used, frame = pika.frame.decode_frame(rest)
            rest = rest[used:]
            if isinstance(frame, pika.frame.Method):
                found.append(frame.method)
        return found


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def frame(method, channel=1):
    return pika.frame.Method(channel, method).marshal()


def publish(body, queue="q"):
    header = pika.frame.Header(1, len(body), spec.BasicProperties()).marshal()
    return (
        frame(spec.Basic.Publish(routing_key=queue)) + header + pika.frame.Body(1, body).marshal()
    )


def open_connection(state):
    """Return a connection with channel 1 open, and its transport."""
    connection, transport = Connection(state), RecordingTransport()
    connection.connection_made(transport)
    login = spec.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")
    connection.data_received(
        PROTOCOL_HEADER
        + frame(login, 0)
        + frame(spec.Connection.TuneOk(100, 131_072, 0), 0)
        + frame(spec.Connection.Open(), 0)
        + frame(spec.Channel.Open())
    )
    transport.methods()
    return connection, transport


def test_messages_pass_without_a_socket(loop):
    """A publish, a delivery and an ack need a loop and a transport only."""
    state = ServerState(loop, {"guest": "guest"}, ("/",), Limits(), random_token=lambda: "token")
    connection, transport = open_connection(state)
    connection.data_received(
        frame(spec.Queue.Declare(queue="q")) + frame(spec.Basic.Consume(queue="q"))
    )
    assert transport.methods()[-1].consumer_tag == "amq.ctag-token"

    connection.data_received(publish(b"hello"))
    [delivery] = transport.methods()
    connection.data_received(frame(spec.Basic.Ack(delivery.delivery_tag)))

    [queue] = state.overview()["vhosts"]["/"]["queues"]
    assert (queue["ready"], queue["unacked"], state.memory) == (0, 0, 0)


def test_one_read_is_confirmed_with_one_ack(loop):
    """Publishes that come in one read get a single basic.ack with multiple."""
    state = ServerState(loop, {"guest": "guest"}, ("/",), Limits())
    connection, transport = open_connection(state)
    connection.data_received(frame(spec.Queue.Declare(queue="q")) + frame(spec.Confirm.Select()))
    transport.methods()

    connection.data_received(publish(b"1") + publish(b"2") + publish(b"3"))

    [ack] = transport.methods()
    assert (ack.NAME, ack.delivery_tag, ack.multiple) == ("Basic.Ack", 3, True)


def test_a_publisher_is_read_again_below_the_memory_limit(loop):
    """It is blocked above the limit, and unblocked below `UNBLOCK_BELOW` of it."""
    state = ServerState(loop, {"guest": "guest"}, ("/",), Limits(memory=1_000))
    connection, transport = open_connection(state)
    connection.data_received(frame(spec.Queue.Declare(queue="q")) + publish(bytes(1_000)))
    assert transport.is_paused

    connection.data_received(frame(spec.Queue.Purge(queue="q")))
    loop.run_until_complete(asyncio.sleep(0))

    assert not transport.is_paused

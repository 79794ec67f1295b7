"""The embedded broker with random and malformed frames: it closes only that connection."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import socket
import time

import pika
import pika.frame
import pytest
from pika import spec
from support.waiting import wait_for

from mousetrap.embedded_broker import EmbeddedServer, Limits
from mousetrap.embedded_broker.connection import Connection

FRAMES_PER_ROUND = 25
PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
PROPERTIES = spec.BasicProperties(headers={"a": [1, {"b": "c"}]}, expiration="50", priority=3)


def frame(method, channel=1):
    return pika.frame.Method(channel, method).marshal()


LOGIN = [
    frame(spec.Connection.StartOk({"product": "x"}, "PLAIN", "\0guest\0guest", "en_US"), 0),
    frame(spec.Connection.TuneOk(100, 8192, 0), 0),
    frame(spec.Connection.Open("/"), 0),
    frame(spec.Channel.Open()),
]
VALID = [
    *LOGIN,
    frame(spec.Channel.Open(), 2),
    frame(spec.Queue.Declare(queue="q", durable=True, arguments={"x-max-length": 50})),
    frame(spec.Queue.Declare(queue="p", durable=True, arguments={"x-message-ttl": 5})),
    frame(spec.Queue.Declare(queue="", exclusive=True)),
    frame(spec.Exchange.Declare(exchange="x", type="headers")),
    frame(spec.Exchange.Bind(destination="x", source="amq.topic", routing_key="#.a.*")),
    frame(spec.Queue.Bind(queue="q", exchange="x", arguments={"x-match": "any", "a": 1})),
    frame(spec.Queue.Purge(queue="q")),
    frame(spec.Queue.Delete(queue="p")),
    frame(spec.Confirm.Select()),
    frame(spec.Basic.Publish(routing_key="q", mandatory=True)),
    pika.frame.Header(1, 5, PROPERTIES).marshal(),
    pika.frame.Body(1, b"hello").marshal(),
    frame(spec.Basic.Publish(routing_key="q"))
    + pika.frame.Header(1, 5, PROPERTIES).marshal()
    + pika.frame.Body(1, b"hello").marshal(),
    frame(spec.Basic.Qos(prefetch_count=3)),
    frame(spec.Basic.Consume(queue="q", consumer_tag="c", arguments={"x-priority": 1})),
    frame(spec.Basic.Cancel(consumer_tag="c")),
    frame(spec.Basic.Get(queue="q")),
    frame(spec.Basic.Ack(1, True)),
    frame(spec.Basic.Nack(0, True, True)),
    frame(spec.Basic.Reject(2, False)),
    frame(spec.Basic.Recover(True)),
    frame(spec.Channel.Close(200, "", 0, 0)),
    frame(spec.Channel.CloseOk()),
    frame(spec.Tx.Select()),
    pika.frame.Heartbeat().marshal(),
]


def mutated(chance, data):
    """Return *data* with some bytes changed, added or removed."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(data))
        match chance.randrange(6):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 3 if len(data) > 9:
                del data[at : at + chance.randrange(1, 5)]
            case 4:
                data[at:at] = data[at : at + 8]
            case 5:  # in the payload only, with a correct size: the frame is read
                size = len(data) - 8
                if size > 0:
                    data[7 + chance.randrange(size)] = chance.choice([0, 1, 127, 128, 255])
                    data[3:7] = size.to_bytes(4, "big")
                    data[-1] = 0xCE
        if not data:
            return b"\0"
    return bytes(data)


def random_frame(chance):
    """Return a frame: valid, mutated, of a valid type with a random payload, or random bytes."""
    match chance.randrange(10):
        case 0 | 1 | 2 | 3:
            return chance.choice(VALID)
        case 4 | 5 | 6 | 7:
            return mutated(chance, chance.choice(VALID))
        case 8:
            payload = chance.randbytes(chance.randrange(40))
            head = bytes([chance.choice([1, 1, 1, 2, 3, 8])]) + chance.randrange(3).to_bytes(2)
            return head + len(payload).to_bytes(4) + payload + b"\xce"
    return chance.randbytes(chance.randrange(1, 60))


def send_round(chance, port):
    """Send random frames on a new connection, and read until the broker closes it."""
    start = [PROTOCOL_HEADER, *LOGIN] if chance.random() < 0.9 else [PROTOCOL_HEADER]
    frames = [random_frame(chance) for _ in range(FRAMES_PER_ROUND)]
    with (
        socket.create_connection(("127.0.0.1", port), 10) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(b"".join(start + frames))
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass


@pytest.mark.parametrize(
    "frames", [10_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_random_frames_harm_no_other_connection(frames, caplog, monkeypatch):
    """The broker does not crash or hang, and another connection goes on working.

    Only frames that the broker handled count: it ignores those after one that closes it.
    """
    handled, on_frame = [0], Connection._on_frame

    def counting(*arguments):
        handled[0] += 1
        on_frame(*arguments)

    monkeypatch.setattr(Connection, "_on_frame", counting)
    caplog.set_level(logging.ERROR)
    chance = random.Random(7)
    with EmbeddedServer({"guest": "guest"}, limits=Limits(memory=2**30)) as server:
        with pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", server.port)
        ) as connection:
            channel = connection.channel()
            slowest = 0.0
            for number in itertools.count():
                if handled[0] >= frames:
                    break
                send_round(chance, server.port)
                if number % 20 == 0:
                    started = time.monotonic()
                    queue = channel.queue_declare("", exclusive=True).method.queue
                    channel.basic_publish("", queue, b"still here")
                    assert channel.basic_get(queue, auto_ack=True)[2] == b"still here"
                    channel.queue_delete(queue)
                    slowest = max(slowest, time.monotonic() - started)
        wait_for(lambda: not server.overview()["connections"])  # their clients have closed them

    assert slowest < 2
    assert [record.getMessage() for record in caplog.records if "pika" not in record.name] == []


def test_the_number_of_connections_is_limited():
    """The broker closes a connection beyond the limit; when others end there is room again."""
    with EmbeddedServer({"guest": "guest"}, limits=Limits(connections=5)) as server:
        address = ("127.0.0.1", server.port)
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                client = stack.enter_context(socket.create_connection(address, 10))
                client.sendall(PROTOCOL_HEADER)
                assert client.recv(1) == b"\x01"
            extra = stack.enter_context(socket.create_connection(address, 10))
            with contextlib.suppress(ConnectionResetError):
                assert extra.recv(1) == b""
        deadline = time.monotonic() + 10
        while server.overview()["connections"]:
            assert time.monotonic() < deadline
        pika.BlockingConnection(pika.ConnectionParameters(*address)).close()


def test_a_slow_client_exceeds_the_handshake_timeout():
    """The limit is for the whole handshake: single bytes do not restart it."""
    with EmbeddedServer({}, limits=Limits(handshake=0.3)) as server:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.settimeout(0.02)
            for byte in PROTOCOL_HEADER + LOGIN[0] * 100:
                try:
                    client.sendall(bytes([byte]))
                    client.recv(1000)
                except TimeoutError:
                    continue
                except ConnectionError:
                    break

        assert 0.2 < time.monotonic() - started < 5

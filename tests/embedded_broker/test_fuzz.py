"""The embedded broker under bytes that nobody meant: it closes that connection, and that is all."""

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

from mousetrap.embedded_broker import EmbeddedServer, Limits
from mousetrap.embedded_broker.connection import Connection

FRAMES_A_ROUND = 25
GREETING = b"AMQP\0\0\x09\x01"
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
    """Change some bytes, or how long it is."""
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
            case 5:  # of the payload only, with a size that is right: gets past the framing
                size = len(data) - 8
                if size > 0:
                    data[7 + chance.randrange(size)] = chance.choice([0, 1, 127, 128, 255])
                    data[3:7] = size.to_bytes(4, "big")
                    data[-1] = 0xCE
        if not data:
            return b"\0"
    return bytes(data)


def some_frame(chance):
    """A frame: as it should be, changed, of a valid kind with random content, or only random."""
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


def round_of_frames(chance, port):
    """Send frames on a connection of their own, and read until its end."""
    start = [GREETING, *LOGIN] if chance.random() < 0.9 else [GREETING]
    frames = [some_frame(chance) for _ in range(FRAMES_A_ROUND)]
    with (
        socket.create_connection(("127.0.0.1", port), 10) as wire,
        contextlib.suppress(ConnectionError),
    ):
        wire.sendall(b"".join(start + frames))
        wire.shutdown(socket.SHUT_WR)
        while wire.recv(65_536):
            pass


@pytest.mark.parametrize(
    "frames", [10_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_no_frame_harms_anybody_else(frames, caplog, monkeypatch):
    """No crash, no hang; a connection beside them works as before, and so does the next one.

    Counted are the frames that were looked at: those behind one that ends its connection are not.
    """
    looked_at, look = [0], Connection._on_frame

    def counting(*arguments):
        looked_at[0] += 1
        look(*arguments)

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
                if looked_at[0] >= frames:
                    break
                round_of_frames(chance, server.port)
                if number % 20 == 0:
                    started = time.monotonic()
                    queue = channel.queue_declare("", exclusive=True).method.queue
                    channel.basic_publish("", queue, b"still here")
                    assert channel.basic_get(queue, auto_ack=True)[2] == b"still here"
                    channel.queue_delete(queue)
                    slowest = max(slowest, time.monotonic() - started)
        deadline = time.monotonic() + 10
        while server.overview()["connections"]:
            assert time.monotonic() < deadline, "a connection is held for somebody who is gone"
            time.sleep(0.01)

    assert slowest < 2
    assert [record.getMessage() for record in caplog.records if "pika" not in record.name] == []


def test_a_flood_of_connections_is_bounded():
    """Beyond the bound a connection is hung up on; when others are gone there is room again."""
    with EmbeddedServer({"guest": "guest"}, limits=Limits(connections=5)) as server:
        address = ("127.0.0.1", server.port)
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                wire = stack.enter_context(socket.create_connection(address, 10))
                wire.sendall(GREETING)
                assert wire.recv(1) == b"\x01"
            extra = stack.enter_context(socket.create_connection(address, 10))
            with contextlib.suppress(ConnectionResetError):
                assert extra.recv(1) == b""
        deadline = time.monotonic() + 10
        while server.overview()["connections"]:
            assert time.monotonic() < deadline
        pika.BlockingConnection(pika.ConnectionParameters(*address)).close()


def test_who_sends_a_byte_now_and_then_is_cut_off():
    """The time for the handshake is for all of it, however many bytes come meanwhile."""
    with EmbeddedServer({}, limits=Limits(handshake=0.3)) as server:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), 10) as wire:
            wire.settimeout(0.02)
            for byte in GREETING + LOGIN[0] * 100:
                try:
                    wire.sendall(bytes([byte]))
                    wire.recv(1000)
                except TimeoutError:
                    continue
                except ConnectionError:
                    break

        assert 0.2 < time.monotonic() - started < 5

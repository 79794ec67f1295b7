"""The limit: ready-made AMQP bytes on a plain socket, confirms read and counted, nothing else.

No client can be faster than this on one connection, whatever it is written in: the time is the
broker's and the kernel's. Bytes as https://www.rabbitmq.com/amqp-0-9-1-protocol lays them out.
The hop takes and publishes on two connections, as a worker does, and of each message it only counts
the bytes.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika import frame, spec

from peers.peer import Peer as Base

BATCH = 200  # messages written to the socket at once; a guess
ACK = 21  # bytes of a whole basic.ack frame
STOP_CHECK_INTERVAL = 0.05  # seconds between two checks whether the hop is to end
LAST_CONFIRMS_TIMEOUT = 30.0  # seconds


class Peer(Base):
    """Writes one message's frames over and over."""

    title = "bare socket (the limit)"
    has_defaults = False

    def publish(self, queue: str, body: bytes, messages: int, window: int) -> float:
        with self._connected() as wire:
            one = _ready_made(queue, body)
            started = time.perf_counter()
            _publish(wire, one, messages, window)
            return time.perf_counter() - started

    @contextmanager
    def hop(self, source: str, target: str, prefetch: int, handlers: int) -> Iterator[object]:
        ended = threading.Event()
        with self._connected() as taking, self._connected() as giving:
            _write(taking, 1, spec.Basic.Qos(prefetch_count=prefetch))
            _read(taking, spec.Basic.QosOk)
            _write(taking, 1, spec.Basic.Consume(queue=source, consumer_tag="c", nowait=True))
            mover = threading.Thread(
                target=_move, args=(taking, giving, target, ended), daemon=True
            )
            mover.start()
            try:
                yield mover
            finally:
                ended.set()
                mover.join(LAST_CONFIRMS_TIMEOUT)
            assert not mover.is_alive(), f"not all was confirmed within {LAST_CONFIRMS_TIMEOUT:g} s"
            _write(taking, 0, spec.Connection.Close(200, "", 0, 0))
            _read(taking, spec.Connection.CloseOk)  # so the acks have arrived, too

    def _connected(self) -> socket.socket:
        settings = self.settings
        wire = socket.create_connection((settings.host, settings.port), timeout=30)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        login = f"\0{settings.user}\0{settings.password}"
        wire.sendall(b"AMQP\x00\x00\x09\x01")
        _read(wire, spec.Connection.Start)
        _write(wire, 0, spec.Connection.StartOk({}, "PLAIN", login, "en_US"))
        tune = _read(wire, spec.Connection.Tune)
        _write(wire, 0, spec.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
        _write(wire, 0, spec.Connection.Open(settings.vhost))
        _read(wire, spec.Connection.OpenOk)
        for method, answer in ((spec.Channel.Open(), spec.Channel.OpenOk),
                               (spec.Confirm.Select(), spec.Confirm.SelectOk)):  # fmt: skip
            _write(wire, 1, method)
            _read(wire, answer)
        return wire


def _write(wire: socket.socket, channel: int, method: spec.amqp_object.Method) -> None:
    wire.sendall(frame.Method(channel, method).marshal())


def _read(wire: socket.socket, wanted: type) -> spec.amqp_object.Method:
    """Wait for the one method that answers the request."""
    buffer = b""
    while data := wire.recv(65536):
        buffer += data
        _, found = frame.decode_frame(buffer)
        if found is not None:
            assert isinstance(found.method, wanted), found
            return found.method
    raise ConnectionError(f"the broker closed the connection instead of {wanted.NAME}")


def _ready_made(queue: str, body: bytes) -> bytes:
    """All frames of one message, persistent and mandatory, with properties as long as ours."""
    properties = pika.BasicProperties(
        delivery_mode=2, content_type="application/json", message_id="a" * 32,
        headers={"mousetrap-attempt": 1, "mousetrap-job": "a" * 32},
    )  # fmt: skip
    method = spec.Basic.Publish(exchange="", routing_key=queue, mandatory=True)
    return (frame.Method(1, method).marshal() + frame.Header(1, len(body), properties).marshal()
            + frame.Body(1, body).marshal())  # fmt: skip


def _publish(wire: socket.socket, one: bytes, messages: int, window: int) -> None:
    sent = confirmed = 0
    rest = b""
    batch = max(1, min(BATCH, window))
    while confirmed < messages:
        size = min(batch, messages - sent)
        if size and sent - confirmed <= window - size:
            wire.sendall(one * size)
            sent += size
            continue
        confirmed, rest = _confirmed(confirmed, rest + _receive(wire))


def _move(
    taking: socket.socket, giving: socket.socket, target: str, ended: threading.Event
) -> None:
    """Publish a message for each that has arrived; its confirm, byte for byte, is the ack.

    Both channels count from one, and `basic.ack` is the same method in both directions.
    """
    one = start = rest = b""
    length = arrived = published = confirmed = 0  # bytes, bytes, messages, messages
    while not ended.is_set() or confirmed < published:
        for wire in select.select([taking, giving], [], [], STOP_CHECK_INTERVAL)[0]:
            data = _receive(wire)
            if wire is giving:
                taking.sendall(data)
                confirmed, rest = _confirmed(confirmed, rest + data)
                continue
            arrived += len(data)
            if not one:
                start += data
                length, body = _first(start)
                one = _ready_made(target, body) if body else b""
            if one:
                new = arrived // length - published
                giving.sendall(one * new)
                published += new


def _receive(wire: socket.socket) -> bytes:
    data = wire.recv(1 << 18)
    if not data:
        raise ConnectionError("the broker closed the connection")
    return data


def _confirmed(confirmed: int, data: bytes) -> tuple[int, bytes]:
    """Return how many messages are confirmed now, and the bytes of a frame that is not whole."""
    for at in range(0, len(data) - ACK + 1, ACK):
        if data[at : at + 11] != b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50":
            raise ConnectionError(f"not a basic.ack: {data[at : at + ACK]!r}")
        tag, multiple = int.from_bytes(data[at + 11 : at + 19], "big"), data[at + 19]
        confirmed = tag if multiple else confirmed + 1
    return confirmed, data[len(data) - len(data) % ACK :]


def _first(data: bytes) -> tuple[int, bytes]:
    """How long the first delivery is, as all are, and its body; nothing while it is not whole."""
    at = 0
    while len(data) >= at + 7:
        kind, _, size = struct.unpack_from(">BHL", data, at)
        at += 7 + size + 1
        if kind == spec.FRAME_BODY and len(data) >= at:
            return at, data[at - size - 1 : at - 1]
    return 0, b""

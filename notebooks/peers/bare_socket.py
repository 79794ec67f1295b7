"""The limit: ready-made AMQP bytes on a plain socket, confirms read and counted, nothing else.

No client can be faster than this on one connection, whatever it is written in: the time is the
broker's and the kernel's. Bytes as https://www.rabbitmq.com/amqp-0-9-1-protocol lays them out.
"""

from __future__ import annotations

import socket
import time

import pika
from pika import frame, spec

from peers.peer import Peer as Base

BATCH = 200  # messages handed to the socket at once; a guess
ACK = 21  # bytes of a whole basic.ack frame


class Peer(Base):
    """Writes one message's frames over and over."""

    title = "bare socket (the limit)"
    hops = False

    def publish(self, queue: str, body: bytes, messages: int, window: int) -> float:
        with self._connected() as wire:
            properties = pika.BasicProperties(
                delivery_mode=2, content_type="application/json", message_id="a" * 32,
                headers={"mousetrap-attempt": 1, "mousetrap-job": "a" * 32},
            )  # fmt: skip
            method = spec.Basic.Publish(exchange="", routing_key=queue, mandatory=True)
            one = (frame.Method(1, method).marshal()
                   + frame.Header(1, len(body), properties).marshal()
                   + frame.Body(1, body).marshal())  # fmt: skip
            started = time.perf_counter()
            _publish(wire, one, messages, window)
            return time.perf_counter() - started

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
    """The one method that the broker answers with; before it there is nothing to pipeline."""
    buffer = b""
    while data := wire.recv(65536):
        buffer += data
        _, found = frame.decode_frame(buffer)
        if found is not None:
            assert isinstance(found.method, wanted), found
            return found.method
    raise ConnectionError(f"the broker closed the connection instead of {wanted.NAME}")


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
        data = wire.recv(65536)
        if not data:
            raise ConnectionError("the broker closed the connection")
        rest += data
        for at in range(0, len(rest) - ACK + 1, ACK):
            if rest[at : at + 11] != b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50":
                raise ConnectionError(f"not a basic.ack: {rest[at : at + ACK]!r}")
            tag, multiple = int.from_bytes(rest[at + 11 : at + 19], "big"), rest[at + 19]
            confirmed = tag if multiple else confirmed + 1
        rest = rest[len(rest) - len(rest) % ACK :]

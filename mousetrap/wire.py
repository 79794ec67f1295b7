"""pika's connection with less work: the one place that overrides what pika calls private.

Each system call gives Python's lock away and has to win it back, which under load costs more than
the call. pika sends each frame alone (a message is three) and reads 4 KiB at a time; here the
frames of one turn of the loop go out together, and 64 KiB come in. And of the three frames of a
message the first is always the same, and the second nearly so. `pika.SelectConnection` itself
works as well, only slower; `tests/test_wire.py` fails when pika changes what is used here.
Prototyped in ``notebooks/bench_flow.ipynb``.
"""

from __future__ import annotations

import struct
from typing import Any

import pika
from pika import data as values
from pika import frame, spec
from pika.channel import Channel

RECEIVE = 65_536  # bytes asked for at a time; measured: more is not faster
KEPT_HEADS = 1000  # a guess: more queues than anybody publishes to
_FRAME = struct.Struct(">BHI")  # type, channel, size of the payload (AMQP 0-9-1, section 4.2.3)
_END = bytes([spec.FRAME_END])
# A content header (section 4.2.6.1): class, weight, size of the body, which properties follow.
_CONTENT = struct.Struct(">HHQH")
_FLAGS = (
    spec.BasicProperties.FLAG_CONTENT_TYPE | spec.BasicProperties.FLAG_HEADERS
    | spec.BasicProperties.FLAG_DELIVERY_MODE | spec.BasicProperties.FLAG_MESSAGE_ID
    | spec.BasicProperties.FLAG_TIMESTAMP
)  # fmt: skip
_OTHERS = ("content_encoding", "priority", "correlation_id", "reply_to", "expiration", "type",
           "user_id", "app_id", "cluster_id")  # fmt: skip
_OVERHEAD = spec.FRAME_HEADER_SIZE + spec.FRAME_END_SIZE  # bytes of a frame around its payload


class Wire(pika.SelectConnection):
    """A `pika.SelectConnection` that joins what it sends and reads in large pieces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._outgoing: list[bytes] = []
        self._heads: dict[
            tuple[int, str, str], bytes
        ] = {}  # method frames of publishes, ready-made
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = RECEIVE
        super()._proto_connection_made(transport)

    def publish(
        self,
        channel: Channel,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: pika.BasicProperties,
        mandatory: bool,
    ) -> None:
        """Publish as `Channel.basic_publish` does, and raise what it raises."""
        number = channel.channel_number
        if not channel.is_open or len(body) > self._body_max_length:
            channel.basic_publish(exchange, routing_key, body, properties, mandatory)
            return
        head = self._heads.get((number, exchange, routing_key))
        if head is None:
            method: Any = spec.Basic.Publish(  # type: ignore[no-untyped-call]  # pika's
                exchange=exchange, routing_key=routing_key, mandatory=mandatory
            )
            head = frame.Method(number, method).marshal()
            if len(self._heads) < KEPT_HEADS:
                self._heads[number, exchange, routing_key] = head
        header = _content_header(len(body), properties)
        content = _FRAME.pack(spec.FRAME_HEADER, number, len(header)) + header + _END
        if body:
            content += _FRAME.pack(spec.FRAME_BODY, number, len(body)) + body + _END
        message = head + content
        self.frames_sent += 3 if body else 2
        self.bytes_sent += len(message)
        self._adapter_emit_data(message)

    def _adapter_emit_data(self, data: bytes) -> None:
        self._outgoing.append(data)
        if len(self._outgoing) == 1:
            # timers come last in a turn of the loop, after whatever else has something to send
            self._nbio.call_later(0, self._send_outgoing)

    def _send_outgoing(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None:  # else the connection went away in this very turn
            self._transport.write(b"".join(outgoing))

    def _on_data_available(self, data_in: bytes) -> None:
        # pika's own copies the rest of the buffer for each frame that it takes from its front
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        if data.startswith(b"AMQP"):  # a broker of another version; never again after that
            super()._on_data_available(data_in)
            return
        position, size = 0, len(data)
        while size - position >= _OVERHEAD:
            end = position + _OVERHEAD + int.from_bytes(data[position + 3 : position + 7], "big")
            if end > size:
                break
            self._frame_buffer = b""  # processing a frame may end the connection
            _, value = frame.decode_frame(data[position:end])
            self.bytes_received += end - position
            position = end
            assert value is not None
            self._process_frame(value)
        self._frame_buffer = data[position:]


def publish(
    channel: Channel,
    exchange: str,
    routing_key: str,
    body: bytes,
    properties: pika.BasicProperties,
    *,
    mandatory: bool,
) -> None:
    """Publish on *channel* the short way if its connection is a `Wire`, else as pika does."""
    if isinstance(channel.connection, Wire):
        channel.connection.publish(channel, exchange, routing_key, body, properties, mandatory)
    else:
        channel.basic_publish(exchange, routing_key, body, properties, mandatory)


def _content_header(size: int, properties: pika.BasicProperties) -> bytes:
    """Return the payload of a content header frame; our own five properties take the short way."""
    known: dict[str, Any] = vars(properties)
    if any(known.get(name) is not None for name in _OTHERS) or not all(
        (properties.content_type, properties.headers, properties.delivery_mode,
         properties.message_id, properties.timestamp)
    ):  # fmt: skip
        pieces = properties.encode()  # type: ignore[no-untyped-call]  # pika's
        return struct.pack(">HHQ", spec.BasicProperties.INDEX, 0, size) + b"".join(pieces)
    table = b"".join(_entry(key, value) for key, value in properties.headers.items())
    return b"".join((
        _CONTENT.pack(spec.BasicProperties.INDEX, 0, size, _FLAGS),
        _short(properties.content_type),
        len(table).to_bytes(4, "big"), table,
        bytes((properties.delivery_mode,)),
        _short(properties.message_id),
        properties.timestamp.to_bytes(8, "big"),
    ))  # fmt: skip


def _entry(key: str, value: Any) -> bytes:
    """Return one field of a table (section 4.2.5.5); what is not plain is left to pika."""
    if type(value) is str:
        text = value.encode()
        return _short(key) + b"S" + len(text).to_bytes(4, "big") + text
    pieces: list[bytes] = [_short(key)]
    values.encode_value(pieces, value)
    return b"".join(pieces)


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded  # over 255 bytes: ValueError, as in pika

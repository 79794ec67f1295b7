"""pika's connection made faster: the only module that overrides private methods of pika.

Each system call releases Python's global lock and must acquire it again, which under load costs
more than the call. pika sends each frame alone (a message has three) and reads 4 KiB at a time.
Here all frames of one turn of the I/O loop are sent together, and up to 256 KiB are read at a time.
The first frame of a publish is the same for every message to a queue, so it is cached. A message
that arrived completely goes directly to the channel, without pika's frame decoder and dispatcher.
Most overrides only save time; a few correct pika's behaviour, and their comments say so.
`tests/amqp/test_fast_connection.py` fails when pika changes what this module uses. Prototyped in
``notebooks/bench_flow.ipynb``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pika
from pika import data as values
from pika import frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.channel import Channel
from pika.heartbeat import HeartbeatChecker

from mousetrap.amqp.properties import basic_properties, decode_properties, encode_properties
from mousetrap.display.safe_text import safe
from mousetrap.model.message import Message

# Heartbeat intervals without a byte from the broker after which the connection counts as lost; the
# broker sends two heartbeats in each interval.
MAX_SILENT_HEARTBEATS = 1.4
MAX_RECEIVE_BYTES = 262_144  # per read; with 4 kB bodies a tenth faster than 64 KiB (measured)
MAX_CACHED_METHOD_FRAMES = 1000  # one per queue; a guess: few processes publish to more queues
_FRAME_HEADER = struct.Struct(
    ">BHI"
)  # type, channel, size of the payload (AMQP 0-9-1, section 4.2.3)
_END = bytes([spec.FRAME_END])
_OVERHEAD = spec.FRAME_HEADER_SIZE + spec.FRAME_END_SIZE  # bytes of a frame around its payload
_DELIVER = struct.pack(">I", spec.Basic.Deliver.INDEX)  # the first bytes of that method's payload


class FrameTooLarge(Exception):
    """Headers and properties have *size* bytes; *limit* bytes fit one frame of this connection."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"its headers and properties have {size:,} bytes, and the broker accepts {limit:,} "
            f"(frame_max): shorten them, or put them into the body"
        )
        self.excess = size - limit


class FastConnection(pika.SelectConnection):
    """A `pika.SelectConnection` that sends many frames by one call and reads large pieces."""

    def __init__(
        self,
        parameters: Sequence[pika.ConnectionParameters],
        first: int = 0,
        *,
        call_soon: Callable[[Callable[[], object]], object],
        on_blocked: Callable[[bool, str], object] = lambda *_: None,
        **kwargs: Any,
    ) -> None:
        self._call_soon = call_soon  # runs a function at the end of the I/O loop's turn
        self._outgoing: list[bytes] = []
        # The encoded method frames of publishes by channel, exchange and routing key. Not by
        # `mandatory`: it is the same for all publishes to one exchange, except for answers, which
        # have names that are used once or a few times: they are not kept.
        self._method_frames: dict[tuple[int, str, str], bytes] = {}
        # Each attempt begins with another host: pika goes on to the next one only if a host does
        # not accept the connection, and not if it fails after that.
        first %= len(parameters)
        self._hosts = [*parameters[first:], *parameters[:first]]
        super().__init__(self._hosts[0], **kwargs)
        self.add_on_connection_blocked_callback(
            lambda _, blocked: on_blocked(True, safe(blocked.method.reason))
        )
        self.add_on_connection_unblocked_callback(lambda *_: on_blocked(False, ""))

    def _adapter_connect_stream(self) -> None:
        super()._adapter_connect_stream()
        workflow: Any = self._connection_workflow  # it begins in the next turn
        workflow._connection_configs = self._hosts

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = MAX_RECEIVE_BYTES
        if type(transport) is _AsyncPlaintextTransport:  # with TLS, bytes may wait where none polls
            transport._MAX_CONSUME_BYTES = 1  # one read per turn, and not until a read gets nothing
        super()._proto_connection_made(transport)

    def _create_heartbeat_checker(self) -> HeartbeatChecker | None:
        if not self.params.heartbeat:
            return None
        return _Heartbeats(self, self.params.heartbeat)  # type: ignore[no-untyped-call]  # pika's

    def abort(self) -> None:
        """Drop the connection without AMQP's closing handshake."""
        if not self.is_closed:
            self._adapter_disconnect_stream()

    def terminate(self, error: Exception) -> None:
        """Drop the connection without a handshake; the callback for its end gets *error*."""
        self._terminate_stream(error)

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        # For a connection that was closed while it opened, pika passes the exception's class and
        # then asserts that it is an instance: that would end the I/O thread with all connections.
        if isinstance(conn_or_exc, type):
            conn_or_exc = conn_or_exc()
        super()._on_connection_workflow_done(conn_or_exc)

    def _on_stream_terminated(self, error: Exception | None) -> None:
        super()._on_stream_terminated(error)
        # The callbacks and the connection refer to each other. Without this line, the connection
        # would stay in memory until the garbage collector examines its oldest objects.
        self.callbacks.clear()

    def publish(
        self,
        channel: Channel,
        exchange: str,
        routing_key: str,
        message: Message,
        sent: int,
        base: pika.BasicProperties | None,
        mandatory: bool,
    ) -> None:
        """Publish *message* with the properties of `basic_properties`.

        Raises:
            FrameTooLarge: the headers and properties do not fit one frame, so nothing was sent: the
                broker would close the connection, with the publishes of all others on it.
            Exception: nothing was sent; whatever pika raises for a closed channel, or for a header
                that it cannot encode.
        """
        number, body = channel.channel_number, message.body
        size = len(body)
        content = encode_properties(message, size, sent, base)
        if len(content) > self._body_max_length:
            raise FrameTooLarge(len(content), self._body_max_length)
        if not channel.is_open or size > self._body_max_length:
            properties = basic_properties(message, sent, base)
            channel.basic_publish(exchange, routing_key, body, properties, mandatory)
            return
        is_kept = mandatory or exchange
        head = self._method_frames.get((number, exchange, routing_key)) if is_kept else None
        if head is None:
            method: Any = spec.Basic.Publish(  # type: ignore[no-untyped-call]  # pika's
                exchange=exchange, routing_key=routing_key, mandatory=mandatory
            )
            head = frame.Method(number, method).marshal()
            if is_kept and len(self._method_frames) < MAX_CACHED_METHOD_FRAMES:
                self._method_frames[number, exchange, routing_key] = head
        head += _FRAME_HEADER.pack(spec.FRAME_HEADER, number, len(content)) + content + _END
        if size:
            head += _FRAME_HEADER.pack(spec.FRAME_BODY, number, size)
            self._emit(head, body, _END)
        else:
            self._emit(head)
        self.frames_sent += 3 if size else 2
        self.bytes_sent += len(head) + (size + len(_END) if size else 0)

    def _adapter_emit_data(self, data: bytes) -> None:
        self._emit(data)

    def _emit(self, *pieces: bytes) -> None:
        if not self._outgoing:
            self._call_soon(self._send_outgoing)
        self._outgoing += pieces

    def _send_outgoing(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        transport: Any = self._transport
        if transport is None:  # the connection was lost in this turn
            return
        # a memoryview: what a full socket did not take is sliced off without a copy
        data = memoryview(b"".join(outgoing))
        # pika would first wait until the socket can be written, which costs a turn of the loop and
        # two more system calls. It does so only with what is left, and it notices a broken socket.
        if (
            type(transport) is _AsyncPlaintextTransport
            and transport._state == transport._STATE_ACTIVE
            and not transport._tx_buffers
        ):
            with suppress(OSError):  # full or broken
                data = data[transport._sock.send(data) :]
        if data:
            transport.write(data)

    def _on_data_available(self, data_in: bytes) -> None:
        # pika's own method copies the rest of the buffer for each frame that it takes off
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        if data.startswith(b"AMQP"):  # the broker wants another version, and closes
            super()._on_data_available(data_in)
            return
        position, size = 0, len(data)
        while size - position >= _OVERHEAD:
            end = position + _OVERHEAD + int.from_bytes(data[position + 3 : position + 7], "big")
            if end > size:
                break
            self._frame_buffer = b""  # processing a frame may end the connection
            if data.startswith(_DELIVER, position + 7) and data[position] == spec.FRAME_METHOD:
                after = self._deliver(data, position, end)
                if after:
                    position = after
                    continue
            _, value = frame.decode_frame(data[position:end])
            self.bytes_received += end - position
            position = end
            assert value is not None
            self._process_frame(value)
        self._frame_buffer = data[position:]

    def _deliver(self, data: bytes, start: int, middle: int) -> int:
        """Deliver the message whose method frame is from *start* to *middle*; return its end.

        Returns 0 for a message that has not arrived completely or has several body frames, and for
        an unknown channel: pika's own code reads those.
        """
        found = _content(data, middle)
        channel = self._channels.get(int.from_bytes(data[start + 1 : start + 3], "big"))
        if found is None or channel is None:
            return 0
        end, payload, body = found
        method, number = _deliver_method(data[start + 11 : middle - 1]), channel.channel_number
        properties = decode_properties(payload)
        self.frames_received += 3 if body else 2
        self.bytes_received += end - start
        channel._on_deliver(
            frame.Method(number, method), frame.Header(number, len(body), properties), body
        )
        return end


class _Heartbeats(HeartbeatChecker):
    """pika's checker with a shorter check interval: pika's is five seconds more than the heartbeat.

    The checker compares two checks, so it notices silence after one to two check intervals: after
    1.4 to 2.8 heartbeats, so within three.
    """

    def _start_check_timer(self) -> None:
        self._check_interval = min(self._check_interval, MAX_SILENT_HEARTBEATS * self._timeout)
        super()._start_check_timer()  # type: ignore[no-untyped-call]  # pika's


def publish(
    channel: Channel,
    exchange: str,
    routing_key: str,
    message: Message,
    sent: int,
    base: pika.BasicProperties | None,
    *,
    mandatory: bool,
) -> None:
    """Publish on *channel*: by `FastConnection.publish` if its connection is one, else by pika."""
    if isinstance(channel.connection, FastConnection):
        channel.connection.publish(channel, exchange, routing_key, message, sent, base, mandatory)
    else:
        properties = basic_properties(message, sent, base)
        channel.basic_publish(exchange, routing_key, message.body, properties, mandatory)


def _content(data: bytes, middle: int) -> tuple[int, bytes, bytes] | None:
    """Return the message's end, the header frame's payload and the body, if *data* has them."""
    if len(data) - middle < _OVERHEAD or data[middle] != spec.FRAME_HEADER:
        return None
    first = middle + 7
    last = first + int.from_bytes(data[middle + 3 : first], "big")
    size = int.from_bytes(data[first + 4 : first + 12], "big")
    if not size:
        return (last + 1, data[first:last], b"") if last < len(data) else None
    begin = last + 1 + 7
    end = begin + size
    if end >= len(data) or size != int.from_bytes(data[begin - 4 : begin], "big"):
        return None  # not arrived yet, or in several frames
    return end + 1, data[first:last], data[begin:end]


def _deliver_method(payload: bytes) -> spec.Basic.Deliver:
    """Return the basic.deliver whose encoded arguments are *payload*."""
    # consumer tag, delivery tag (8 bytes), redelivered (1 bit), exchange, routing key
    after = 1 + payload[0]
    [consumer] = _texts(payload[:after])
    exchange, routing_key = _texts(payload[after + 9 :])
    return spec.Basic.Deliver(  # type: ignore[no-untyped-call]  # pika's
        consumer, int.from_bytes(payload[after : after + 8], "big"), bool(payload[after + 8] & 1),
        exchange, routing_key,
    )  # fmt: skip


@lru_cache(maxsize=256)  # consumer tags and queue names; the tags change with each channel
def _texts(data: bytes) -> list[Any]:  # str; bytes if it is not UTF-8, as in pika
    """Return the short strings in *data*."""
    found, offset = [], 0
    while offset < len(data):
        text, offset = values.decode_short_string(data, offset)
        found.append(text)
    return found

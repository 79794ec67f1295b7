"""pika's connection with fewer system calls: the one place that overrides what pika calls private.

Each system call gives Python's lock away and has to win it back, which under load costs more than
the call. pika sends each frame alone (a message is three) and reads 4 KiB at a time; here the
frames of one turn of the loop go out together, and 64 KiB come in. `pika.SelectConnection` itself
works as well, only slower; `tests/test_wire.py` fails when pika changes what is used here.
Prototyped in ``notebooks/bench_flow.ipynb``.
"""

from __future__ import annotations

from typing import Any

import pika
from pika import frame, spec

RECEIVE = 65_536  # bytes asked for at a time; measured: more is not faster
_OVERHEAD = spec.FRAME_HEADER_SIZE + spec.FRAME_END_SIZE  # bytes of a frame around its payload


class Wire(pika.SelectConnection):
    """A `pika.SelectConnection` that joins what it sends and reads in large pieces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._outgoing: list[bytes] = []
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = RECEIVE
        super()._proto_connection_made(transport)

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

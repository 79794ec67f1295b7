"""Frames that the broker sends to one client: collected, and written to the socket together.

Threads: the server's own.
"""

from __future__ import annotations

import asyncio

METHOD, CONTENT, BODY, HEARTBEAT = 1, 2, 3, 8  # frame types
MAX_COLLECTED = 200  # frames; with more, a slow reader is noticed too late


class FrameWriter:
    """Sends frames; those that one read of the socket causes are written together.

    One write has at most `MAX_COLLECTED` + 1 frames.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, frame_max: int) -> None:
        self.transport: asyncio.Transport | None = None
        self.frame_max = frame_max  # bytes of a whole frame, as both sides agreed
        self.can_write = True  # False while the transport's buffer is full
        self.is_closed = False  # frames are dropped from then on
        self.is_collecting = False  # the owner flushes when it has carried out what it read
        self.has_written = True  # since the owner last looked
        self._loop = loop
        self._collected: list[bytes] = []

    def send_frame(self, kind: int, number: int, payload: bytes) -> None:
        """Send one frame on channel *number*."""
        size = len(payload)
        self.write(
            b"%c%b%b%b\xce" % (kind, number.to_bytes(2, "big"), size.to_bytes(4, "big"), payload)
        )

    def send_content(self, number: int, method: bytes, properties: bytes, body: bytes) -> None:
        """Send a method, a content header, and the body in as many frames as it needs."""
        self.send_frame(METHOD, number, method)
        header = b"\x00\x3c\0\0" + len(body).to_bytes(8, "big") + properties
        self.send_frame(CONTENT, number, header)
        part_size = self.frame_max - 8
        for start in range(0, len(body), part_size):
            self.send_frame(BODY, number, body[start : start + part_size])

    def write(self, data: bytes) -> None:
        """Send bytes, together with everything else that is sent in this turn of the loop."""
        if self.is_closed:
            return
        if not self._collected and not self.is_collecting:
            self._loop.call_soon(self.flush)
        self._collected.append(data)
        if len(self._collected) > MAX_COLLECTED:
            self.flush()

    def flush(self) -> None:
        """Write what was collected to the socket."""
        if self._collected and self.transport is not None and not self.transport.is_closing():
            self.has_written = True
            self.transport.write(b"".join(self._collected))
        self._collected.clear()

    def close(self) -> None:
        """Write what was collected, then close the socket."""
        self.flush()
        self.is_closed = True
        if self.transport is not None:
            self.transport.close()

    def close_for_writing(self) -> None:
        """Write what was collected, then end the stream; the client can still send."""
        self.flush()
        self.is_closed = True
        if self.transport is None or self.transport.is_closing():
            return
        try:
            self.transport.write_eof()
        except (NotImplementedError, OSError):  # it cannot, or the client is gone
            self.transport.close()

"""AMQP 0-9-1 on the wire: a parser that splits the bytes of a stream into `Command`s.

A command is a method with all of its content, or a single frame: what cannot be split without
breaking the stream. Nothing more of the protocol is known here (sections 2.3.5 and 4.2 of the
specification), so nothing can disagree with a client or a broker. The functions read or write the
few fields that fault injection needs. Prototyped in ``notebooks/06_bad_day.ipynb``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PROTOCOL_HEADER_SIZE = 8  # bytes: "AMQP", 0, 0, 9, 1
_FRAME = struct.Struct(">BHI")  # type, channel, size of the payload
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_NAMES = {
    (10, 10): "Connection.Start", (10, 11): "Connection.StartOk", (10, 30): "Connection.Tune",
    (10, 31): "Connection.TuneOk", (10, 40): "Connection.Open", (10, 41): "Connection.OpenOk",
    (10, 50): "Connection.Close", (10, 51): "Connection.CloseOk",
    (10, 60): "Connection.Blocked", (10, 61): "Connection.Unblocked",
    (20, 10): "Channel.Open", (20, 11): "Channel.OpenOk",
    (20, 40): "Channel.Close", (20, 41): "Channel.CloseOk",
    (40, 10): "Exchange.Declare", (40, 11): "Exchange.DeclareOk",
    (50, 10): "Queue.Declare", (50, 11): "Queue.DeclareOk",
    (50, 20): "Queue.Bind", (50, 21): "Queue.BindOk",
    (50, 30): "Queue.Purge", (50, 31): "Queue.PurgeOk",
    (50, 40): "Queue.Delete", (50, 41): "Queue.DeleteOk",
    (60, 10): "Basic.Qos", (60, 11): "Basic.QosOk",
    (60, 20): "Basic.Consume", (60, 21): "Basic.ConsumeOk",
    (60, 30): "Basic.Cancel", (60, 31): "Basic.CancelOk",
    (60, 40): "Basic.Publish", (60, 50): "Basic.Return", (60, 60): "Basic.Deliver",
    (60, 70): "Basic.Get", (60, 71): "Basic.GetOk", (60, 72): "Basic.GetEmpty",
    (60, 80): "Basic.Ack", (60, 90): "Basic.Reject", (60, 120): "Basic.Nack",
    (85, 10): "Confirm.Select", (85, 11): "Confirm.SelectOk",
}  # fmt: skip
COMMAND_NAMES = frozenset({"Protocol", "Heartbeat", *_NAMES.values()})
_WITH_CONTENT = {"Basic.Publish", "Basic.Return", "Basic.Deliver", "Basic.GetOk"}


class Command(NamedTuple):
    """A method with its content, or a frame: its `name` in AMQP, and all its bytes."""

    name: str
    data: bytes

    @property
    def channel(self) -> int:
        """The number of its channel; 0 is the connection itself."""
        return int.from_bytes(self.data[1:3], "big")


def routing_of(publish: Command) -> tuple[str, str]:
    """Return the exchange and the routing key of a ``Basic.Publish``."""
    at = _FRAME.size + 6  # after the numbers of class and method, and a reserved one
    words = []
    for _ in range(2):
        end = at + 1 + publish.data[at]
        words.append(publish.data[at + 1 : end].decode("utf-8", "replace"))
        at = end
    return words[0], words[1]


def connection_name(start: Command) -> str:
    """Return the name that a client gives its connection in ``Connection.StartOk``, or "".

    It is a property in a field table: the short name, the letter S, four bytes of length, the text.
    """
    _, found, rest = start.data.partition(b"\x0fconnection_nameS")
    size = int.from_bytes(rest[:4], "big")
    return rest[4 : 4 + size].decode("utf-8", "replace") if found else ""


def channel_max(tune: Command) -> int:
    """Return the highest channel number that this ``Connection.TuneOk`` allows."""
    (number,) = struct.unpack_from(">H", tune.data, _FRAME.size + 4)
    return number or 65_535  # 0: no limit but the protocol's


def channel_open(channel: int) -> bytes:
    """Return the frame of a ``Channel.Open``."""
    return _FRAME.pack(_METHOD, channel, 5) + struct.pack(">HHB", 20, 10, 0) + b"\xce"


def with_channel(data: bytes, channel: int) -> bytes:
    """Return the frames in *data* with another channel number."""
    frames, at = bytearray(data), 0
    while at < len(frames):
        struct.pack_into(">H", frames, at + 1, channel)
        at += _FRAME.size + _FRAME.unpack_from(frames, at)[2] + 1
    return bytes(frames)


class CommandParser:
    """Parses the bytes of one direction of a connection as they arrive.

    *is_client*: they are the bytes of a client, which begin with the protocol header.

    Threads: one.
    """

    def __init__(self, *, is_client: bool) -> None:
        self._buffer = b""
        self._awaits_header = is_client
        # channel -> name, frames, and bytes of the body that are missing
        self._open: dict[int, tuple[str, list[bytes], int]] = {}

    def feed(self, data: bytes) -> list[Command]:
        """Return the commands that *data* completes, and keep the rest."""
        self._buffer += data
        commands = []
        position, size = 0, len(self._buffer)
        if self._awaits_header and size >= PROTOCOL_HEADER_SIZE:
            self._awaits_header = False
            position = PROTOCOL_HEADER_SIZE
            commands.append(Command("Protocol", self._buffer[:PROTOCOL_HEADER_SIZE]))
        while not self._awaits_header and size - position >= _FRAME.size:
            kind, channel, length = _FRAME.unpack_from(self._buffer, position)
            end = position + _FRAME.size + length + 1
            if end > size:
                break
            command = self._frame(kind, channel, self._buffer[position:end])
            position = end
            if command is not None:
                commands.append(command)
        self._buffer = self._buffer[position:]
        return commands

    def incomplete(self) -> bytes:
        """Return the bytes of commands that never became complete, as of a client that crashes."""
        begun = b"".join(frame for _, frames, _ in self._open.values() for frame in frames)
        return begun + self._buffer

    def _frame(self, kind: int, channel: int, frame: bytes) -> Command | None:
        payload = frame[_FRAME.size : -1]
        if kind == _METHOD:
            number = struct.unpack_from(">HH", payload)
            name = _NAMES.get(number, "{}.{}".format(*number))
            if name not in _WITH_CONTENT:
                return Command(name, frame)
            self._open[channel] = (name, [frame], -1)
            return None
        if kind not in (_HEADER, _BODY) or channel not in self._open:
            return Command("Heartbeat" if kind == _HEARTBEAT else f"frame {kind}", frame)
        name, frames, missing = self._open.pop(channel)
        frames.append(frame)
        # the header has the size of the body, after class and weight
        missing = struct.unpack_from(">Q", payload, 4)[0] if kind == _HEADER else missing
        missing -= len(payload) if kind == _BODY else 0
        if missing > 0:
            self._open[channel] = (name, frames, missing)
            return None
        return Command(name, b"".join(frames))

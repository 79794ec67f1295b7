"""Corrections of pika: for header values, and for sockets that fail while a connection opens.

A copy of a message must carry the values that the message had. pika decodes a double as an integer:
1.5 would become 1 in a retry, and 1e300 an integer that pika cannot encode, so that the retry could
never be published. It raises for a timestamp after the year 9999, and for a table that is nested
deeper than Python's stack, which would end the I/O thread. It encodes a text that is not UTF-8 as a
byte array, and 1.50 as 1.5. An integer keeps its value, but not its width.

If a socket cannot be made (no file descriptor is left), or the peer resets it just after it was
connected, pika raises inside the I/O loop. That would end the I/O thread with all its connections.
Here it is a failed attempt, like any other.

This is the only module that replaces functions of pika; `tests/amqp/test_pika_patches.py` fails
when pika changes them.
"""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from functools import partial
from typing import Any

from pika import data
from pika.adapters.utils.connection_workflow import AMQPConnector, AMQPConnectorSocketConnectError

from mousetrap.model.headers import EncodedValue, FarTimestamp, RawText, scaled

# Tables and arrays within each other; deeper ones are carried as their bytes. A guess: a fraction
# of Python's stack, and more than people read.
MAX_HEADER_DEPTH = 50

_decode, _encode = data.decode_value, data.encode_value
_start, _on_connected = AMQPConnector.start, AMQPConnector._on_tcp_connection_done


def decode_value(encoded: bytes, offset: int, depth: int = 0) -> tuple[Any, int]:
    """Return the value at *offset*, *depth* levels below the headers, and the next one's offset."""
    kind, start = encoded[offset : offset + 1], offset + 1
    if kind == b"d":
        return struct.unpack_from(">d", encoded, start)[0], start + 8
    if kind == b"f":
        return struct.unpack_from(">f", encoded, start)[0], start + 4
    if kind == b"T":
        try:
            return _decode(encoded, offset)
        except (OverflowError, ValueError, OSError):  # no date that Python can represent
            return FarTimestamp(struct.unpack_from(">Q", encoded, start)[0]), start + 8
    if kind == b"D":
        decimals, number = struct.unpack_from(">Bi", encoded, start)
        digits = tuple(map(int, str(abs(number))))
        return Decimal((int(number < 0), digits, -decimals)), start + 5
    if kind in (b"F", b"A"):
        return _decode_nested(encoded, offset, depth)
    value, end = _decode(encoded, offset)
    if kind == b"S" and isinstance(value, bytes):
        value = RawText(value)
    return value, end


def _decode_nested(encoded: bytes, offset: int, depth: int) -> tuple[Any, int]:
    start = offset + 5  # after the kind and the length
    end = start + int(struct.unpack_from(">I", encoded, offset + 1)[0])
    if depth >= MAX_HEADER_DEPTH:
        return EncodedValue(encoded[offset:end]), end
    table: dict[Any, Any] = {}
    array: list[Any] = []
    is_table = encoded[offset : offset + 1] == b"F"
    while start < end:
        if is_table:
            name, start = data.decode_short_string(encoded, start)
            table[name], start = decode_value(encoded, start, depth + 1)
        else:
            value, start = decode_value(encoded, start, depth + 1)
            array.append(value)
    return table if is_table else array, start


def encode_value(pieces: list[bytes], value: Any) -> int:
    """Append the encoded *value* to *pieces*; return its size in bytes."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("RabbitMQ closes the connection on NaN and infinity")  # measured
        pieces.append(struct.pack(">cd", b"d", value))
    elif isinstance(value, FarTimestamp):
        pieces.append(struct.pack(">cQ", b"T", value))
    elif isinstance(value, Decimal):
        pieces.append(struct.pack(">cBi", b"D", *scaled(value)))
    elif isinstance(value, RawText):
        pieces.append(struct.pack(">cI", b"S", len(value)) + value)
    elif isinstance(value, EncodedValue):
        pieces.append(value)
    else:
        return _encode(pieces, value)
    return len(pieces[-1])


def start(connector: AMQPConnector, *args: Any, **kwargs: Any) -> None:
    """Begin to connect; report a socket that cannot be made."""
    try:
        _start(connector, *args, **kwargs)
    except OSError as error:
        connector._nbio.add_callback_threadsafe(partial(_report, connector, error))


def on_connected(connector: AMQPConnector, error: BaseException | None) -> None:
    """Go on with a socket that is connected; report one that was reset in this moment."""
    try:
        _on_connected(connector, error)
    except ValueError as raised:
        _report(connector, ConnectionResetError(*raised.args))


def _report(connector: AMQPConnector, error: OSError) -> None:
    connector._report_completion_and_cleanup(AMQPConnectorSocketConnectError(error))


def install() -> None:
    """Replace pika's functions; it uses those for values also for tables and arrays."""
    data.decode_value, data.encode_value = decode_value, encode_value
    AMQPConnector.start = start  # type: ignore[assignment, method-assign]
    AMQPConnector._on_tcp_connection_done = on_connected  # type: ignore[assignment, method-assign]

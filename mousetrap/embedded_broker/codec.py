"""Converts AMQP field values and tables to Python values, and back.

Every length is checked against the bytes that are there, because a client may send a wrong one. A
value keeps its AMQP type where Python has a type for it; an integer, for example, loses its size.
`encoded_fields` returns the values of a table as bytes, so that in a dead letter the headers that
the broker does not change stay the same, byte for byte.

A table is a dict of str to bool, int, float, Decimal, str, bytes, datetime, list, dict or None.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

MAX_NESTING = 20  # tables in tables; RabbitMQ has no limit, but Python's stack has one


class Malformed(ValueError):
    """The bytes are not valid AMQP; *code* is the reply code that the connection is closed with."""

    def __init__(self, why: str, code: int = 502) -> None:
        super().__init__(why)
        self.code = code


class EncodedValue(bytes):
    """A field value that is encoded already, with its type byte."""

    __slots__ = ()


NUMBER_FORMATS = {
    kind: struct.Struct(f">{form}")
    for kind, form in {
        b"b": "b", b"B": "B", b"s": "h", b"U": "h", b"u": "H", b"I": "i", b"i": "I",
        b"l": "q", b"L": "q", b"f": "f", b"d": "d",
    }.items()
}  # fmt: skip


def read_bytes(data: bytes, offset: int, size: int, code: int = 502) -> bytes:
    """Return *size* bytes from *offset*.

    Raises:
        Malformed: there are fewer bytes. The other ``read`` functions raise it for invalid values.
    """
    part = data[offset : offset + size]
    if len(part) != size:
        raise Malformed("a value is cut short", code)
    return part


def read_short_text(data: bytes, offset: int) -> tuple[str, int]:
    """Return a short string and the offset after it."""
    size = read_bytes(data, offset, 1)[0]
    try:
        return read_bytes(data, offset + 1, size).decode(), offset + 1 + size
    except UnicodeDecodeError:
        raise Malformed("a short string is not UTF-8") from None


def read_long_bytes(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return a long string as bytes and the offset after it."""
    size = int.from_bytes(read_bytes(data, offset, 4), "big")
    return read_bytes(data, offset + 4, size), offset + 4 + size


def read_table(data: bytes, offset: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """Return a table and the offset after it."""
    inner, end = read_long_bytes(data, offset)
    return {key: value for key, value, _, _ in _fields(inner, depth)}, end


def encoded_fields(inner: bytes) -> dict[str, Any]:
    """Return the values of a table as they came; *inner* is the table without its size."""
    return {key: EncodedValue(inner[start:end]) for key, _, start, end in _fields(inner, 0)}


def _fields(inner: bytes, depth: int) -> Iterator[tuple[str, Any, int, int]]:
    offset = 0
    while offset < len(inner):
        key, start = read_short_text(inner, offset)
        value, offset = read_value(inner, start, depth)
        yield key, value, start, offset


def read_value(data: bytes, offset: int, depth: int = 0) -> tuple[Any, int]:
    """Return a value that starts with its type byte, and the offset after it."""
    if depth > MAX_NESTING:
        raise Malformed("tables are nested too deeply")
    kind = read_bytes(data, offset, 1)
    offset += 1
    if kind in (b"S", b"x", b"A"):
        content, end = read_long_bytes(data, offset)
        if kind == b"x":
            return content, end
        if kind == b"A":
            items, at = [], 0
            while at < len(content):
                item, at = read_value(content, at, depth + 1)
                items.append(item)
            return items, end
        try:
            return content.decode(), end
        except UnicodeDecodeError:
            return content, end
    if kind == b"F":
        return read_table(data, offset, depth + 1)
    if kind == b"V":
        return None, offset
    if kind == b"t":
        return read_bytes(data, offset, 1) != b"\0", offset + 1
    if kind == b"T":
        seconds = int.from_bytes(read_bytes(data, offset, 8), "big")
        try:
            return datetime.fromtimestamp(seconds, UTC), offset + 8
        except (ValueError, OverflowError, OSError):
            return seconds, offset + 8
    if kind == b"D":
        scale, number = struct.unpack(">Bi", read_bytes(data, offset, 5))
        return Decimal(number).scaleb(-scale), offset + 5
    if number_form := NUMBER_FORMATS.get(kind):
        part = read_bytes(data, offset, number_form.size)
        return number_form.unpack(part)[0], offset + number_form.size
    raise Malformed(f"there is no field type {kind!r}")


def short_text(value: str) -> bytes:
    """Encode a short string.

    Raises:
        Malformed: it is longer than 255 bytes of UTF-8.
    """
    encoded = value.encode()
    if len(encoded) > 255:
        raise Malformed("a short string has more than 255 bytes")
    return bytes([len(encoded)]) + encoded


def long_bytes(value: bytes | str) -> bytes:
    """Encode a long string."""
    encoded = value.encode() if isinstance(value, str) else value
    return len(encoded).to_bytes(4, "big") + encoded


def table(values: dict[str, Any]) -> bytes:
    """Encode a table with its size."""
    return long_bytes(b"".join(short_text(key) + field(value) for key, value in values.items()))


def field(value: Any) -> bytes:
    """Encode one value with its type byte in front."""
    match value:
        case EncodedValue():
            return bytes(value)
        case bool():
            return b"t\1" if value else b"t\0"
        case int():
            return b"l" + value.to_bytes(8, "big", signed=True)
        case float():
            return b"d" + struct.pack(">d", value)
        case str():
            return b"S" + long_bytes(value)
        case bytes():
            return b"x" + long_bytes(value)
        case datetime():
            return b"T" + int(value.timestamp()).to_bytes(8, "big")
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            number = int("".join(map(str, digits))) * (-1 if sign else 1)
            return b"D" + struct.pack(">Bi", -int(exponent), number)
        case dict():
            return b"F" + table(value)
        case list():
            return b"A" + long_bytes(b"".join(map(field, value)))
        case None:
            return b"V"
    raise TypeError(f"AMQP has no field for a {type(value).__name__}")

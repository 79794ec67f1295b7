"""AMQP's field values and tables as Python's, and back.

Every length is checked against what is there: the bytes come from whoever connects. Values keep
their type on the wire where Python can say it; `entries` gives a table's values as they came, so
that a message that is dead-lettered keeps the headers that nobody changed byte for byte.

A table is a dict of str to bool, int, float, Decimal, str, bytes, datetime, list, dict or None.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

NESTING = 20  # tables in tables; RabbitMQ has no bound, but Python's stack has one


class Malformed(ValueError):
    """Bytes that are no AMQP; *code* is what the connection is closed with."""

    def __init__(self, why: str, code: int = 502) -> None:
        super().__init__(why)
        self.code = code


class Raw(bytes):
    """A field value that is encoded already, its type's letter included."""

    __slots__ = ()


NUMBERS = {
    letter: struct.Struct(f">{form}")
    for letter, form in {
        b"b": "b", b"B": "B", b"s": "h", b"U": "h", b"u": "H", b"I": "i", b"i": "I",
        b"l": "q", b"L": "q", b"f": "f", b"d": "d",
    }.items()
}  # fmt: skip


def take(data: bytes, offset: int, size: int, code: int = 502) -> bytes:
    """Return *size* bytes from *offset*; raise `Malformed` if they are not there."""
    part = data[offset : offset + size]
    if len(part) != size:
        raise Malformed("a value is cut short", code)
    return part


def read_short_text(data: bytes, offset: int) -> tuple[str, int]:
    """Return a short string and the offset behind it."""
    size = take(data, offset, 1)[0]
    try:
        return take(data, offset + 1, size).decode(), offset + 1 + size
    except UnicodeDecodeError:
        raise Malformed("a short string is not UTF-8") from None


def read_long_bytes(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return a long string as bytes and the offset behind it."""
    size = int.from_bytes(take(data, offset, 4), "big")
    return take(data, offset + 4, size), offset + 4 + size


def read_table(data: bytes, offset: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """Return a table and the offset behind it."""
    inner, end = read_long_bytes(data, offset)
    return {key: value for key, value, _, _ in _fields(inner, depth)}, end


def entries(inner: bytes) -> dict[str, Any]:
    """Return a table's values as `Raw`, each as it came; *inner* is the table without its size."""
    return {key: Raw(inner[start:end]) for key, _, start, end in _fields(inner, 0)}


def _fields(inner: bytes, depth: int) -> Iterator[tuple[str, Any, int, int]]:
    offset = 0
    while offset < len(inner):
        key, start = read_short_text(inner, offset)
        value, offset = read_value(inner, start, depth)
        yield key, value, start, offset


def read_value(data: bytes, offset: int, depth: int = 0) -> tuple[Any, int]:
    """Return a value with its type's letter in front, and the offset behind it."""
    if depth > NESTING:
        raise Malformed("tables are nested too deeply")
    letter = take(data, offset, 1)
    offset += 1
    if letter in (b"S", b"x", b"A"):
        content, end = read_long_bytes(data, offset)
        if letter == b"x":
            return content, end
        if letter == b"A":
            items, at = [], 0
            while at < len(content):
                item, at = read_value(content, at, depth + 1)
                items.append(item)
            return items, end
        try:
            return content.decode(), end
        except UnicodeDecodeError:
            return content, end
    if letter == b"F":
        return read_table(data, offset, depth + 1)
    if letter == b"V":
        return None, offset
    if letter == b"t":
        return take(data, offset, 1) != b"\0", offset + 1
    if letter == b"T":
        seconds = int.from_bytes(take(data, offset, 8), "big")
        try:
            return datetime.fromtimestamp(seconds, UTC), offset + 8
        except (ValueError, OverflowError, OSError):
            return seconds, offset + 8
    if letter == b"D":
        scale, number = struct.unpack(">Bi", take(data, offset, 5))
        return Decimal(number).scaleb(-scale), offset + 5
    if number_form := NUMBERS.get(letter):
        part = take(data, offset, number_form.size)
        return number_form.unpack(part)[0], offset + number_form.size
    raise Malformed(f"there is no field type {letter!r}")


def short_text(value: str) -> bytes:
    """Encode a short string; longer than 255 bytes of UTF-8 is `Malformed`."""
    encoded = value.encode()
    if len(encoded) > 255:
        raise Malformed("a short string has more than 255 bytes")
    return bytes([len(encoded)]) + encoded


def long_bytes(value: bytes | str) -> bytes:
    """Encode a long string."""
    encoded = value.encode() if isinstance(value, str) else value
    return len(encoded).to_bytes(4, "big") + encoded


def table(values: dict[str, Any]) -> bytes:
    """Encode a table, its size included."""
    return long_bytes(b"".join(short_text(key) + field(value) for key, value in values.items()))


def field(value: Any) -> bytes:
    """Encode one value with its type's letter in front."""
    match value:
        case Raw():
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

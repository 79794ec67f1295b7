"""Corrections for header values that pika decodes wrongly or cannot encode.

pika decodes a double as an integer: 1.5 would become 1 in a retry, and 1e300 an integer that pika
cannot encode, so that the retry could never be published. It raises for a timestamp after the year
9999. This is the only module that replaces functions of pika; `tests/amqp/test_pika_patches.py`
fails when pika changes them.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import data

_decode, _encode = data.decode_value, data.encode_value


def decode_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Return the value at *offset*, and the offset of the next one."""
    kind, start = encoded[offset : offset + 1], offset + 1
    if kind == b"d":
        return struct.unpack_from(">d", encoded, start)[0], start + 8
    if kind == b"f":
        return struct.unpack_from(">f", encoded, start)[0], start + 4
    if kind == b"T":
        try:
            return _decode(encoded, offset)
        except (OverflowError, ValueError, OSError):  # no date that Python can represent
            return struct.unpack_from(">Q", encoded, start)[0], start + 8
    return _decode(encoded, offset)


def encode_value(pieces: list[bytes], value: Any) -> int:
    """Append the encoded *value* to *pieces*; return its size in bytes."""
    if isinstance(value, float):
        pieces.append(struct.pack(">cd", b"d", value))
        return 9
    return _encode(pieces, value)


def install() -> None:
    """Replace pika's two functions, which it also uses for tables and arrays."""
    data.decode_value, data.encode_value = decode_value, encode_value

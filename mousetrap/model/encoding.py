"""Encoding a value as the body of a message: JSON; `decoding` is the reverse.

Nothing here talks to a broker.
"""

from __future__ import annotations

import sys
from collections import UserString
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from mousetrap.model import pydantic_encoding
from mousetrap.model.one_or_many import way_out

MAX_BODY_BYTES = 16 * 1024 * 1024  # RabbitMQ 4 accepts no more by default


def encode(data: Any) -> bytes:
    """Return *data* as JSON bytes; None becomes the empty body, and bytes are returned unchanged.

    Besides plain values it accepts pydantic models, mappings of any kind, rows of `sqlite3`, and
    whatever msgspec can encode: dataclasses, attrs classes, `msgspec.Struct`, dates and times,
    UUIDs. A `bytearray` or `memoryview` is bytes.

    Raises:
        TypeError: JSON cannot represent a value.
        ValueError: a number is not finite (NaN, infinity), a text is not valid Unicode, *data* is
            nested too deep, or the body is larger than `MAX_BODY_BYTES`.
    """
    if data is None:
        return b""
    if isinstance(data, memoryview) and data.itemsize > 1:  # an array, whose bytes are no JSON
        raise _not_json(data)
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    try:
        if not isinstance(data, bytes):
            data = pydantic_encoding.with_plain_dataclasses(data)
        body = data if isinstance(data, bytes) else _encode_json(data)
    except RecursionError:
        raise ValueError("the value is nested too deep for JSON; flatten it") from None
    check_size(body)
    if isinstance(data, bytes):
        return body
    # msgspec silently writes NaN and infinity as null. Only a body that contains a null can hide
    # one; the strict encoder of the standard library finds it.
    if b"null" in body:
        import json

        try:
            json.dumps(msgspec.to_builtins(data, enc_hook=_plain), allow_nan=False)
        except ValueError:
            raise ValueError(
                "a number is not finite (NaN or infinity), which JSON cannot represent: send None"
            ) from None
    return body


def _plain(value: Any) -> Any:
    """Return a value that msgspec does not know as plain values, without importing its library."""
    if pydantic_encoding.is_of_pydantic(value):
        return pydantic_encoding.plain(value)
    if callable(dump := getattr(value, "model_dump", None)):  # as pydantic's models have it
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    for plain in (str, int, float):
        if isinstance(value, plain):  # a subclass, such as a text with markup, or `numpy.float64`
            return plain(value)
    if isinstance(value, UserString):
        return str(value)
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is not None and isinstance(value, sqlite3.Row):
        return dict(value)
    if isinstance(value, (date, time, timedelta)) and value == value:
        return _plain_time(value)
    if isinstance(value, Decimal):
        return str(value)
    if value is None or isinstance(value, (bool, tuple, frozenset)):  # msgspec knows them as values
        raise TypeError(
            f"JSON cannot represent {type(value).__name__} as a key of a mapping: make it text"
        )
    raise _not_json(value)


def _not_json(value: Any) -> TypeError:
    known = way_out(value)
    return TypeError(
        f"JSON cannot represent {type(value).__name__}; send plain values instead"
        + (f", as {known}" if known else "")
    )


def _plain_time(value: date | time | timedelta) -> Any:
    """Return the plain form of a subclass of `datetime`'s types, such as a timestamp of pandas."""
    if isinstance(value, timedelta):
        return timedelta(value.days, value.seconds, value.microseconds)
    return value.isoformat()  # with nanoseconds, where it has them


_encode_json = msgspec.json.Encoder(enc_hook=_plain).encode


def check_size(body: bytes) -> None:
    """Raise ValueError if *body* is larger than `MAX_BODY_BYTES`."""
    if len(body) > MAX_BODY_BYTES:  # the broker would close the channel, with other publishes on it
        raise ValueError(
            f"the body has {len(body):,} bytes, brokers accept up to {MAX_BODY_BYTES:,}; store it "
            f"elsewhere and send its path or URL"
        )

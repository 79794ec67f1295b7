"""Header values arrive unchanged, also those that pika alone would change."""

from __future__ import annotations

import errno
import math
import socket
import struct
from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import wait_for

from mousetrap.amqp import pika_patches
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import ConnectionLost
from mousetrap.model.headers import entry_size

plain = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes(timezones=st.just(UTC)).map(lambda date: date.replace(microsecond=0, fold=0))
    .filter(lambda date: date.year >= 1970)
)  # fmt: skip
values = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=20), inner)
)


def through_pika(value):
    """Write and read *value* as pika's own properties do."""
    payload = b"".join(pika.BasicProperties(headers={"value": value}).encode())
    found = pika.BasicProperties()
    found.decode(payload)
    return found.headers["value"]


@given(values)
def test_values_arrive_as_they_were_sent(value):
    """In tables and arrays, too: pika calls the replaced functions."""
    assert through_pika(value) == value


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (struct.pack(">cf", b"f", 0.5), 0.5),
        (struct.pack(">cd", b"d", math.inf), math.inf),
        (struct.pack(">cQ", b"T", 2**62), 2**62),
        (struct.pack(">cQ", b"T", 0), datetime(1970, 1, 1, tzinfo=UTC)),
        (struct.pack(">cBi", b"D", 2, 150), Decimal("1.50")),
    ],
)
def test_values_of_others_are_read(encoded, value):
    """Floats, and times that Python cannot represent as a date."""
    assert pika_patches.decode_value(b"?" + encoded, 1) == (value, 1 + len(encoded))


def nested(kind, depth):
    """Return that many tables or arrays within each other, encoded."""
    encoded = b"V"
    for _ in range(depth):
        inner = (b"\x01a" if kind == b"F" else b"") + encoded
        encoded = kind + struct.pack(">I", len(inner)) + inner
    return encoded


LIMITS = {  # encoded values that a copy must carry to the bit
    "int64 min": struct.pack(">cq", b"l", -(2**63)),
    "int64 max": struct.pack(">cq", b"l", 2**63 - 1),
    "double max": struct.pack(">cd", b"d", 1.7976931348623157e308),
    "double min": struct.pack(">cd", b"d", 5e-324),
    "decimal max": struct.pack(">cBi", b"D", 255, 2**31 - 1),
    "decimal min": struct.pack(">cBi", b"D", 0, -(2**31)),
    "decimal with a last zero": struct.pack(">cBi", b"D", 2, 150),
    "decimal zero": struct.pack(">cBi", b"D", 7, 0),
    "timestamp 0": struct.pack(">cQ", b"T", 0),
    "timestamp after 9999": struct.pack(">cQ", b"T", 2**62),
    "timestamp before 1970": struct.pack(">cq", b"T", -1),
    "void": b"V",
    "byte array": b"x\x00\x00\x00\x02\xff\x00",
    "text that is not UTF-8": b"S\x00\x00\x00\x02\xff\x00",
    "name that is not UTF-8": b"F\x00\x00\x00\x03\x01\xffV",
    "empty name": b"F\x00\x00\x00\x02\x00V",
    "name of 255 bytes": b"F" + struct.pack(">IB", 257, 255) + b"k" * 255 + b"V",
    "empty table": b"F\x00\x00\x00\x00",
    "empty array": b"A\x00\x00\x00\x00",
    "tables in tables": nested(b"F", 18_000),
    "arrays in arrays": nested(b"A", 25_000),
}


@pytest.mark.parametrize("encoded", LIMITS.values(), ids=LIMITS)
def test_values_at_the_limits_of_their_type_are_carried_unchanged(encoded):
    """What arrives is what a copy sends: the same type and the same bytes."""
    value, end = pika_patches.decode_value(encoded, 0)
    pieces = []

    size = pika_patches.encode_value(pieces, value)

    assert b"".join(pieces) == encoded
    assert (size, end) == (len(encoded), len(encoded))
    assert entry_size("name", value) == 1 + len("name") + len(encoded)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_close_the_connection_are_not_sent(value):
    """RabbitMQ answers them with 541 INTERNAL_ERROR, and every other publish would be lost."""
    with pytest.raises(ValueError, match="RabbitMQ closes"):
        pika_patches.encode_value([], value)


def test_pika_needs_this():
    """If one of these fails, pika has corrected it: then the patch can go."""
    double = struct.pack(">cd", b"d", 1.5)

    assert pika_patches._decode(double, 0) == (1, 9)
    with pytest.raises(pika.exceptions.UnsupportedAMQPFieldException):
        pika_patches._encode([], 1.5)
    with pytest.raises((OverflowError, ValueError, OSError)):
        pika_patches._decode(struct.pack(">cQ", b"T", 2**62), 0)


@pytest.mark.parametrize("what", ["reset", "no descriptor"])
def test_socket_that_fails_while_it_connects_is_a_failed_attempt(settings, monkeypatch, what):
    """The I/O thread goes on, so the publisher is connected at the next attempt."""
    failures = []

    def fail(*_):
        monkeypatch.undo()
        failures.append(what)
        raise OSError(errno.ENOTCONN if what == "reset" else errno.EMFILE, "planted")

    with Publisher(settings) as publisher:
        monkeypatch.setattr(
            *{
                "reset": (socket.socket, "getpeername", fail),
                "no descriptor": (pika.tcp_socket_opts, "set_sock_opts", fail),
            }[what],
            raising=False,
        )
        publisher.connection.call(lambda: publisher.connection.reconnect(ConnectionLost("cut")))
        wait_for(lambda: failures and publisher.connection.is_open)
        assert publisher.connection.reconnects == 1

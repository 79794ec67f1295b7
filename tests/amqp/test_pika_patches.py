"""Header values arrive unchanged, also those that pika alone would change."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.amqp import pika_patches

plain = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(allow_nan=False)
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


def test_pika_needs_this():
    """If one of these fails, pika has corrected it: then the patch can go."""
    double = struct.pack(">cd", b"d", 1.5)

    assert pika_patches._decode(double, 0) == (1, 9)
    with pytest.raises(pika.exceptions.UnsupportedAMQPFieldException):
        pika_patches._encode([], 1.5)
    with pytest.raises((OverflowError, ValueError, OSError)):
        pika_patches._decode(struct.pack(">cQ", b"T", 2**62), 0)

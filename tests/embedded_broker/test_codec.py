"""AMQP's values and tables as bytes."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.embedded_broker import codec

SHORT_TEXT = st.text(max_size=60)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=50)
    | st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
    | st.integers(-(2**31), 2**31 - 1).map(lambda number: Decimal(number).scaleb(-2))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SHORT_TEXT, inner, max_size=4),
    max_leaves=15,
)
TABLES = st.dictionaries(SHORT_TEXT, VALUES, max_size=6)


@given(TABLES)
def test_a_table_round_trips(table):
    """Reading an encoded table returns the same table and the offset of its end."""
    encoded = codec.table(table)

    assert codec.read_table(encoded + b"more", 0) == (table, len(encoded))


@given(TABLES, st.data())
def test_a_table_cut_short_is_malformed(table, data):
    """Every proper prefix of an encoded table raises Malformed."""
    encoded = codec.table(table)
    end = data.draw(st.integers(0, len(encoded) - 1))

    with pytest.raises(codec.Malformed):
        codec.read_table(encoded[:end], 0)


@given(st.binary(max_size=60))
def test_random_bytes_are_a_table_or_malformed(data):
    """Reading bytes of a client raises no other error."""
    with contextlib.suppress(codec.Malformed):
        codec.read_table(codec.long_bytes(data), 0)


@given(TABLES)
def test_encoded_fields_keep_their_bytes(table):
    """A table that is built again from its encoded fields has the same bytes."""
    encoded = codec.table(table)

    assert codec.table(codec.encoded_fields(encoded[4:])) == encoded


def test_deep_nesting_is_malformed():
    """Tables in tables are limited, so that they cannot exhaust the stack."""
    table = {}
    for _ in range(codec.MAX_NESTING + 2):
        table = {"inner": table}

    with pytest.raises(codec.Malformed, match="nested"):
        codec.read_table(codec.table(table), 0)


def test_a_long_short_string_is_malformed():
    """A short string has at most 255 bytes."""
    with pytest.raises(codec.Malformed, match="255"):
        codec.short_text("ä" * 128)

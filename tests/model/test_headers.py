"""A copy of a message keeps the headers that do no harm, within one frame."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap import stage
from mousetrap.errors import SettingsError
from mousetrap.model.headers import (
    DROPPED,
    MAX_DROPPED,
    MAX_FOREIGN_HEADERS,
    MIN_REASON,
    REASON,
    ROUTED,
    TRACE_HEADERS,
    TRACEBACK,
    carried,
    cut,
    entry_size,
    fit,
    kept_headers,
    unsendable,
)
from mousetrap.model.message import Message


def arriving(**headers):
    """Return the message that arrives with *headers*."""
    return Message.from_wire(
        b"1",
        SimpleNamespace(
            message_id="id",
            headers=headers,
            timestamp=0,
            correlation_id=None,
            content_encoding=None,
        ),
    )


def size_of(headers):
    return sum(entry_size(*each) for each in headers.items())


@pytest.mark.parametrize("name", ["CC", "BCC", "x-deduplication-header"])
def test_routing_headers_are_shown_and_never_sent_again(name):
    """They have done their work when the message arrives; a copy shows them in a header of ours."""
    message = arriving(**{name: ["elsewhere"], "tenant": "x"})

    kept = kept_headers(message.headers)

    assert name not in message.wire_headers()
    assert kept == {"tenant": "x", ROUTED: {name: ["elsewhere"]}}
    assert arriving(**kept).headers[ROUTED] == {name: ["elsewhere"]}


def test_routing_headers_of_a_new_message_are_sent():
    """A program may send its own message to several queues."""
    assert Message(1, headers={"CC": ["also"]}).wire_headers()["CC"] == ["also"]


def test_kept_headers_names_what_amqp_cannot_encode():
    """What can be made in Python but not sent is left out, by name."""
    headers = {"count": 2**63, "deep": {"list": [2**64 - 1]}, "tenant": "x", b"\xff": b"\xff"}

    kept = kept_headers(headers)

    dropped = "values that AMQP cannot encode: count, deep"
    assert kept == {"tenant": "x", b"\xff": b"\xff", DROPPED: dropped}


def test_kept_headers_drops_the_largest_when_all_would_not_fit_one_frame():
    """A frame that is too large would end the connection at every try."""
    kept = kept_headers({"book": "漢" * (MAX_FOREIGN_HEADERS // 3), "tenant": "x"})

    assert kept == {"tenant": "x", DROPPED: "values that would not fit one frame: book"}


@given(
    st.dictionaries(
        st.text(max_size=60),
        st.text() | st.integers() | st.lists(st.booleans()),
    ),
    st.integers(0, 400),
)
def test_fit_keeps_within_its_limit(headers, limit):
    """Counted in encoded bytes; only the note about what was dropped comes on top."""
    kept = fit({each: value for each, value in headers.items() if entry_size(each, value)}, limit)
    note = kept.pop(DROPPED, "")

    assert size_of(kept) <= limit
    assert len(note.encode()) <= MAX_DROPPED


def test_fit_drops_other_headers_first_then_the_traceback_then_cuts_the_reason():
    """The reason of a dead letter is the last to go, and never goes entirely."""
    ours = {REASON: "é" * 500, TRACEBACK: "t" * 900}
    headers = {"large": "x" * 500, "small": "y", **ours}

    assert fit(headers, size_of(headers)) == headers
    assert fit(headers, size_of(headers) - 1).keys() == {"small", *ours, DROPPED}
    assert fit(headers, size_of(ours)).keys() == {*ours, DROPPED}
    assert fit(headers, size_of(ours) - 1).keys() == {REASON, DROPPED}
    assert fit(headers, 0)[REASON] == "é" * (MIN_REASON // 2)


UNSENDABLE = [math.nan, {"in": [-math.inf]}, 2**63, -(2**63) - 1,
              Decimal("NaN"), Decimal("Infinity"), Decimal(2**31),
              Decimal("1e300"), Decimal("1e-256"), "\udcff", {"in": [object()]}, {"k" * 256: 1},
              {1: 1}, {"\udcff": 1}, bytearray(b"x"), datetime(1969, 1, 1, tzinfo=UTC), (1,), {1},
              ]  # fmt: skip


@pytest.mark.parametrize("value", UNSENDABLE, ids=lambda value: type(value).__name__)
def test_unsendable_names_a_header_that_amqp_has_no_form_for(value):
    """So that the error can say which one."""
    assert unsendable({"fine": 1, "bad": value}) == "bad"


def test_unsendable_accepts_a_table_without_end():
    """A table that contains itself is an error of the caller, not of the I/O thread."""
    table: dict[str, object] = {}
    table["self"] = table

    assert unsendable({"bad": table}) == "bad"


@given(st.text(st.characters()), st.integers(0, 50), st.booleans())
def test_cut_counts_bytes(text, limit, keep_end):
    """The result is valid UTF-8 and within the limit, also where a character was cut in two."""
    found = cut(text, limit, keep_end=keep_end)

    assert len(found.encode()) <= limit


# ---- headers that go from a message to its outputs -----------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from([*TRACE_HEADERS, "a", "b", "CC", "x-death", REASON]),
        st.text() | st.integers() | st.just(object()),
    ),
    st.lists(st.sampled_from(["a", "b", "c"])),
)
def test_carried_headers_are_those_for_traces_and_those_named(headers, names):
    """And only if the message has them, with a value that AMQP can send."""
    found = carried(headers, names)

    wanted = {name for name in (*TRACE_HEADERS, *names) if name in headers}
    assert found.keys() - {DROPPED} <= wanted
    assert all(found[name] == headers[name] for name in found.keys() & wanted)


@pytest.mark.parametrize(
    "name",
    ["CC", "BCC", "x-deduplication-header", "x-death", "x-first-death-queue", "x-delivery-count",
     "mousetrap-attempt", "mousetrap-anything", "mousetrap-routed", "", "é" * 128, 5, None],
)  # fmt: skip
def test_header_that_cannot_be_passed_on_is_refused(name):
    """It says what happened to one message, or sends it to further queues."""
    with pytest.raises(SettingsError, match="carry has"):
        stage(reads="a", carry=["tenant", name])(print)


@pytest.mark.parametrize("names", ["tenant", 5])
def test_carry_that_is_no_list_is_refused(names):
    """A single text would be taken as its letters."""
    with pytest.raises(SettingsError, match=r"give a list of header names, as \["):
        stage(reads="a", carry=names)(print)

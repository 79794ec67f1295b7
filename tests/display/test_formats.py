"""Numbers, times, sizes and long names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.display import formats
from mousetrap.display.formats import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ["message"], "0 messages"),
        (1, ["message"], "1 message"),
        (2000, ["message"], "2,000 messages"),
        (1, ["process", "processes"], "1 process"),
        (2, ["process", "processes"], "2 processes"),
    ],
)
def test_what_is_counted_is_singular_or_plural(number, words, expected):
    assert counted(number, *words) == expected


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (formats.number, 0, "0"),
        (formats.number, 0.0, "0"),
        (formats.number, 1234, "1,234"),
        (formats.number, 1234.5, "1,234"),
        (formats.number, 0.1234, "0.123"),
        (formats.number, 12.0, "12"),
        (formats.number, 12.34, "12.3"),
        (formats.number, float("nan"), "–"),
        (formats.number, float("inf"), "–"),
        (formats.duration, 0, "0 µs"),
        (formats.duration, 0.00048, "480 µs"),
        (formats.duration, 0.0009996, "1 ms"),
        (formats.duration, 0.012, "12 ms"),
        (formats.duration, 0.0956, "95.6 ms"),
        (formats.duration, 0.9996, "1 s"),
        (formats.duration, 1.5, "1.5 s"),
        (formats.duration, 99.96, "1.67 min"),
        (formats.duration, 192, "3.2 min"),
        (formats.duration, 9000, "2.5 h"),
        (formats.age, -3, "0 s"),
        (formats.age, 12.4, "12 s"),
        (formats.age, 180, "3 min"),
        (formats.age, 9000, "2.5 h"),
        (formats.age, 345_600, "4 days"),
        (formats.size, 0, "0 B"),
        (formats.size, 250, "250 B"),
        (formats.size, 999.6, "1 kB"),
        (formats.size, 4096, "4.1 kB"),
        (formats.size, 1_200_000, "1.2 MB"),
        (formats.size, 5e15, "5,000 TB"),
        (formats.rate, 1234, "1,234 per s"),
        (formats.rate, 0, "0 per s"),
    ],
)
def test_a_value_as_text(function, value, expected):
    assert function(value) == expected


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (967, 1500, "64 %"),
        (1500, 1500, "100 %"),
        (0, 1500, "0 %"),
        (0, 0, "–"),
        (1499, 1500, "99.9 %"),
        (1_999, 2_000, "99.95 %"),
        (1, 1_000_000, "0.0001 %"),
        (999_999_999_999, 1_000_000_000_000, "> 99.999999 %"),
        (1, 1_000_000_000_000, "< 0.000001 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_none(part, whole, expected):
    assert formats.share(part, whole) == expected


@given(st.text(), st.integers(3, 60))
def test_a_shortened_name_fits_and_keeps_its_ends(name, width):
    shown = formats.shortened(name, width)

    assert len(shown) <= width
    assert (shown == name) == (len(name) <= width)
    if len(name) > width:
        head, tail = shown.split("…", 1) if "…" not in name else (shown[0], shown[-1])
        assert name.startswith(head)
        assert name.endswith(tail)


def test_a_name_is_cut_in_its_middle():
    assert formats.shortened("customer_order_enriched_price_v2", 20) == "customer_…d_price_v2"

"""Sparklines: bars in text, a line in a picture."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mousetrap.display.sparkline import BARS, bars

counts = st.lists(st.integers(0, 10**6), max_size=80)


def test_bars_show_a_single_message():
    """Only zero is the lowest bar, so one message is visible beside a thousand."""
    assert bars([0, 1, 1000]) == "▁▂█"
    assert bars([0, 0]) == "▁▁"
    assert bars([]) == ""


@given(counts, st.integers(1, 30))
def test_bars_are_at_most_as_many_as_wanted(values, width):
    """Neighbours are added up when there are more values than bars; the largest sum is full."""
    shown = bars(values, width)

    assert len(shown) <= width
    assert set(shown) <= set(BARS)
    assert (BARS[-1] in shown) == any(values)
    if len(values) <= width:
        assert [bar == BARS[0] for bar in shown] == [value == 0 for value in values]

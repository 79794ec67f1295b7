"""Waiting between two tries: longer each time, bounded, and different for each worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mousetrap.model.backoff import backoff


@given(st.integers(-10, 10**9), st.floats(0.001, 10), st.floats(0.001, 100))
def test_backoff_jitters_between_half_the_ceiling_and_the_ceiling(failures, first, cap):
    """The wait doubles up to the cap, is never below half of it, and never overflows."""
    ceiling = min(cap, first * 2 ** (min(max(failures, 1), 30) - 1))

    assert ceiling / 2 <= backoff(failures, first=first, cap=cap) <= ceiling


def test_backoff_differs_from_worker_to_worker():
    """A hundred workers do not reconnect at the same instant."""
    assert len({backoff(5) for _ in range(100)}) > 90

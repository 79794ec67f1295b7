"""Rates, histories and ages from counts alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.notebook.rate import HISTORY, ArrivalHistory, RateMeter


def test_rate_is_how_fast_a_count_grows():
    """The rate is over five seconds, the average over the time in which the count grew."""
    meter = RateMeter()
    for n in range(101):  # ten seconds at 20 a second, measured every tenth of a second
        meter.add(2 * n, 1000 + n / 10)
    for n in range(1, 30):  # then nothing more
        meter.add(200, 1010 + n / 10)

    assert meter.average == pytest.approx(20, rel=0.02)
    assert meter.rate == pytest.approx(42 / 5, rel=0.1)


@given(st.lists(st.tuples(st.floats(0.05, 9), st.integers(0, 500)), min_size=1, max_size=60))
def test_history_shows_all_that_came_in_the_last_minute(measurements):
    """However far apart the measurements are, the history has all growth, in sixty seconds."""
    meter, now, count = RateMeter(), 500.0, 7
    meter.add(count, now)
    for pause, grown in measurements:
        now, count = now + pause, count + grown
        meter.add(count, now)

    minute = meter.history(is_finished=True)
    assert len(minute) in (0, HISTORY)
    assert all(each >= 0 for each in minute)
    if now < 500 + HISTORY - 1:
        assert sum(minute) == pytest.approx(count - 7, abs=0.1 * len(minute))


def test_history_of_a_constant_count_is_empty():
    """A count that does not grow has no history, so its display needs no update."""
    meter = RateMeter()
    for n in range(400):
        meter.add(7, 100 + n / 4)
        assert (meter.rate, meter.history(is_finished=False)) == (0.0, ())
    meter.add(8, 201)

    assert len(meter.history(is_finished=True)) == HISTORY


def test_history_of_steady_growth_is_even():
    """Steady growth gives an even history, though measurements and buckets are not in step."""
    meter = RateMeter()
    for n in range(40):
        meter.add(30 * n, 2000 + 0.3 * n)

    minute = meter.history(is_finished=False)[-10:]
    assert max(minute) - min(minute) <= 0.1 * max(minute)


@pytest.mark.parametrize(
    ("rates", "steady"),
    [
        ([50] * 9, 50),
        ([50] * 3, 0),  # too short
        ([2] * 9, 0),  # too few to tell
        ([10, 20, 30, 40, 50, 60, 70, 80, 90], 0),  # it grows
        ([50] * 5 + [0] * 4, 0),  # it has stopped
    ],
)
def test_rate_is_steady_if_the_halves_of_the_last_seconds_agree(rates, steady):
    """Only then the time that is left can be told."""
    meter, count = RateMeter(), 0
    for now, grown in enumerate([0, *rates], start=300):
        count += grown
        meter.add(count, float(now))

    assert meter.steady == pytest.approx(steady, rel=0.1)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=50),
)
def test_arrivals_give_the_age_of_the_oldest_message(steps):
    """From counts alone the age is right to a second, for a queue that keeps its order."""
    arrivals, queue, settled = ArrivalHistory(), [], 0
    for now, (come, gone) in enumerate(steps):
        queue += [now] * come
        settled += len(queue[:gone])
        del queue[:gone]
        arrivals.add(settled, len(queue), float(now))

        expected = "" if not queue else f"{now - queue[0]:.0f} s"
        assert arrivals.oldest(settled, float(now)).removeprefix("> ") == expected


def test_arrivals_say_at_least_when_they_came_late():
    """A message that was there at the first measurement may be older."""
    arrivals = ArrivalHistory()
    arrivals.add(10, 3, 100.0)

    assert arrivals.oldest(10, 107.0) == "> 7 s"
    assert arrivals.oldest(13, 107.0) == ""


def test_arrivals_forget_what_was_counted_twice():
    """A message that moved on between two counts was in both; the next measurement corrects it."""
    arrivals = ArrivalHistory()
    for now, there in ((0.0, 5), (1.0, 0), (2.0, 0), (3.0, 1)):
        arrivals.add(0 if now == 0 else 4, there, now)

    assert arrivals.oldest(4, 5.0) == "2 s"

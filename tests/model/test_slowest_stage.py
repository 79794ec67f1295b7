"""Which stage is named as the slowest, and which is not."""

from __future__ import annotations

from math import inf

import pytest

from mousetrap.model.slowest_stage import (
    CLEARLY,
    FEWEST,
    seconds_measured,
    seconds_under_way,
    sentence,
    slowest_of,
)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        ({}, None),
        ({"only": 9.0}, None),
        ({"price": 1.0, "invoice": 2.0}, "invoice"),
        ({"price": 1.0, "invoice": CLEARLY}, "invoice"),
        ({"price": 1.0, "invoice": CLEARLY - 0.01}, None),
        ({"price": 0.0, "invoice": 0.0}, None),
        ({"price": 0.0, "invoice": 0.1}, "invoice"),
        ({"price": inf, "invoice": 5.0, "mail": 5.0}, "price"),
        ({"price": inf, "invoice": inf, "mail": 5.0}, None),
    ],
)
def test_a_stage_is_named_if_a_message_spends_clearly_longer_in_it(seconds, name):
    """Not if there is only one stage, or if the difference could be chance."""
    found = slowest_of(seconds)

    assert (found and found.name) == name


def test_time_of_messages_under_way_follows_from_their_number_and_rate():
    """Little's law; too few say nothing, and what settles none holds all of them."""
    assert seconds_under_way(300, 150.0) == 2.0
    assert seconds_under_way(FEWEST - 1, 0.5) == 0.0
    assert seconds_under_way(FEWEST, 0.0) == inf


def test_time_of_settled_messages_is_that_of_the_summary():
    """The median of the wait and that of the handling; a stage that handled nothing has none."""
    none = {"wait": {}, "handling": {}}
    price = {"wait": {"p50": 0.5}, "handling": {"p50": 0.25}}
    own = {"wait": {}, "handling": {"p50": 0.25}}  # when its messages were queued is not known

    assert seconds_measured({"price": price, "none": none, "own": own}) == {
        "price": 0.75, "own": 0.25,
    }  # fmt: skip


def test_sentence_says_which_stage_and_how_long():
    """It is one line, whatever the name is; nothing if there is nothing to compare."""
    assert sentence({"one": 1.0}) == ""
    assert sentence({"a": 1.0, "b": 1.0}) == "No stage is clearly the slowest"
    assert sentence({"a\n": 0.5, "b": 0.1}) == (
        "Slowest stage: a ⏎ , 500 ms per message (wait and handling)"
    )
    assert sentence({"a": inf, "b": 0.1}) == "Slowest stage: a, which settles no message now"

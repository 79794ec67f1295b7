"""What a batch may be, the prefetch that it needs, and which batch is handled here."""

from __future__ import annotations

import math

import pytest

from mousetrap import Batch, FailedItems
from mousetrap.errors import SettingsError
from mousetrap.model.batch import (
    MAX_PREFETCH,
    MAX_WITHIN,
    HandledTogether,
    current_batch,
)
from mousetrap.model.message import Message, current_message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "batch size 0"),
        ({"size": 2.0}, "batch size 2.0"),
        ({"size": True}, "batch size True"),
        ({"size": MAX_PREFETCH + 1}, "1..65535"),
        ({"size": 5, "within": -1}, "within -1 s"),
        ({"size": 5, "within": math.nan}, "within nan s"),
        ({"size": 5, "within": MAX_WITHIN + 1}, "the broker waits only so long for acks"),
        ({"size": 5, "within": "2"}, "within '2' s"),
        ({"size": 5, "max_bytes": 0}, "max_bytes 0"),
        ({"size": 5, "max_bytes": 1e6}, "max_bytes 1000000.0"),
    ],
)
def test_batch_refuses_what_cannot_work(arguments, words):
    """The text names the value and what is allowed."""
    with pytest.raises(SettingsError, match=words):
        Batch(**arguments)


@pytest.mark.parametrize(
    ("size", "concurrency", "prefetch"), [(100, 1, 200), (100, 3, 600), (40_000, 1, MAX_PREFETCH)]
)
def test_prefetch_covers_two_batches_for_each_thread(size, concurrency, prefetch):
    """The next batch fills while one is handled; a broker knows no more than `MAX_PREFETCH`."""
    batch = Batch(size)

    assert batch.prefetch(concurrency) == prefetch
    batch.check_prefetch(None, concurrency)
    batch.check_prefetch(size * concurrency, concurrency)


@pytest.mark.parametrize(
    ("prefetch", "concurrency", "words"),
    [
        (99, 1, "prefetch 99: a batch of 100 needs at least 100"),
        (199, 2, "2 x a batch of 100 needs at least 200"),
        (None, 656, "a broker delivers at most 65535"),
    ],
)
def test_prefetch_with_which_no_batch_fills_is_refused(prefetch, concurrency, words):
    """The text says which prefetch is needed."""
    with pytest.raises(SettingsError, match=words):
        Batch(100).check_prefetch(prefetch, concurrency)


def test_current_batch_is_that_of_the_innermost_handling():
    """None outside, and None inside where a single message is handled."""
    messages = [Message(1), Message(2)]

    assert current_batch() is None
    with HandledTogether(messages):
        assert current_batch() is messages
        token = current_message.set(Message(3))
        assert current_batch() is None
        current_message.reset(token)
        assert current_batch() is messages
    assert current_batch() is None


@pytest.mark.parametrize(
    ("errors", "kind", "words"),
    [
        ([ValueError()], TypeError, "takes a dict"),
        ({-1: ValueError()}, ValueError, "position -1"),
        ({0: "no luck"}, TypeError, r"position 0 has a str: give an exception, as in \{0:"),
        ({"0": ValueError()}, TypeError, "str"),
    ],
)
def test_failed_items_takes_positions_and_exceptions(errors, kind, words):
    """Anything else is refused where it is raised."""
    with pytest.raises(kind, match=words):
        FailedItems(errors)

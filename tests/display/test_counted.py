"""Numbers with what they count."""

from __future__ import annotations

import pytest

from mousetrap.display.counted import counted


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

"""Which bindings of an exchange a message matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.embedded_broker.exchange import headers_match, topic_matches

WORDS = st.lists(st.sampled_from("ab"), max_size=5)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=5)


def matches(pattern, words):
    """Match by the definition: try every number of words for a ``#``."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


@given(PATTERNS, WORDS)
def test_topic_matches_agrees_with_the_definition(pattern, words):
    """``*`` matches one word and ``#`` any number of words, for every pattern and key."""
    assert topic_matches(".".join(pattern), tuple(words)) == matches(pattern, words)


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({"a": None}, {"a": "any value"}, True),
        ({"a": 1}, {"a": True}, False),  # a boolean equals a number in Python, and not in AMQP
        ({"x-a": 1}, {}, True),  # ignored without -with-x
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
    ],
)
def test_headers_match(arguments, headers, expected):
    """All or any of the arguments must be among the headers, with equal values."""
    assert headers_match(arguments, headers) == expected

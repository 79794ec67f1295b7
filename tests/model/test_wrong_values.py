"""A wrong value anywhere in a body: a reason without it, for every type in the tables."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import test_pydantic_types
import test_record_unions
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import encode

TYPES = [
    *test_pydantic_types.ROUND_TRIPS, *test_record_unions.ROUND_TRIPS,
    (test_pydantic_types.Ordered, test_pydantic_types.Ordered(1, 2)),
]  # fmt: skip
WRONG = ["hunter2", "", 4711, -4711, 4711.5, True, None, [], ["hunter2"], {}, {"key": "hunter2"}]


def mutations(data):
    """Yield copies of *data*: with each wrong value in each place, and without each key or item."""
    yield from WRONG
    if isinstance(data, (list, dict)):
        for place in data if isinstance(data, dict) else range(len(data)):
            for new in mutations(data[place]):
                copy = data.copy()
                copy[place] = new
                yield copy
            copy = data.copy()
            del copy[place]
            yield copy
    if isinstance(data, dict):
        yield {**data, "key": "hunter2"}


@pytest.mark.parametrize(("type", "value"), TYPES, ids=range(len(TYPES)))
def test_reason_never_quotes_a_wrong_value(type, value):
    """Whatever is wrong, and wherever."""
    reasons, are_hidden = [], []
    for data in mutations(json.loads(encode(value) or b"null")):
        try:
            decode(encode([data])[1:-1], type)
        except UndecodableMessage as error:
            reasons.append(str(error))
            are_hidden.append(error.__suppress_context__)
    assert reasons
    assert all(are_hidden)  # else a traceback shows pydantic's own error, with the value
    assert [e for e in reasons if not e.startswith("wrong type: ")] == []
    assert [each for each in reasons if "hunter2" in each or "4711" in each] == []


@examples(max_examples=30)
@given(st.data())
@pytest.mark.parametrize(("type", "value"), TYPES[::4], ids=range(0, len(TYPES), 4))
def test_damaged_body_is_decoded_or_undecodable(type, value, data):
    """No byte of it makes another error than the one that a worker expects."""
    body = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with suppress(UndecodableMessage):
        decode(bytes(body), type)

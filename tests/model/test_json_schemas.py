"""The JSON Schemas of types: every value that is sent is valid by the schema of its type."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import test_pydantic_types
import test_record_unions
from support import describable

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import encode
from mousetrap.model.json_schemas import JsonSchemas

VALUES = [
    *test_pydantic_types.ROUND_TRIPS, *test_record_unions.ROUND_TRIPS, (int, 5), (str, "a"),
    (float, 1.5), (bool, True), (list[int], [1]), (dict[str, int], {"a": 1}), (Any, [None]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_what_is_sent_is_of_its_schema(number):
    """The body of each value in the tables of types is valid by the schema of its type.

    Only pydantic's `Json` is not: its schema is that of the value inside of the text.
    """
    type, value = VALUES[number]
    schemas = JsonSchemas()

    schema = schemas.of(type, is_sent=True)

    root = {"allOf": [schema], "components": {"schemas": schemas.components}}
    jsonschema.Draft7Validator.check_schema(root)
    assert errors(root, json.loads(encode(value))) == []


def errors(root, body):
    found = jsonschema.Draft7Validator(root).iter_errors(body)
    return [each.message for each in found if "'[1]' is not of type 'array'" not in each.message]


@pytest.mark.parametrize(
    ("type", "body"),
    [
        (describable.Score, {"url": "/"}),
        (describable.Score, {"url": "/", "theScore": -1}),
        (describable.Visit, {"url": "/", "size": [1, 2, 3], "payment": {"type": "Paid"}}),
        (describable.Visit, {"url": "/", "size": [1, 2], "payment": {"type": "Other"}}),
        (list[int], ["a"]),
    ],
)
def test_what_cannot_be_read_is_not_of_the_schema(type, body):
    """A missing field, a value out of bounds, a tuple that is too long, an unknown tag."""
    schemas = JsonSchemas()
    schema = schemas.of(type, is_sent=False)
    root = {"allOf": [schema], "components": {"schemas": schemas.components}}

    assert errors(root, body) != []
    with pytest.raises(UndecodableMessage):
        decode(encode(body), type)


def test_most_types_have_a_schema():
    """The schema of hardly any type of the tables is empty, which any value would fit."""
    empty = [str(type) for type, _ in VALUES if JsonSchemas().of(type, is_sent=True) == {}]

    assert len(empty) < len(VALUES) / 10, empty


def test_classes_of_one_name_keep_their_own_schemas():
    """Two models, of different modules or as read and as sent, do not replace each other."""
    schemas = JsonSchemas()

    read = schemas.of(describable.Score, is_sent=False)
    sent = schemas.of(list[describable.Score], is_sent=True)
    again = schemas.of(list[describable.Score], is_sent=True)

    assert "is_high" not in json.dumps(read)
    assert sent == again
    assert schemas.components["Score"]["properties"]["is_high"]["type"] == "boolean"
    assert sorted(schemas.components) == ["Score"]

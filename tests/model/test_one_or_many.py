"""One value is one message, also if it can be gone through; it is never sent in its pieces."""

from __future__ import annotations

import array
import collections
import io
import json
import sqlite3
import time
import types
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import attr
import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest

from mousetrap.model.encoding import encode
from mousetrap.model.one_or_many import is_many, many, outputs_of

FRAME = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
Point = collections.namedtuple("Point", "x y")


class Text(str):
    __slots__ = ()


@dataclass
class Pair:
    x: int = 1

    def __iter__(self):
        return iter([self.x])


@attr.define
class Classic:
    x: int = 1

    def __iter__(self):
        return iter([self.x])


class Struct(msgspec.Struct):
    x: int = 1

    def __iter__(self):
        return iter([self.x])


class Model(pydantic.BaseModel):
    x: int = 1


@dataclass
class OwnIterator(Pair):
    """A record that is its own iterator."""

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration


class Moment(datetime):
    pass


class Length(timedelta):
    pass


class Money(Decimal):
    pass


class Frame:
    """A data frame of another library: its columns can be gone through."""

    def __init__(self, method):
        setattr(self, method, list)

    def __iter__(self):
        return iter(["a", "b"])


def row():
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    return connection.execute("SELECT 1 AS a, 2 AS b").fetchone()


ONE = {  # what it is as JSON
    "str": ("ab", "ab"), "str subclass": (Text("ab"), "ab"),
    "UserString": (collections.UserString("ab"), "ab"), "dict": ({"a": 1}, {"a": 1}),
    "mapping proxy": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "UserDict": (collections.UserDict(a=1), {"a": 1}),
    "ChainMap": (collections.ChainMap({"a": 1}), {"a": 1}),
    "Counter": (collections.Counter("a"), {"a": 1}), "set": ({1}, [1]),
    "frozenset": (frozenset([1]), [1]), "named tuple": (Point(1, 2), [1, 2]),
    "struct_time": (time.gmtime(0), list(time.gmtime(0))), "dataclass": (Pair(), {"x": 1}),
    "attrs": (Classic(), {"x": 1}), "Struct": (Struct(), {"x": 1}), "pydantic": (Model(), {"x": 1}),
    "sqlite3.Row": (row(), {"a": 1, "b": 2}), "numpy.float64": (np.float64(1.5), 1.5),
    "number": (5, 5), "its own iterator": (OwnIterator(), {"x": 1}),
    "datetime subclass": (Moment(2026, 1, 2), "2026-01-02T00:00:00"),
    "pandas.Timestamp": (pd.Timestamp(5, tz="UTC"), "1970-01-01T00:00:00.000000005+00:00"),
    "pandas.Timedelta": (pd.Timedelta(seconds=1), "PT1S"),
    "timedelta subclass": (Length(1), "P1D"), "Decimal subclass": (Money("1.50"), "1.50"),
    "records of a frame": ({"t": FRAME.assign(t=pd.Timestamp(0)).to_dict("records")},
                           {"t": [{"a": a, "b": b, "t": "1970-01-01T00:00:00"}
                                  for a, b in ((1, 3), (2, 4))]}),
}  # fmt: skip
BYTES = {"bytes": b"ab", "bytearray": bytearray(b"ab"), "memoryview": memoryview(b"ab")}
REFUSED = {  # what the error says to send
    "pandas.DataFrame": (FRAME, 'value.to_dict("records")'),
    "pandas.Series": (FRAME["a"], "value.to_list()"),
    "pandas.Index": (FRAME.index, "value.to_list()"),
    "numpy.array": (np.array([1, 2]), "value.tolist()"),
    "numpy.int64": (np.int64(1), "value.tolist()"),
    "numpy.matrix": (np.ones((2, 2)), "value.tolist()"),
    "array.array": (array.array("d", [1.0]), "value.tolist()"),
    "as polars has it": (Frame("to_dicts"), "value.to_dicts()"),
    "as pyarrow has it": (Frame("to_pylist"), "value.to_pylist()"),
    "as a scalar of pyarrow": (Frame("as_py"), "value.as_py()"),
    "as xarray has it": (Frame("to_dict"), "value.to_dict()"),
    "lazy": (Frame("collect"), "value.collect()"),
    "view of an array": (memoryview(array.array("i", [1])), "value.tolist()"),
    "Path": (Path("a"), "str(value)"), "NaT": (pd.NaT, "plain values"),
    "tuple as a key": ({(1, 2): 1}, "as a key of a mapping: make it text"),
    "None as a key": ({None: 1}, "as a key of a mapping: make it text"),
    "deque": (collections.deque([1]), "list(value)"),
    "a class of one's own": (Frame("nothing"), "list(value)"), "object": (object(), "plain values"),
}  # fmt: skip
MANY = {
    "list": [1, 2], "tuple": (1, 2), "range": range(1, 3), "generator": (n for n in (1, 2)),
    "iterator": iter({1: 0, 2: 0}), "map": map(int, "12"), "zip": zip([1], [2], strict=True),
    "keys": {1: 0, 2: 0}.keys(), "values": {1: 0}.values(), "items": {1: 0}.items(),
    "rows of a frame": FRAME.itertuples(), "enumerate": enumerate("ab"),
    "cursor": sqlite3.connect(":memory:").execute("SELECT 1"), "file": io.StringIO("1\n2\n"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "plain"), ONE.values(), ids=ONE)
def test_one_value_is_one_body(value, plain):
    """All of it is in the one body."""
    assert not is_many(value)
    assert json.loads(encode(value)) == plain
    assert list(outputs_of(value)) == [value]
    with pytest.raises(TypeError, match=r"a \w+ is one: give \[value\]"):
        many(value, "send_many")


@pytest.mark.parametrize("value", BYTES.values(), ids=BYTES)
def test_a_byte_string_of_any_type_is_the_body(value):
    """As `bytes` always was."""
    assert not is_many(value)
    assert encode(value) == b"ab"


@pytest.mark.parametrize(("value", "advice"), REFUSED.values(), ids=REFUSED)
def test_what_json_cannot_represent_is_refused_with_a_way_out(value, advice):
    """Its pieces are not sent in its place."""
    assert not is_many(value)
    assert [each is value for each in outputs_of(value)] == [True]
    with pytest.raises(TypeError) as caught:
        encode(value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("values", MANY.values(), ids=MANY)
def test_lists_and_iterators_are_many(values):
    """Each of their values is a message."""
    assert is_many(values)
    assert many(values, "send_many") is values


def test_outputs_of_a_handler():
    """A returned list is one output, as in the tutorial; an iterator is many; None is none."""
    assert list(outputs_of([1, 2])) == [[1, 2]]
    assert list(outputs_of((1, 2))) == [(1, 2)]
    assert list(outputs_of(map(int, "12"))) == [1, 2]
    assert list(outputs_of(None)) == []

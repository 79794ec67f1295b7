"""Decoding a body: which defect is reported, and which types are refused before any message."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import check_decodable, decode

T = TypeVar("T")


class Plain:
    pass


class Model(pydantic.BaseModel):
    n: int


@pydantic.dataclasses.dataclass
class ModelDataclass:
    n: int


@dataclass
class Point:
    x: int


@dataclass
class Size:
    y: int


@dataclass
class Box:
    points: list[Point]
    label: str | None = None
    lock: Any = field(default_factory=threading.Lock, init=False)
    handle: Plain = field(default_factory=Plain, init=False)


@dataclass
class Tree:
    below: list[Tree]


@dataclass
class Order:
    buyer: Model


@dataclass
class Orders:
    by_day: dict[str, list[Order]]


@dataclass
class Late:
    value: Missing  # noqa: F821 -- it cannot be evaluated, which is the subject


@dataclass
class Shapes:
    all: list[Point | Size]


@dataclass
class Of(Generic[T]):
    value: T


class Row(TypedDict):
    a: int


class BadRow(TypedDict):
    a: Plain


class Pair(NamedTuple):
    a: int
    b: Plain


class Struct(msgspec.Struct):
    a: int


class Cat(msgspec.Struct, tag=True):
    a: int


class Dog(msgspec.Struct, tag=True):
    a: int


class Colour(enum.Enum):
    RED = 1


class Counted(int):
    pass


DECODABLE = [
    (Any, b"[1]"), (None, b"null"), (object, b"1"), (dict, b"{}"), (list[int], b"[1]"),
    (tuple[int, str], b'[1, "a"]'), (set[int], b"[1]"), (Point, b'{"x": 1}'),
    (Point | None, b"null"), (Box, b'{"points": [{"x": 1}]}'), (Tree, b'{"below": []}'),
    (Of[int], b'{"value": 1}'), (Of, b'{"value": 1}'), (T, b"1"), (Row, b'{"a": 1}'),
    (Struct, b'{"a": 1}'), (Cat | Dog, b'{"type": "Dog", "a": 1}'), (Colour, b"1"),
    (Literal[1, "a"], b"1"), (datetime.datetime, b'"2026-01-01T00:00:00Z"'),
    (Annotated[int, msgspec.Meta(ge=0)], b"1"), (NewType("N", int), b"1"), (bytes, b'"YQ=="'),
    (Sequence[Point], b'[{"x": 1}]'), (Mapping[str, int], b'{"a": 1}'), (Iterable[int], b"[1]"),
    (int | list[int], b"1"), (float, b"1"), (Model, b'{"n": 1}'), (ModelDataclass, b'{"n": 1}'),
    (Order, b'{"buyer": {"n": 1}}'), (Orders, b'{"by_day": {"a": [{"buyer": {"n": 1}}]}}'),
    (Point | Size, b'{"y": 1}'), (Shapes, b'{"all": [{"x": 1}, {"y": 1}]}'),
    (Struct | Point, b'{"a": 1}'),
]  # fmt: skip

UNDECODABLE = [
    (Plain, "no JSON value can become Plain: use a dataclass"),
    (Plain | None, "become Plain"),
    (list[Plain], "become Plain"),
    (dict[str, Plain], "become Plain"),
    (tuple[int, Plain], "become Plain"),
    (Annotated[Plain, "words"], "become Plain"),
    (NewType("N2", Plain), "become Plain"),
    (Of[Plain], "Plain, the type of Of.value"),
    (BadRow, "Plain, the type of BadRow.a"),
    (Pair, "Plain, the type of Pair.b"),
    (Row | Point, "more than one dict-like"),
    (Late, r"name 'Missing' is not defined\): define that type above"),
    (Callable[[int], int], "become Callable"),
    (Iterator[int], "become Iterator"),
    (Counted, "become Counted"),
    (collections.OrderedDict, "become OrderedDict"),
    (collections.deque, "become deque"),
    (complex, "become complex"),
    (type, "become type"),
    (str | datetime.datetime, "more than one str-like"),
    (Annotated[int, {}], "unhashable"),
    ("int", "not supported"),
    (5, "not supported"),
]


@pytest.mark.parametrize(("type", "body"), DECODABLE, ids=[str(each[0]) for each in DECODABLE])
def test_check_decodable_allows_what_can_be_decoded(type, body):
    """The check refuses no type to which a body can be decoded."""
    check_decodable(type)
    decode(body, type)


@pytest.mark.parametrize(("type", "reason"), UNDECODABLE, ids=[str(e[0]) for e in UNDECODABLE])
def test_check_decodable_refuses_what_no_body_can_become(type, reason):
    """The error names the type and, where it is inside another one, its field."""
    with pytest.raises(TypeError, match=reason):
        check_decodable(type)


def test_check_decodable_leaves_fields_that_no_body_sets():
    """A field with ``init=False`` is the program's own and may have any type."""
    check_decodable(dataclasses.make_dataclass("D", [("n", int), ("p", Plain, field(init=False))]))


@pytest.mark.parametrize("type", [Any, Point, int, str, list[int], dict, Struct, Cat | Dog, bytes])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{bad", "not JSON: object keys must be strings at byte 1"),
        (b'{"x":', "not JSON: Input data was truncated at byte 5"),
        (b"5 6", "not JSON: trailing characters at byte 3"),
        (b"[1", "not JSON: Input data was truncated at byte 2"),
        (b"[1, 2}", "not JSON"),
        (b"{'x': 1}", "not JSON"),
        (b"   ", "not JSON"),
        (b'\xef\xbb\xbf{"x":1}', "not JSON: it begins with a byte order mark"),
        (b'"\xe9"', "not UTF-8"),
        (b'{"x": "\xe9"}', "not UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8, so not JSON: send JSON in UTF-8 at byte 0"),
        (b"\x1f\x8b\x08", "not UTF-8"),
        (b"1e999", "not usable JSON: Number out of range"),
    ],
)
def test_decode_tells_bad_json_and_bad_encoding_from_a_wrong_type(body, reason, type):
    """Whatever type is expected, the reason names the defect of the body."""
    with pytest.raises(UndecodableMessage, match=reason):
        decode(body, type)


@pytest.mark.parametrize(
    ("body", "type"), [(b"{}", int), (b'{"x": "1"}', Point), (b'["a"]', list[int]), (b"1", str)]
)
def test_decode_says_wrong_type_only_of_valid_json(body, type):
    """The body is JSON, and another one than the type needs."""
    with pytest.raises(UndecodableMessage, match=r"^wrong type: "):
        decode(body, type)


class Kind(enum.Enum):
    A = "a"


@dataclass
class Kinded:
    kind: Kind


class Tagged(msgspec.Struct, tag="tagged"):
    n: int = 0


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b'"secret"', Literal["a"]),
        (b'"secret - at `$.x`"', Literal["a"]),
        (b'{"kind": "secret"}', Kinded),
        (b"4711", Literal[1]),
        (b'{"type": "secret"}', Tagged),
    ],
)
def test_decode_quotes_no_value_of_the_body(body, type):
    """The reason of a dead letter is read in places where bodies must not be."""
    with pytest.raises(UndecodableMessage, match=r"wrong type: Invalid") as caught:
        decode(body, type)

    assert "secret" not in str(caught.value)
    assert "4711" not in str(caught.value)

"""Unions of dataclasses: an object becomes the class again that it was, or the union is refused."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, Generic, Literal, TypedDict, TypeVar

import attr
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import check_decodable, decode
from mousetrap.model.encoding import encode

T = TypeVar("T")


@dataclasses.dataclass
class Circle:
    radius: float


@dataclasses.dataclass
class Square:
    side: float
    colour: str = "red"


@dataclasses.dataclass
class Ring(Circle):
    inner: float = 0.0


@attr.define
class Star:
    points: int


class Box(msgspec.Struct, rename="camel"):
    box_depth: int


class Crate(msgspec.Struct, tag=True):
    radius: float


@dataclasses.dataclass
class Started:
    id: int
    kind: Literal["started"] = "started"


@dataclasses.dataclass
class Ended:
    id: int
    kind: Literal["ended", "killed"] = "ended"


@dataclasses.dataclass
class Drawing:
    shapes: list[Circle | Square]
    within: Drawing | Circle | None = None


@dataclasses.dataclass
class Layer(Generic[T]):
    top: T
    rest: dict[str, T | Ring]


class Frame(msgspec.Struct):
    drawing: Drawing | Box


class Sheet(TypedDict):
    shape: Circle | Square


SHAPES = [Circle(1.5), Square(2.0), Ring(1.0), Star(5), Box(3), Crate(1.0)]
ANY_SHAPE = Circle | Square | Ring | Star | Box | Crate
DRAWING = Drawing([Circle(1.0), Square(2.0)], Drawing([], Circle(1.0)))
ROUND_TRIPS = [
    *[(ANY_SHAPE, shape) for shape in SHAPES], (list[ANY_SHAPE], SHAPES),
    (list[Circle | Square | None], [None, Square(1)]), (Circle | Square | str, "a"),
    (Circle | Square | str, Square(1)), (Started | Ended, Started(1)),
    (Started | Ended, Ended(1, "killed")),
    (Drawing, DRAWING), (Drawing | Circle, DRAWING), (Frame, Frame(DRAWING)),
    (Frame, Frame(Box(1))),
    (Layer[Circle | Square], Layer(Square(1.0), {"a": Ring(2.0)})),
    (Layer[Star], Layer(Star(1), {"a": Star(2)})), (Sheet, {"shape": Square(1.0)}),
    (dict[str, list[Circle | Square]], {"a": [Circle(1.0)]}),
    (tuple[Circle | Square, ...], (Square(1.0), Circle(1.0))),
]  # fmt: skip


@pytest.mark.parametrize(("type", "value"), ROUND_TRIPS, ids=range(len(ROUND_TRIPS)))
def test_value_comes_back_as_the_class_that_it_was(type, value):
    """Alone, in containers, and in fields of other classes."""
    check_decodable(type)

    assert decode(encode(value), type) == value


@st.composite
def two_dataclasses(draw):
    """Two dataclasses with fields of the same few names, some of them with defaults."""
    made = []
    for name in ("One", "Two"):
        fields = draw(st.dictionaries(st.sampled_from("abcd"), st.booleans()))
        members = [
            (key, int, dataclasses.field(default=0, kw_only=True))
            if has_default
            else (key, int, dataclasses.field(kw_only=True))
            for key, has_default in fields.items()
        ]
        made.append(dataclasses.make_dataclass(name, members))
    return made


@examples(max_examples=50)
@given(two_dataclasses(), st.integers())
def test_encoded_value_of_a_union_never_becomes_another_class(classes, number):
    """Whatever fields two classes have: if the union is accepted, both come back."""
    one, two = classes
    names = [{each.name for each in dataclasses.fields(cls)} for cls in classes]
    try:
        check_decodable(one | two)
    except TypeError:
        assert names[0] == names[1]
        return
    assume(abs(number) < 2**53)
    for cls, keys in zip(classes, names, strict=True):
        value = cls(**dict.fromkeys(keys, number))
        assert decode(encode(value), one | two) == value


class Hidden(msgspec.Struct, omit_defaults=True):
    a: int = 0


class Row(msgspec.Struct, array_like=True):
    a: int


@dataclasses.dataclass
class Other:
    radius: int


class AnyRow(TypedDict):
    a: int


REFUSED = [
    (Circle | Other, "JSON cannot say which of Circle and Other an object is"),
    (list[Circle | Other | None], "give each a field as kind: Literal\\['circle'\\]"),
    (Layer[Circle | Other], "which of Circle and Other .* the type of Layer.top"),
    (Hidden | Circle, "whether an object is a Hidden, because it leaves out the names"),
    (Row | Circle | Square, "whether an object is a Row"),
    (Circle | Square | dict[str, int], "whether an object is Circle or dict"),
    (Circle | Square | AnyRow, "whether an object is Circle or AnyRow"),
    (Circle | Square | OrderedDict, "no JSON value can become .*OrderedDict"),
]


@pytest.mark.parametrize(("type", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_union_that_json_cannot_tell_apart_is_refused(type, reason):
    """Where it is defined; the error says how to tell them apart."""
    with pytest.raises(TypeError, match=reason):
        check_decodable(type)


@pytest.mark.parametrize(
    ("type", "body", "reason"),
    [
        (Circle | Square, b'{"secret": 1}', "neither the fields nor the literals of one of Circle"),
        (Circle | Square, b'{"side": "secret"}', "Expected `float`, got `str` - at `$.side`"),
        (Drawing, b'{"shapes": [{"radius": 1}, {}]}', "Circle and Square - at `$.shapes[1]`"),
        (Started | Ended, b'{"id": 1}', "Object may be each of Started and Ended"),
        (Started | Ended, b'{"id": 1, "kind": "secret"}', "neither the fields nor the literals"),
        (Circle | Square, b'"secret"', "Expected `object`, got `str`"),
        (Circle | Square | str, b"5", "Expected `str`, got `int`"),
        (Frame, b'{"drawing": {"shapes": [{"side": null}]}}', "- at `$.drawing.shapes[0].side`"),
    ],
    ids=range(8),
)
def test_object_of_none_of_the_classes_is_a_wrong_type(type, body, reason):
    """The reason names the place and quotes no value."""
    with pytest.raises(UndecodableMessage) as caught:
        decode(body, type)

    assert str(caught.value).startswith("wrong type: ")
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)


def test_fields_that_a_newer_sender_added_are_ignored():
    """As everywhere: the fields that are known decide."""
    found: Any = decode(b'{"side": 1, "colour": "red", "weight": 5}', Circle | Square)

    assert found == Square(1.0)

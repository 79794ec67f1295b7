"""What one stage sends and the next one reads: an error is certain, what is right is accepted."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
import test_pydantic_types
import test_record_unions
from pydantic import Field, field_validator, model_validator

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import encode
from mousetrap.model.type_comparison import compare

VALUES = [
    *test_pydantic_types.ROUND_TRIPS, *test_record_unions.ROUND_TRIPS, (int, 5), (str, "a"),
    (float, 1.5), (bool, True), (list[int], [1]), (dict[str, int], {}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_what_never_fits_cannot_be_decoded(number):
    """Each value of the tables of types against each type: no false alarm; a type fits itself."""
    written, value = VALUES[number]
    body = encode(value)
    for read, _ in VALUES:
        if compare(written, read).finding == "never fits":
            with pytest.raises(UndecodableMessage):
                decode(body, read)

    assert compare(written, written).finding == "fits"


@dataclasses.dataclass
class Order:
    id: int
    note: str | None = None


@dataclasses.dataclass
class Priced(Order):
    price: float = dataclasses.field(kw_only=True)


@dataclasses.dataclass
class Basket:
    orders: list[Order]
    owner: Order


@dataclasses.dataclass
class OtherBasket:
    orders: list[Order]
    owner: str


@dataclasses.dataclass
class Needs:
    id: int
    price: float


@dataclasses.dataclass
class Unrelated:
    other: int
    made: list[int] = dataclasses.field(default_factory=list, init=False)


@dataclasses.dataclass
class NeedsMade:
    made: list[int]


class Struct(msgspec.Struct, rename="camel"):
    full_name: str


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class Hidden(msgspec.Struct, omit_defaults=True):
    id: int = 0


class Aliased(pydantic.BaseModel):
    name: str = Field(alias="fullName")
    id: int = 1


class ClosedModel(pydantic.BaseModel, extra="forbid"):
    fullName: str  # noqa: N815 -- as the JSON has it


class Lenient(pydantic.BaseModel):
    other: int

    @model_validator(mode="before")
    @classmethod
    def from_anything(cls, _: Any) -> Any:
        return {"other": 1}


class LenientField(pydantic.BaseModel):
    id: list[int]

    @field_validator("id", mode="before")
    @classmethod
    def from_anything(cls, _: Any) -> Any:
        return [1]


class Row(TypedDict):
    id: int
    price: NotRequired[float]


class Corner(NamedTuple):
    x: int


class Colour(enum.Enum):
    RED = "red"


PAIRS = [
    (int, int, "fits", ""), (int, float, "fits", ""), (float, int, "may fail", "float is not int"),
    (int, str, "never fits", "int is not str"), (str, int, "never fits", "str is not int"),
    (int, bool, "may fail", ""), (bool, int, "never fits", ""), (Any, int, "fits", ""),
    (dict, Order, "fits", ""), (Order, dict, "fits", ""),
    (Order, int, "never fits", "Order is not"),
    (list[int], Order, "never fits", "is not Order"), (Corner, list[int], "fits", ""),
    (list[str], list[int], "may fail", "str is not int"), (tuple[int, str], list[str], "fits", ""),
    (datetime.datetime, str, "fits", ""), (str, datetime.datetime, "fits", ""),
    (datetime.datetime, int, "never fits", ""), (Literal["a"], Literal["b"], "never fits", ""),
    (Literal["a", "b"], Literal["a"], "may fail", ""), (Colour, Literal["red"], "fits", ""),
    (str, Colour, "fits", ""), (Colour, int, "never fits", ""),
    (Unrelated, Needs, "never fits", "Unrelated has no 'id', which Needs needs"),
    (Order, Needs, "may fail", "Order has no 'price'"),  # a `Priced` is an `Order`, too
    (Priced, Needs, "fits", ""), (Priced, Order, "fits", ""), (Unrelated, NeedsMade, "fits", ""),
    (Basket, OtherBasket, "never fits", "'owner': Order is not str"),
    (Order, Closed, "never fits", "Closed forbids the field 'note' of Order"),
    (Hidden, Order, "may fail", "Hidden may have no 'id'"),
    (Row, Needs, "may fail", "Row may have no 'price'"), (Row, Unrelated, "may fail", "no 'other'"),
    (Order | int, Order, "may fail", "int is not Order"), (Order | int, Order | int, "fits", ""),
    (Order | int, str, "never fits", ""), (int, Order | str, "never fits", "int is not"),
    (Struct, Aliased, "fits", ""), (Aliased, Struct, "fits", ""),
    (Aliased, ClosedModel, "never fits", "ClosedModel forbids the field 'id' of Aliased"),
    (Order, Aliased, "never fits", "Order has no 'fullName', which Aliased needs"),
    (Order, Lenient, "fits", ""), (int, Lenient, "fits", ""), (Order, LenientField, "fits", ""),
    (str, Aliased | int, "fits", ""), (list[int], Aliased, "never fits", "is not Aliased"),
    (Aliased, list[Aliased], "never fits", "Aliased is not"),
    (test_record_unions.Drawing, test_record_unions.Drawing, "fits", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "read", "finding", "why"), PAIRS, ids=[f"{e[0]}-{e[1]}" for e in PAIRS]
)
def test_comparison_of_two_types(written, read, finding, why):
    """The text names what is missing or different."""
    found = compare(written, read)

    assert (found.finding, why in found.why) == (finding, True)

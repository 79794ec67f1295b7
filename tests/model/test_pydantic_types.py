"""Types of pydantic as messages: they come back as they were, or are refused before any message."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PositiveInt,
    RootModel,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import check_decodable, decode
from mousetrap.model.encoding import encode

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Buyer(pydantic.BaseModel):
    name: str
    age: PositiveInt = 1


class Aliased(pydantic.BaseModel):
    full_name: str = Field(alias="fullName")
    inner: list[Aliased] = []


class ByName(pydantic.BaseModel):
    model_config = ConfigDict(serialize_by_alias=False, validate_by_name=True)
    full_name: str = Field(alias="fullName")


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Numbers(RootModel[list[int]]):
    pass


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Strict(pydantic.BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    at: datetime.datetime
    id: uuid.UUID
    price: decimal.Decimal
    colour: Colour
    pair: tuple[int, str]


class Area(pydantic.BaseModel):
    width: int

    @computed_field
    @property
    def double(self) -> int:
        return 2 * self.width


class ClosedArea(Area):
    model_config = ConfigDict(extra="forbid")


class WithJson(pydantic.BaseModel):
    inner: Json[list[int]]


class Checked(pydantic.BaseModel):
    low: int
    high: int

    @field_validator("low")
    @classmethod
    def low_is_not_13(cls, low: int) -> int:
        if low == 13 or low < 0:
            raise ValueError(f"{low} is a secret")
        return low

    @model_validator(mode="after")
    def in_order(self) -> Checked:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self

    @field_serializer("high")
    def as_text(self, high: int) -> str:
        return str(high)


@pydantic.dataclasses.dataclass
class Pair:
    x: int = Field(alias="X")


@dataclasses.dataclass
class Order:
    buyer: Buyer
    raw: bytes = b""
    below: list[Order] = dataclasses.field(default_factory=list)
    since: float = dataclasses.field(default=0.0, init=False)


@dataclasses.dataclass
class Of(Generic[T]):
    value: T
    pairs: list[Pair] = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    first_buyer: Buyer | None = None
    raw: bytes = b""
    count: Annotated[int, Field(gt=0)] = 1


class Tagged(msgspec.Struct, tag=True):
    order: Order


class Row(TypedDict, total=False):
    buyer: Buyer


class Corner(NamedTuple):
    x: bytes
    buyer: Buyer


ANN = Buyer(name="Ann")
ORDER = Order(ANN, b"\xff\x00", [Order(Buyer(name="Ben", age=3))])
STRICT = Strict(
    at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), id=uuid.UUID(int=7),
    price=decimal.Decimal("1.10"), colour=Colour.RED, pair=(1, "a"),
)  # fmt: skip

ROUND_TRIPS = [
    (Buyer, ANN), (list[Buyer], [ANN]), (dict[str, Buyer], {"a": ANN}), (Buyer | None, ANN),
    (dict[int, list[Buyer | None]], {1: [ANN, None]}), (tuple[int, Buyer], (1, ANN)),
    (Buyer | int, 5), (Annotated[Buyer, "words"], ANN), (NewType("Client", Buyer), ANN),
    (Aliased, Aliased(fullName="A", inner=[Aliased(fullName="B")])),
    (ByName, ByName(full_name="A")), (Cat | Dog, Dog()),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(lives=3)),
    (list[Annotated[Cat | Dog, Field(discriminator="kind")]], [Cat(), Dog()]),
    (Numbers, Numbers([1, 2])), (dict[str, Numbers], {"a": Numbers([])}),
    (Page[Buyer], Page[Buyer](items=[ANN])), (Page[int] | None, Page[int](items=[1])),
    (Strict, STRICT), (list[Strict], [STRICT]), (Area, Area(width=2)),
    (ClosedArea, ClosedArea(width=2)), (list[ClosedArea], [ClosedArea(width=2)]),
    (WithJson, WithJson(inner="[1]")), (Checked, Checked(low=1, high=2)),
    (PositiveInt, 3), (Annotated[list[int], Field(min_length=1)], [1]),
    (Annotated[str, AfterValidator(str.strip)], "a"), (list[PositiveInt], [1]),
    (Pair, Pair(X=1)), (list[Pair], [Pair(X=1)]), (dict[str, Pair], {"a": Pair(X=1)}),
    (Of[Buyer], Of(ANN, [Pair(X=1)])), (Of[Order], Of(ORDER)), (Order, ORDER),
    (list[Order], [ORDER]), (Order | None, ORDER), (Order | int, ORDER), (Order | int, 5),
    (Order | Buyer, ORDER), (Order | Buyer, ANN), (Buyer | Order | str, "a"),
    (Struct, Struct(ANN, b"\xff", 2)), (dict[str, Struct], {"a": Struct()}),
    (Buyer | Struct, Struct(ANN, b"\xff")), (Buyer | Struct, ANN), (Tagged, Tagged(ORDER)),
    (Order | Tagged, Tagged(ORDER)), (Order | Struct, ORDER), (Row, {"buyer": ANN}), (Row, {}),
    (Corner, Corner(b"\xff", ANN)), (tuple[bytes, Buyer], (b"\xff", ANN)),
    (Annotated[list[Buyer], msgspec.Meta(min_length=1)], [ANN]),
]  # fmt: skip


@pytest.mark.parametrize(("type", "value"), ROUND_TRIPS, ids=[str(e[0]) for e in ROUND_TRIPS])
def test_value_comes_back_as_it_was(type, value):
    """What one stage returns is what the next one gets, each class by its own library."""
    check_decodable(type)

    found = decode(encode(value), type)

    assert found == value
    assert found.__class__ is value.__class__


def test_body_has_the_aliases_and_the_computed_fields():
    """It is the JSON that readers outside of the flow expect; a closed model stays readable."""
    assert json.loads(encode(Aliased(fullName="A"))) == {"fullName": "A", "inner": []}
    assert json.loads(encode(ByName(full_name="A"))) == {"full_name": "A"}
    assert json.loads(encode(Area(width=2))) == {"width": 2, "double": 4}
    assert json.loads(encode(ClosedArea(width=2))) == {"width": 2}
    assert json.loads(encode({"a": [Pair(X=1)]})) == {"a": [{"X": 1}]}
    assert json.loads(encode(Of(1, [Pair(X=2)]))) == {"value": 1, "pairs": [{"X": 2}]}


class Anything(pydantic.BaseModel):
    text: str
    number: float
    big: int
    maybe: bool | None
    many: dict[str, list[int]]
    at: datetime.datetime
    raw: Annotated[bytes, Field()]


@dataclasses.dataclass
class Holder:
    one: Anything
    raw: bytes


@examples(max_examples=50)
@given(
    st.builds(
        Anything,
        text=st.text(st.characters(exclude_categories=["Cs"])),
        number=st.floats(allow_nan=False, allow_infinity=False),
        big=st.integers(-(2**70), 2**70),
        many=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just([1])),
        at=st.datetimes(timezones=st.just(datetime.UTC)),
        raw=st.text(max_size=5).map(lambda text: text.encode(errors="ignore")),
    )
)
def test_every_model_comes_back_as_it_was(value):
    """Alone, in a dataclass beside bytes, and in a union."""
    both = Holder(value, value.raw + b"\xff")

    assert decode(encode(value), Anything) == value
    assert decode(encode(both), Holder) == both
    assert decode(encode([value, None]), list[Anything | None]) == [value, None]


class Plain:
    pass


class WithPlain(pydantic.BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    plain: Plain


class WithDefault(pydantic.BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    plain: Plain | None = None
    made: Annotated[Plain, BeforeValidator(lambda _: Plain())]
    either: Plain | int


@dataclasses.dataclass
class Outer:
    inner: WithPlain


class Late(pydantic.BaseModel):
    value: Missing  # noqa: F821 -- it cannot be evaluated, which is the subject


REFUSED = [
    (WithPlain, "no JSON value can become Plain, which pydantic only takes as it is: use a model"),
    (list[WithPlain], "no JSON value can become Plain"),
    (Outer, "become Plain, .* the type of Outer.inner"),
    (Page[Callable[[int], int]], "no JSON value can become callable"),
    (Annotated[Plain, Field()], "pydantic cannot decode to it .*Plain.*: use a model"),
    (Late, "name 'Missing' is not defined"),
    (Struct | Annotated[Plain, Field()], "pydantic cannot decode to it"),
    (pydantic.TypeAdapter(int), "JSON cannot be decoded to it"),
    (dict[str, Any] | Order, "cannot say whether an object is Order or dict"),
]


@pytest.mark.parametrize(("type", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_type_that_pydantic_can_never_decode_is_refused(type, reason):
    """The error says what to use instead."""
    with pytest.raises(TypeError, match=reason):
        check_decodable(type)


def test_type_that_may_be_decoded_is_not_refused():
    """A default, a validator that makes the value, or another member of a union is enough."""
    check_decodable(WithDefault)

    assert decode(b'{"made": 1, "either": 2}', WithDefault).either == 2


# ---- bodies of the wrong type --------------------------------------------------------------------

WRONG = [
    (Buyer, b'{"name": "hunter2", "age": 0}', "greater than 0 (greater_than) - at `$.age`"),
    (Buyer, b'{"name": 4711, "age": "hunter2"}',
     "valid string (string_type), and 1 more - at `$.name`"),
    (list[Buyer], b'[{"name": ""}, {"age": 1}]', "Field required (missing) - at `$[1].name`"),
    (dict[str, Buyer], b'{"hunter2": {}}', "Field required (missing) - at `$[...].name`"),
    (Aliased, b'{"full_name": "hunter2"}', "Field required (missing) - at `$.fullName`"),
    (Strict, encode(STRICT)[:-1] + b',"extra":"hunter2"}', "(extra_forbidden) - at `$.extra`"),
    (Strict, encode(STRICT).replace(b'"1.10"', b'"hunter2"'), "decimal_parsing) - at `$.price`"),
    (Strict, encode(STRICT).replace(b"2026-", b"hunter2"), "datetime_parsing - at `$.at`"),
    (Strict, encode(STRICT).replace(b'"red"', b'"hunter2"'), "'red' (enum) - at `$.colour`"),
    (Checked, b'{"low": 13, "high": 4711}', "ValueError in a check of the type (value_error)"),
    (Checked, b'{"low": 5, "high": 1}', "ValueError: low must not be above high (value_error)"),
    (list[Annotated[Cat | Dog, Field(discriminator="kind")]], b'[{"kind": "hunter2"}]',
     "union_tag_invalid - at `$[0]`"),
    (Order, b'{"buyer": {"name": "A"}, "below": [{"buyer": {"name": 4711}}]}',
     "(string_type) - at `$.below[0].buyer.name`"),
    (Struct, b'{"firstBuyer": {"name": 4711}}', "(string_type) - at `$.firstBuyer.name`"),
    (Struct, b'{"count": -4711}', "greater than 0 (greater_than) - at `$.count`"),
    (Struct, b'{"hunter2": 1}', "unknown field"),
    (Row, b'{"buyer": 4711}', "should be an object (model_type) - at `$.buyer`"),
    (Buyer | Struct, b'{"firstBuyer": {"name": 4711}}', "Field required (missing), and 1 more"),
    (Order | Tagged, b'{"hunter2": 4711}', "neither the fields nor the literals of one of Order"),
    (Order | int, b'"hunter2"', "Expected `int`, got `str`"),
]  # fmt: skip


@pytest.mark.parametrize(("type", "body", "reason"), WRONG, ids=range(len(WRONG)))
def test_reason_names_the_field_and_quotes_no_value(type, body, reason):
    """It is the reason of a dead letter, which is read where bodies must not be."""
    with pytest.raises(UndecodableMessage) as caught:
        decode(body, type)

    assert str(caught.value).startswith("wrong type: ")
    assert reason in str(caught.value)
    is_key = body == b'{"hunter2": 1}'  # an unknown field is named, as msgspec does
    assert is_key or "hunter2" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert caught.value.__suppress_context__


@dataclasses.dataclass
class Ordered:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ValueError(f"{self.low} is below 0")
        if self.low > self.high:
            raise ValueError("low must not be above high")


@pytest.mark.parametrize("type", [Ordered, list[Ordered], Ordered | Order, Of[Ordered]])
@pytest.mark.parametrize(
    ("low", "reason"),
    [(-4711, "ValueError in a check of the type"), (9, "ValueError: low must not be above high")],
)
def test_text_of_a_check_is_shown_if_it_is_a_constant(type, low, reason):
    """A text that was made of the value is not."""
    value = {"low": low, "high": 1}
    body = encode([value] if type == list[Ordered] else {"value": value, **value})

    with pytest.raises(UndecodableMessage, match=f"^wrong type: {reason}"):
        decode(body, type)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"name": "A"', "not JSON: Input data was truncated"),
        (b'{"name": NaN}', "not JSON: invalid character"),
        (b'{"age": 1e999}', "not usable JSON: Number out of range"),
        (b'{"age": 1' + b"0" * 400 + b"}", "wrong type: "),
        (b'{"name": "\xe9"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[" * 500 + b"]" * 500, "not usable JSON: nested too deep for pydantic"),
    ],
)
def test_body_that_is_no_json_has_the_same_reason_as_for_other_types(body, reason):
    """What pydantic's own parser takes beyond JSON is refused, too."""
    with pytest.raises(UndecodableMessage, match=reason):
        decode(body, Buyer)


def test_value_that_is_not_of_its_field_warns_of_no_value(recwarn):
    """pydantic's warning would quote it; the reader of the message dead-letters it."""
    body = encode(Buyer.model_construct(name="A", age="hunter2"))

    assert recwarn.list == []
    with pytest.raises(UndecodableMessage, match="age"):
        decode(body, Buyer)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_number_that_json_does_not_have_is_an_error(number):
    """In a model, too, where pydantic would write null."""
    with pytest.raises(ValueError, match="JSON"):
        encode(Page[float](items=[number]))


def test_pydantic_is_imported_only_for_its_types():
    """A worker of other types starts without it, and one of its types says how to install it."""
    code = (
        "import sys, dataclasses, msgspec\n"
        "from mousetrap.model.decoding import check_decodable\n"
        "from mousetrap.model.encoding import encode\n"
        "A = dataclasses.make_dataclass('A', [('x', int)])\n"
        "B = dataclasses.make_dataclass('B', [('y', list[A])])\n"
        "check_decodable(dict[str, A | B | None])\n"
        "encode([B([A(1)])])\n"
        "print('pydantic' in sys.modules)\n"
        "sys.modules['pydantic'] = None\n"
        "class Model:\n"
        "    __pydantic_validator__ = None\n"
        "try:\n"
        "    check_decodable(Model)\n"
        "except TypeError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    first, second = done.stdout.splitlines()
    assert first == "False"
    assert 'pip install "mousetrap-mq[pydantic]"' in second


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr
    tokens: list[pydantic.Secret[int]] = []


class OpenLogin(pydantic.BaseModel):
    password: pydantic.SecretStr
    hidden: pydantic.SecretStr = Field(pydantic.SecretStr("x"), exclude=True)

    @field_serializer("password")
    def as_it_is(self, password: pydantic.SecretStr) -> str:
        return password.get_secret_value()


@pytest.mark.parametrize("value", [Login(password="hunter2"), [Login(password="hunter2")]])
def test_secret_that_would_be_sent_as_asterisks_is_an_error(value):
    """The next stage would get the asterisks; the error says how to send it."""
    with pytest.raises(
        TypeError, match=r"a secret of Login as asterisks.*field_serializer"
    ) as caught:
        encode(value)

    assert "hunter2" not in str(caught.value)


def test_secret_with_a_serializer_comes_back():
    """Its class says what is to be sent."""
    value = OpenLogin(password="hunter2")

    assert decode(encode(value), OpenLogin) == value


class OwnDump(pydantic.BaseModel):
    n: int

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        return {"n": self.n + 1, "mode": mode}


class OfBoth(msgspec.Struct):
    raw: bytes

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise AssertionError("msgspec decodes it")


def test_classes_that_say_themselves_how_they_are_read_and_written():
    """An own ``model_dump`` is used; a struct that pydantic could read, too, is msgspec's."""
    assert json.loads(encode([OwnDump(n=1)])) == [{"n": 2, "mode": "json"}]
    assert decode(encode(OfBoth(b"\xff")), OfBoth) == OfBoth(b"\xff")


def test_model_of_pydantic_1_is_refused():
    """Also where pydantic 2 brings it, as ``pydantic.v1``."""
    v1 = pytest.importorskip("pydantic.v1")

    class Old(v1.BaseModel):
        n: int

    with pytest.raises(TypeError, match=r"model of pydantic 1.*derive it from pydantic.BaseModel"):
        check_decodable(Old)

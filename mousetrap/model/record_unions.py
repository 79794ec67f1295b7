"""Unions of dataclasses, attrs classes and structs: which of them a JSON object is.

msgspec decodes only unions of structs with tags. For the other unions this module chooses the
class: by a field whose type is a `Literal`, or by the names of the fields. An encoded dataclass has
all its fields, so an object becomes the class again that it was encoded from. If the classes of a
union do not differ in this way, the union is refused.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from mousetrap.model.decode_errors import UndecodableType, WrongType


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a record: its name in Python and in JSON, its type, and whether JSON has it."""

    name: str
    key: str
    type: Any
    is_required: bool


def is_record(type: Any) -> bool:
    """Return whether *type* is a dataclass, an attrs class or a struct, perhaps a generic one."""
    cls = get_origin(type) or type
    return isinstance(cls, _Class) and (
        dataclasses.is_dataclass(cls) or hasattr(cls, "__attrs_attrs__") or _is_struct(cls)
    )


_Class = type


def _is_struct(cls: Any) -> bool:
    return isinstance(cls, _Class) and issubclass(cls, msgspec.Struct)


def fields_of(type: Any) -> list[Field]:
    """Return the fields of a record that JSON may have.

    Raises:
        NameError: the type of a field cannot be evaluated.
    """
    cls = get_origin(type) or type
    if _is_struct(cls):
        return [
            Field(each.name, each.encode_name, each.type, each.required)
            for each in msgspec.structs.fields(type)
        ]
    hints = get_type_hints(cls, include_extras=True)
    given = dict(zip(getattr(cls, "__parameters__", ()), get_args(type), strict=False))
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        return [
            Field(each.name, each.name, _filled(hints[each.name], given),
                  each.default is missing and each.default_factory is missing)
            for each in dataclasses.fields(cls) if each.init
        ]  # fmt: skip
    nothing = sys.modules["attr"].NOTHING  # the class is made by attrs
    return [
        Field(each.alias, each.name, _filled(hints.get(each.name, Any), given),
              each.default is nothing)
        for each in cls.__attrs_attrs__ if each.init
    ]  # fmt: skip


def _filled(type: Any, given: Mapping[Any, Any]) -> Any:
    """Return *type* with what is *given* for its type variables."""
    if isinstance(type, TypeVar):
        return given.get(type, type)
    if parameters := getattr(type, "__parameters__", ()):
        return type[tuple(given.get(each, each) for each in parameters)]
    return type


class Alternative:
    """One record of a union: *type*, as its objects look in JSON."""

    def __init__(self, type: Any) -> None:
        self.type = type
        cls = get_origin(type) or type
        self.name = cls.__name__
        fields = fields_of(type)
        self.keys = {each.key for each in fields}
        self.required = {each.key for each in fields if each.is_required}
        self.values = {each.key: values for each in fields if (values := _literal(each.type))}
        config = getattr(cls, "__struct_config__", None)
        if config is not None and config.tag is not None:
            self.keys.add(config.tag_field)
            self.required.add(config.tag_field)
            self.values[config.tag_field] = {config.tag}
        self.shows_keys = config is None or not (
            config.array_like or (config.tag is None and config.omit_defaults)
        )

    def fits(self, value: Mapping[str, Any]) -> bool:
        """Return whether the object *value* can be of this class, by its keys and literals."""
        return self.required <= value.keys() and all(
            _hashable(value[key]) in values for key, values in self.values.items() if key in value
        )

    def score(self, value: Mapping[str, Any]) -> tuple[int, int]:
        """Return how well the keys of *value* fit: how many are fields, less those not there."""
        common = len(self.keys & value.keys())
        return common, common - len(self.keys)

    def is_like(self, other: Alternative) -> bool:
        """Return whether an object of this class may look like one of *other*."""
        return self.keys == other.keys and all(
            self.values[key] & other.values[key] for key in self.values.keys() & other.values.keys()
        )


def alternatives(types: Collection[Any]) -> list[Alternative]:
    """Return the records *types* of a union.

    Raises:
        UndecodableType: JSON cannot say which of two it is; the text says what to do.
    """
    found = [Alternative(each) for each in types]
    if len(found) > 1 and (hidden := next((e for e in found if not e.shows_keys), None)):
        raise UndecodableType(
            f"JSON cannot say whether an object is a {hidden.name}, because it leaves out the "
            f"names of its fields: give it tag=True, and not array_like"
        )
    for one, other in combinations(found, 2):
        if one.is_like(other):
            raise UndecodableType(
                f"JSON cannot say which of {one.name} and {other.name} an object is, because "
                f"their data has the same fields: give each a field as "
                f"kind: Literal['{one.name.lower()}'], or use msgspec.Struct with tag=True"
            )
    return found


def choose(value: Mapping[str, Any], among: Sequence[Alternative]) -> Alternative:
    """Return the one *among* these of which the object *value* is.

    Raises:
        WrongType: it is of none of them, or may be of several; no value of it is quoted.
    """
    fitting = [each for each in among if each.fits(value)]
    names = " and ".join(each.name for each in fitting or among)
    if not fitting:
        raise WrongType(f"Object has neither the fields nor the literals of one of {names}")
    best = max(fitting, key=lambda each: each.score(value))
    if sum(each.score(value) == best.score(value) for each in fitting) > 1:
        raise WrongType(f"Object may be each of {names}")
    return best


def _literal(type: Any) -> set[Any]:
    """Return the values of a type that is a `Literal`; none of any other type."""
    return set(get_args(type)) if get_origin(type) is Literal else set()


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(type(value))

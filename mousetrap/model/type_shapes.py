"""How the JSON of a type looks: as it is encoded, and as it must look to be decoded.

A `Shape` says only what is certain. Where something cannot be known, as with a validator of
pydantic or a serializer of a user, the shape is None: anything is possible.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NewType, get_args, get_origin, is_typeddict

from mousetrap.model.composed_types import fields_with_types, is_named_tuple, is_union
from mousetrap.model.pydantic_types import is_pydantic
from mousetrap.model.record_unions import Field, is_record

_TEXTS = (bytes, datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
_literal: Any = Literal  # of a value that is known at run time only
_ARRAYS = (list, tuple, set, frozenset, Sequence, AbstractSet)
_OBJECTS = (dict, Mapping)


@dataclass(frozen=True)
class Property:
    """One property of a JSON object: its type, and whether an object always has it."""

    type: Any
    is_always_there: bool
    keys: tuple[str, ...]  # one of them


@dataclass(frozen=True)
class Shape:
    """What JSON may be: one of *kinds*, or one of *values* if those are known.

    If it is an object with known *properties*, `is_closed` says that it has no others. *item* is
    the type of an array's items. *type* is what it was made from.
    """

    type: Any
    kinds: frozenset[str]
    values: frozenset[Any] = frozenset()
    properties: tuple[Property, ...] | None = None
    is_closed: bool = False
    item: Any = Any
    alternatives: tuple[Any, ...] = field(default=())  # types of a union: it is one of them


def shape_of(type: Any, *, is_read: bool) -> Shape | None:
    """Return the shape of *type*, as it is read, or as it is written; None: it is not known."""
    if isinstance(type, NewType):
        return shape_of(type.__supertype__, is_read=is_read)
    if get_origin(type) is Annotated:
        return None if is_pydantic(type) else shape_of(get_args(type)[0], is_read=is_read)
    if is_union(type):
        return Shape(type, frozenset(), alternatives=get_args(type))
    if get_origin(type) is Literal or isinstance(type, enum.EnumMeta):
        values = get_args(type) or [each.value for each in type]
        return _of_values(type, values)
    cls = get_origin(type) or type
    if is_pydantic(cls):
        return _of_model(type, is_read)
    if is_record(type) or is_typeddict(cls):
        return _of_record(type, cls, is_read)
    if cls in _ARRAYS or is_named_tuple(cls):
        return Shape(type, _ONE["array"], item=_item(type))
    if cls in _OBJECTS:
        return Shape(type, _ONE["object"])
    kinds = _kinds(cls, is_read)
    return Shape(type, kinds) if kinds else None


_NAMES = ("array", "object", "str", "int", "float", "bool", "null")
SCALARS = frozenset(_NAMES[2:])
_ONE = {name: frozenset([name]) for name in _NAMES}


def _kinds(cls: Any, is_read: bool) -> frozenset[str] | None:
    if cls is None or cls is type(None):
        return _ONE["null"]
    if cls is float and is_read:
        return frozenset(["float", "int"])
    if cls in (str, int, float, bool):
        return _ONE[cls.__name__]
    return _ONE["str"] if cls in _TEXTS and not is_read else None


def _of_values(type: Any, values: Sequence[Any]) -> Shape | None:
    kinds = [_kinds(each.__class__, is_read=False) for each in values]
    if not values or None in kinds:
        return None
    return Shape(type, frozenset().union(*filter(None, kinds)), values=frozenset(values))


def _item(type: Any) -> Any:
    arguments = get_args(type)
    if len(arguments) == 1 or (len(arguments) == 2 and arguments[1] is ...):
        return arguments[0]
    return Any


def _of_record(type: Any, cls: Any, is_read: bool) -> Shape | None:
    config = getattr(cls, "__struct_config__", None)
    if config is not None and config.array_like:
        return Shape(type, _ONE["array"])
    try:
        fields = fields_with_types(type)
    except Exception:  # noqa: BLE001 -- what cannot be evaluated is refused where it is defined
        return None
    if not is_read:
        names = {each.key for each in fields}
        hidden = [each for each in names_written(cls) if each not in names]
        fields += [Field(each, each, Any, True) for each in hidden]
    writes_all = not is_read and not is_typeddict(cls) and not getattr(config, "omit_defaults", 0)
    properties = [
        Property(each.type, each.is_required or writes_all, (each.key,)) for each in fields
    ]
    if config is not None and config.tag is not None:
        properties.append(Property(_literal[config.tag], True, (config.tag_field,)))
    is_closed = bool(getattr(config, "forbid_unknown_fields", False)) and is_read
    return Shape(type, _ONE["object"], properties=tuple(properties), is_closed=is_closed)


def _of_model(type: Any, is_read: bool) -> Shape | None:
    """Return the shape of a pydantic model; None if a validator or serializer may change it."""
    schema: Any = getattr(type, "__pydantic_core_schema__", None)
    if not isinstance(schema, dict):
        return None
    if schema["type"] == "definitions":
        schema = schema["schema"]
    if schema["type"] != "model" or "serialization" in schema or schema.get("root_model"):
        return None
    inner = schema["schema"]
    if inner["type"] == "function-after":  # it checks the model, and does not change what is read
        inner = inner["schema"]
    if inner["type"] != "model-fields":
        return None
    properties = [
        found for name, each in inner["fields"].items()
        if (found := _of_field(type, name, each, is_read)) is not None
    ]  # fmt: skip
    if not is_read:
        computed = inner.get("computed_fields", ())
        names = [each.get("alias") or each["property_name"] for each in computed]
        is_open = type.model_config.get("extra") != "forbid"  # else they are left out
        properties += [Property(Any, is_open, (each,)) for each in names]
    is_closed = type.model_config.get("extra") == "forbid" if is_read else False
    return Shape(type, _ONE["object"], properties=tuple(properties), is_closed=is_closed)


def _of_field(model: Any, name: str, schema: Any, is_read: bool) -> Property | None:
    if not is_read:
        if schema.get("serialization_exclude"):
            return None
        by_alias = model.model_config.get("serialize_by_alias") is not False
        alias = schema.get("serialization_alias") if by_alias else None
        return Property(_type_of_field(model, name, schema), True, (alias or name,))
    alias = schema.get("validation_alias")
    by_name = ("populate_by_name", "validate_by_name")
    is_by_name = alias is None or any(model.model_config.get(each) for each in by_name)
    keys = [name] if is_by_name else []
    if isinstance(alias, list):
        keys += [each[0] for each in alias if isinstance(each, list)] or [str(alias[0])]
    elif alias is not None:
        keys.append(alias)
    inner = schema["schema"]
    is_required = inner["type"] not in ("default", "function-before", "function-plain")
    return Property(_type_of_field(model, name, schema), is_required, tuple(keys))


def _type_of_field(model: Any, name: str, schema: Any) -> Any:
    """Return the type of a field as far as JSON of another kind can never become it."""
    inner = schema["schema"]
    while inner["type"] in ("default", "nullable"):
        inner = inner["schema"]
    if inner["type"].startswith("function-") or "serialization" in inner:
        return Any
    annotation = model.model_fields[name].annotation
    # pydantic takes a number from a text, and more: only containers and models are certain
    if inner["type"] in ("list", "dict"):
        return {"list": list, "dict": dict}[inner["type"]]
    return annotation if inner["type"] in ("model", "definition-ref") else Any


def names_written(cls: Any) -> list[str]:
    """Return the names of all fields of a dataclass or attrs class, those without init, too."""
    fields = getattr(cls, "__dataclass_fields__", None) or getattr(cls, "__attrs_attrs__", None)
    return [each if isinstance(each, str) else each.name for each in fields or ()]

"""Values of pydantic's classes as plain values, in the JSON that the same class can read again.

Nothing here imports pydantic: a value of one of its classes brings what is needed.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

from mousetrap.model.pydantic_types import parts_of


def is_of_pydantic(value: Any) -> bool:
    """Return whether *value* is a pydantic model, or of a dataclass of pydantic."""
    return hasattr(type(value), "__pydantic_serializer__")


def plain(value: Any) -> Any:
    """Return a model, or a value of a dataclass of pydantic, as plain values.

    Fields have their aliases, unless the class says ``serialize_by_alias=False``. Computed fields
    are in it, too, unless the class could not be read then, because it forbids other fields.

    Raises:
        TypeError: it has a secret, which pydantic would write as asterisks.
    """
    cls: Any = type(value)
    options = _options(cls)
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(**options)
    return cls.__pydantic_serializer__.to_python(value, **options)


@lru_cache(maxsize=1000)
def _options(cls: Any) -> dict[str, Any]:
    classes = [part.get("cls") for part in parts_of(cls.__pydantic_core_schema__)]
    kinds = {part["type"] for part in parts_of(cls.__pydantic_core_schema__)}
    forbids_own = any(
        _config(each).get("extra") == "forbid" and each.__pydantic_decorators__.computed_fields
        for each in classes if hasattr(each, "__pydantic_decorators__")
    )  # fmt: skip
    if _hides_secrets(cls.__pydantic_core_schema__):
        raise TypeError(
            f"pydantic writes a secret of {cls.__name__} as asterisks, and those would be what the "
            f"next stage gets: give the field a field_serializer that writes what is to be sent, "
            f"or Field(exclude=True)"
        )
    # A warning would quote the value. One that is not of its field's type fails where it is read.
    options = {
        "mode": "json",
        "by_alias": _config(cls).get("serialize_by_alias") is not False,
        "round_trip": forbids_own or "json" in kinds,
        "warnings": False,
    }
    return {name: each for name, each in options.items() if name in _accepted(cls, options)}


def _accepted(cls: Any, options: Iterable[str]) -> Iterable[str]:
    """Return which of *options* the ``model_dump`` of *cls* takes: a class may have its own."""
    dump = getattr(cls, "model_dump", None)
    if dump is None:
        return options
    parameters = inspect.signature(dump).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return options if takes_all else parameters


def _hides_secrets(schema: Any) -> bool:
    """Return whether pydantic would write asterisks for a part of a value of *schema*."""
    if isinstance(schema, (list, tuple)):
        return any(map(_hides_secrets, schema))
    if not isinstance(schema, dict) or schema.get("serialization_exclude"):
        return False
    if isinstance(found := schema.get("serialization"), dict):
        function = found.get("function")
        module, name = (getattr(function, each, "") for each in ("__module__", "__name__"))
        return module == "pydantic.types" and "secret" in name
    return any(_hides_secrets(each) for key, each in schema.items() if key != "metadata")


def _config(cls: Any) -> dict[str, Any]:
    return getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}


def with_plain_dataclasses(data: Any) -> Any:
    """Return *data* with the values of pydantic's dataclasses in it as plain values.

    msgspec would encode them as it does other dataclasses: without aliases and serializers. If
    nobody has imported ``pydantic.dataclasses``, there are none, and this costs nothing.
    """
    return _walked(data) if "pydantic.dataclasses" in sys.modules else data


def _walked(data: Any) -> Any:
    kind = type(data)
    if kind in (str, int, float, bool, type(None)):
        return data
    if is_of_pydantic(data):
        return plain(data) if dataclasses.is_dataclass(kind) else data
    if kind in (list, tuple, set, frozenset):
        new = [_walked(each) for each in data]
        is_same = all(one is other for one, other in zip(new, data, strict=True))
        return data if is_same else new
    if kind is dict:
        return {key: _walked(each) for key, each in data.items()}
    changed = {
        name: new for name in _fields(kind)
        if (new := _walked(old := getattr(data, name, None))) is not old
    }  # fmt: skip
    if not changed:
        return data
    data = copy.copy(data)
    assign = msgspec.structs.force_setattr if isinstance(data, msgspec.Struct) else _assign
    for name, new in changed.items():
        assign(data, name, new)
    return data


def _fields(cls: Any) -> Iterator[str]:
    if issubclass(cls, msgspec.Struct):
        yield from cls.__struct_fields__
    elif dataclasses.is_dataclass(cls):
        yield from (each.name for each in dataclasses.fields(cls))


def _assign(record: Any, name: str, value: Any) -> None:
    object.__setattr__(record, name, value)  # also of a frozen one

"""Types that pydantic decodes: models, and types with pydantic's constraints and validators.

pydantic is optional. A type is recognized as pydantic's without importing it, and only then it is
imported. A body is validated as JSON, so strict models take from JSON what they would not take from
Python. The reason of a wrong body names the field and quotes no value: a text is used only if it
comes from the type, or is a constant of the validator that raised it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

import msgspec

from mousetrap.model.decode_errors import UndecodableType, WrongType, own_text

_LIBRARIES = ("pydantic", "pydantic_core", "annotated_types", "pydantic_extra_types")
_INSTALL = 'install it with: pip install "mousetrap-mq[pydantic]"'
MAX_SHOWN_NAME = 40  # characters of a field's name that the type does not have
# What pydantic's parser reads and JSON does not have: NaN, infinity, and numbers that become it
_MAY_BE_NO_JSON = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}|\d{300}")
# Of the context of an error: limits and names that come from the type, not from the body
_SAFE_CONTEXT = {
    "gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "actual_length", "pattern",
    "expected", "discriminator", "expected_tags", "class", "class_name", "field_type", "field",
    "max_digits", "decimal_places", "whole_digits", "expected_schemes", "tz_expected", "tz_actual",
    "expected_version", "min_properties",
}  # fmt: skip
_NEVER_JSON = {"is-instance", "is-subclass", "callable", "call", "arguments", "arguments-v3"}


def is_pydantic(type: Any) -> bool:
    """Return whether pydantic has to decode *type*; the types inside of it do not count."""
    if metadata := getattr(type, "__metadata__", None):  # Annotated
        return any(map(_is_of_pydantic, metadata)) or is_pydantic(get_args(type)[0])
    return isinstance(type, _Class) and _is_class_of_pydantic(type)


_Class = type


def _is_class_of_pydantic(cls: Any) -> bool:
    if hasattr(cls, "__pydantic_validator__"):
        return True
    if hasattr(cls, "__struct_fields__") or hasattr(cls, "__dataclass_fields__"):
        return False  # msgspec decodes it, also if it can tell pydantic how to do so
    return hasattr(cls, "__get_pydantic_core_schema__") or _is_of_version_1(cls)


def _is_of_version_1(cls: Any) -> bool:
    """Return whether *cls* is a model of pydantic 1 (also in ``pydantic.v1``), which is refused."""
    return hasattr(cls, "__get_validators__") and any(
        _library(base) in _LIBRARIES for base in getattr(cls, "__mro__", ())
    )


def _is_of_pydantic(metadata: Any) -> bool:
    return _library(type(metadata)) in _LIBRARIES or _is_class_of_pydantic(
        metadata if isinstance(metadata, type) else type(metadata)
    )


def _library(cls: Any) -> str:
    return str(getattr(cls, "__module__", "")).partition(".")[0]


class PydanticDecoder:
    """Decodes JSON to *type* by pydantic.

    Raises:
        UndecodableType: pydantic is not installed, it cannot decode to *type*, or no JSON can
            become a type inside of it.
        NameError: the type of a field cannot be evaluated.
    """

    def __init__(self, type: Any) -> None:
        pydantic = _imported()
        if any(map(_is_of_version_1, (type, *get_args(type)))):
            raise UndecodableType(
                "it is a model of pydantic 1, which is not supported: derive it from "
                "pydantic.BaseModel of pydantic 2, or use a dataclass or a msgspec.Struct"
            )
        # bytes in a dataclass are written by msgspec, as base64
        config: Any = {"val_json_bytes": "base64"}
        try:
            is_union = get_origin(type) is not None and not hasattr(type, "__metadata__")
            adapter = pydantic.TypeAdapter(type, config=config if is_union else None)
            if not adapter.pydantic_complete:
                adapter.rebuild(raise_errors=True)
        except pydantic.errors.PydanticUndefinedAnnotation as error:
            raise NameError(f"name {error.name!r} is not defined") from None
        except Exception as error:  # noqa: BLE001 -- a class may bring a schema of its own
            text = str(error).partition("\n")[0].rstrip(".")
            raise UndecodableType(
                f"pydantic cannot decode to it ({text}): use a model, a dataclass, or plain types"
            ) from None
        schema: Any = adapter.core_schema
        definitions = {each.get("ref"): each for each in parts_of(schema)}
        if found := _never_json(schema, definitions, {}):
            raise UndecodableType(
                f"no JSON value can become {found}, which pydantic only takes as it is: use a "
                f"model, a dataclass or plain types, or give it a BeforeValidator that makes it"
            )
        self._adapter = adapter
        self._error: Any = pydantic.ValidationError
        self._names, self._labels = _names_in(schema)

    def decode(self, body: bytes) -> Any:
        """Return *body* decoded.

        Raises:
            WrongType: *body* is JSON and not of the type.
            msgspec.DecodeError: *body* is not JSON.
            RecursionError: it is nested too deep for pydantic.
        """
        if _MAY_BE_NO_JSON.search(body):
            msgspec.json.decode(body)  # raises if it is none
        try:
            return self._adapter.validate_json(body)
        except self._error as error:
            first, *others = error.errors(include_url=False, include_input=False)
            if first["type"] in ("json_invalid", "json_type") and not first["loc"]:
                msgspec.json.decode(body)
                raise RecursionError("nested too deep for pydantic") from None
            more = f", and {len(others)} more" if others else ""
            raise WrongType(f"{_text_of(first)}{more}{self._place(first)}") from None

    def convert(self, value: Any) -> Any:
        """Return *value*, which was decoded from JSON to plain values, as the type."""
        return self.decode(msgspec.json.encode(value))

    def _place(self, error: Any) -> str:
        """Return where *error* is, without keys of the body that are no fields of the type."""
        path = ""
        for each in error["loc"]:
            if isinstance(each, int):
                path += f"[{each}]"
            elif each in self._names:
                path += f".{each}"
            elif each not in self._labels:
                path += "[...]"
        if error["type"] == "extra_forbidden" and path.endswith("[...]"):
            name = str(error["loc"][-1])
            if name.isidentifier() and len(name) <= MAX_SHOWN_NAME:
                path = f"{path.removesuffix('[...]')}.{name}"
        return f" - at `${path}`" if path else ""


def _imported() -> Any:
    try:
        import pydantic
        import pydantic.errors
    except ImportError as error:
        raise UndecodableType(f"it needs pydantic 2 ({error}): {_INSTALL}") from None
    if not hasattr(pydantic, "TypeAdapter"):
        raise UndecodableType(
            f"it needs pydantic 2, and {pydantic.VERSION} is installed: {_INSTALL}"
        )
    return pydantic


def _text_of(error: Any) -> str:
    """Return the text of pydantic's *error* and its code, without any value of the body."""
    context = error.get("ctx") or {}
    code = error["type"]
    raised = context.get("error")
    if isinstance(raised, WrongType):  # of a struct, which msgspec decodes
        return str(raised)
    if isinstance(raised, Exception):
        return f"{own_text(raised)} ({code})"
    if context.keys() <= _SAFE_CONTEXT and code in _codes():
        return f"{str(error['msg']).rstrip('.')} ({code})"
    return str(code)[:MAX_SHOWN_NAME]


@cache
def _codes() -> set[str]:
    from pydantic_core import core_schema

    return set(get_args(core_schema.ErrorType))


# ---- pydantic's description of a type ------------------------------------------------------------


def parts_of(schema: Any) -> Iterator[Any]:
    """Yield each part of a core schema that has a type."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for key, each in schema.items():
            if key not in ("metadata", "serialization", "config", "expected", "default"):
                yield from parts_of(each)
    elif isinstance(schema, (list, tuple)):
        for each in schema:
            yield from parts_of(each)


def _names_in(schema: Any) -> tuple[set[str], set[str]]:
    """Return the names and aliases of all fields, and the labels of the members of unions."""
    names: set[Any] = set()
    labels = {"str", "int", "float", "bool", "none"}
    for part in parts_of(schema):
        fields = part.get("fields")
        if isinstance(fields, dict):
            names.update(fields)
        if part["type"] == "dataclass-field":
            names.add(part["name"])
        alias = part.get("validation_alias")
        for each in alias if isinstance(alias, list) else [alias]:
            names.update(key for key in (each if isinstance(each, list) else [each]))
        if part["type"] == "tagged-union":
            labels.update(map(str, part["choices"]))
        if isinstance(cls := part.get("cls"), type):
            labels.add(cls.__name__)
    return {each for each in names if isinstance(each, str)}, labels


def _never_json(schema: Any, definitions: dict[Any, Any], known: dict[str, str]) -> str:
    """Return the part of *schema* that no JSON value can become; "" if there is none.

    *known* has what was found for each reference.
    """
    kind = schema["type"]
    if kind in _NEVER_JSON:
        cls = schema.get("cls_repr") or getattr(schema.get("cls"), "__qualname__", None)
        return str(cls or kind)
    if kind == "definition-ref":
        ref = schema["schema_ref"]
        if ref not in known:
            known[ref] = ""  # a type may contain itself
            if ref in definitions:
                known[ref] = _never_json(definitions[ref], definitions, known)
        return known[ref]
    if kind in ("function-before", "function-wrap", "function-plain", "default", "custom"):
        return ""  # code of the user may make it, or it may be left out
    found = [_never_json(each, definitions, known) for each in _needed(schema)]
    if kind in ("union", "tagged-union", "lax-or-strict"):
        return found[0] if found and all(found) else ""
    return next(filter(None, found), "")


def _needed(schema: Any) -> Iterator[Any]:
    """Yield the parts of *schema* that a JSON value has to become."""
    kind = schema["type"]
    if kind == "json-or-python":
        yield schema["json_schema"]
        return
    if kind == "chain":
        yield schema["steps"][0]
        return
    for key in ("schema", "keys_schema", "values_schema", "lax_schema", "strict_schema"):
        if isinstance(schema.get(key), dict):
            yield schema[key]
    items = schema.get("items_schema")
    yield from items if isinstance(items, list) else [items] if items else []
    choices = schema.get("choices", ())
    for each in choices.values() if isinstance(choices, dict) else choices:
        yield each[0] if isinstance(each, tuple) else each
    fields = schema.get("fields", ())
    for each in fields.values() if isinstance(fields, dict) else fields:
        if isinstance(each, dict) and each.get("init") is not False and each.get("required", True):
            yield each["schema"]

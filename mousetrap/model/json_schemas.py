"""JSON Schemas of the types of messages, as an AsyncAPI document has them (JSON Schema draft 7).

Types of pydantic are described by pydantic, all others by msgspec. A type that neither describes
has the schema ``{}``, which any value fits.
"""

from __future__ import annotations

import json
import re
from typing import Any, get_args, get_origin, is_typeddict

import msgspec

from mousetrap.model.composed_types import (
    fields_with_types,
    for_msgspec,
    is_named_tuple,
    is_union,
)
from mousetrap.model.message import Message
from mousetrap.model.pydantic_types import is_pydantic
from mousetrap.model.record_unions import is_record

PREFIX = "#/components/schemas/"


class JsonSchemas:
    """The schemas of several types; `components` has those of the classes, by their name."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}

    def of(self, type: Any, *, is_sent: bool) -> dict[str, Any]:
        """Return the schema of *type*, as it is sent or as it is read; its classes are added.

        The two differ for a model of pydantic with computed fields, defaults or aliases.
        """
        if type is Any or type is Message or type in (bytes, bytearray, memoryview):
            return {}  # the body is any JSON
        classes: dict[str, Any] = {}
        try:
            schema = _schema(type, is_sent, classes)
        except Exception:  # noqa: BLE001 -- a type may have a serializer that nobody can describe
            return {}
        names = {name: self._name(name, each) for name, each in classes.items()}
        for name, each in classes.items():
            self.components[names[name]] = _draft_7(each, names)
        found: dict[str, Any] = _draft_7(schema, names)
        return found

    def _name(self, name: str, schema: Any) -> str:
        """Return a name for *schema* in `components`: the one that it has there, or a new one."""
        plain = component_name(name)
        found, number = plain, 1
        while found in self.components and self._differs(found, schema):
            number += 1
            found = f"{plain}{number}"
        return found

    def _differs(self, name: str, schema: Any) -> bool:
        def text(value: Any) -> str:
            # references may have got other names
            return re.sub(rf'"{PREFIX}[^"]*"', '""', json.dumps(value, sort_keys=True))

        return text(self.components[name]) != text(_draft_7(schema, {}))


def component_name(text: str) -> str:
    """Return *text* as the name of a component: letters, digits, ``.``, ``-`` and ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.") or "_"


def _schema(type: Any, is_sent: bool, classes: dict[str, Any]) -> Any:
    """Return the schema of *type*, and add those of its classes to *classes*."""

    def of_composed(part: Any) -> Any:  # what msgspec does not know
        return _composed(getattr(part, "type", part), is_sent, classes)

    if is_pydantic(type):
        return _pydantic(type, is_sent, classes)
    [schema], found = msgspec.json.schema_components(
        [for_msgspec(type)], schema_hook=of_composed, ref_template=PREFIX + "{name}"
    )
    classes |= found
    return schema


def _composed(type: Any, is_sent: bool, classes: dict[str, Any]) -> Any:
    """Return the schema of what `for_msgspec` left to another decoder than msgspec."""
    cls = get_origin(type) or type
    if not (is_record(type) or is_typeddict(cls) or is_named_tuple(cls)):
        if is_union(type):
            return {"anyOf": [_schema(each, is_sent, classes) for each in get_args(type)]}
        return _pydantic(type, is_sent, classes)
    fields = fields_with_types(type)
    config = getattr(cls, "__struct_config__", None)
    if is_named_tuple(cls) or (config is not None and config.array_like):
        items = [_schema(each.type, is_sent, classes) for each in fields]
        return {"type": "array", "items": items}
    name = component_name(str(getattr(type, "__name__", type)))
    if name not in classes:
        classes[name] = {}  # a class may contain itself
        classes[name] = {
            "title": name,
            "type": "object",
            "properties": {each.key: _schema(each.type, is_sent, classes) for each in fields},
            "required": [each.key for each in fields if each.is_required],
        }
    return {"$ref": PREFIX + name}


def _pydantic(type: Any, is_sent: bool, classes: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter

    config = getattr(type, "model_config", {})
    schema = TypeAdapter(type).json_schema(
        mode="serialization" if is_sent else "validation",
        by_alias=not is_sent or config.get("serialize_by_alias") is not False,
        ref_template=PREFIX + "{model}",
    )
    classes |= schema.pop("$defs", {})
    for each in (schema, *classes.values()) if is_sent else ():
        if each.get("additionalProperties") is False:  # its computed fields are not sent
            computed = [k for k, one in each.get("properties", {}).items() if "readOnly" in one]
            for key in computed:
                del each["properties"][key]
            each["required"] = [key for key in each.get("required", ()) if key not in computed]
    return schema


def _draft_7(schema: Any, names: dict[str, str]) -> Any:
    """Return *schema*, which is of draft 2020-12, in the words of draft 7 and of AsyncAPI.

    References to the classes in *names* get their new names.
    """
    if isinstance(schema, list):
        return [_draft_7(each, names) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _draft_7(each, names) for key, each in schema.items()}
    if "prefixItems" in found:
        rest = found.pop("items", True)
        found["items"] = found.pop("prefixItems")
        found["additionalItems"] = rest
    if isinstance(found.get("discriminator"), dict):  # AsyncAPI has the name of the property
        found["discriminator"] = found["discriminator"]["propertyName"]
    if isinstance(reference := found.get("$ref"), str) and reference.startswith(PREFIX):
        name = reference.removeprefix(PREFIX)
        found["$ref"] = PREFIX + names.get(name, component_name(name))
    return found

"""Types that are valid and still cannot take a JSON value: sets of lists, objects without an end.

A type is one of `msgspec.inspect`.
"""

from __future__ import annotations

from typing import Any

_UNHASHABLE = {"ListType", "SetType", "DictType", "CollectionType", "TypedDictType"}
_TUPLES = {"TupleType", "VarTupleType", "NamedTupleType"}
_OBJECTS = {"DataclassType", "StructType", "TypedDictType", "NamedTupleType"}
_NO_KEYS = _UNHASHABLE | _TUPLES | _OBJECTS | {"FrozenSetType"}


def why_empty(found: Any) -> str | None:
    """Return why no JSON value, or none with elements, is of the type *found*; None if one is."""
    kind = type(found).__name__
    if kind in ("SetType", "FrozenSetType") and not _is_hashable(found.item_type):
        return "the elements of a set must be hashable, and these are not: use a list"
    if kind == "DictType" and _all_of(found.key_type, lambda key: type(key).__name__ in _NO_KEYS):
        return "the keys of a JSON object are texts, and these keys are not: use a list of pairs"
    if kind in _OBJECTS and _has_no_end(found, ()):
        return "it contains itself without an end: make the field optional, or a list"
    return None


def _is_hashable(found: Any) -> bool:
    kind = type(found).__name__
    if kind == "UnionType":
        return any(_is_hashable(each) for each in found.types)
    if kind in _UNHASHABLE:
        return False
    if kind == "StructType":
        return bool(found.cls.__struct_config__.frozen or not found.cls.__struct_config__.eq)
    if kind == "DataclassType":
        cls = getattr(found.cls, "__origin__", found.cls)  # of a generic class
        return getattr(cls, "__hash__", None) is not None
    return all(_is_hashable(each) for each in _parts(found)) if kind in _TUPLES else True


def _parts(found: Any) -> list[Any]:
    if hasattr(found, "fields"):
        return [each.type for each in found.fields if each.required]
    return [*getattr(found, "item_types", ()), *filter(None, [getattr(found, "item_type", None)])]


def _all_of(found: Any, test: Any) -> bool:
    members = found.types if type(found).__name__ == "UnionType" else [found]
    return all(test(each) for each in members)


def _has_no_end(found: Any, outside: tuple[Any, ...]) -> bool:
    """Return whether each value of *found*, inside of the types *outside*, contains another."""
    kind = type(found).__name__
    if kind == "UnionType":
        return all(_has_no_end(each, outside) for each in found.types)
    if kind not in _OBJECTS | {"TupleType"}:
        return False
    if any(found is each for each in outside):
        return True
    return any(_has_no_end(each, (*outside, found)) for each in _parts(found))

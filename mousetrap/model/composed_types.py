"""Types that msgspec alone cannot decode, because something inside of them is not its own.

Each class is decoded by its own library: pydantic's by pydantic, all others by msgspec. In a type
for msgspec, a `Composed` class stands for each part that msgspec cannot decode: a type of pydantic,
a union of dataclasses, or a record (a dataclass, an attrs class or a struct) with such a part in a
field. msgspec calls `convert` with what the JSON has in its place. A type without such a part is
not touched, so it is decoded as fast as ever.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NewType,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from mousetrap.model.decode_errors import UndecodableType, WrongType, own_text, text_of
from mousetrap.model.pydantic_types import PydanticDecoder, is_pydantic
from mousetrap.model.record_unions import Field, alternatives, choose, fields_of, is_record

_NONE = type(None)
_CONTAINERS = (list, dict, tuple, set, frozenset)
# A container of these and of pydantic's types is left to pydantic as a whole. They are the same in
# the JSON of both libraries; bytes are not.
_ANY_OBJECT = (dict, Any, object, Mapping, MutableMapping)
_NEUTRAL = {str, int, float, bool, None, _NONE, Any, ...}
_NEUTRAL_MODULES = ("datetime", "decimal", "uuid")


class _TakesAll(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return True  # msgspec asks it about what `convert` returned


class Composed(metaclass=_TakesAll):
    """Stands for `type` in a type for msgspec; each one is a subclass, which msgspec passes on."""

    type: ClassVar[Any]
    convert: ClassVar[Callable[[Any], Any]]  # a value, plain from JSON, to `type`
    decode: ClassVar[Callable[[bytes], Any] | None] = None  # a whole body, without msgspec
    parts: ClassVar[Callable[[], list[tuple[str, Any]]]]  # types inside of it, with their field


def for_msgspec(type: Any) -> Any:
    """Return *type* with a `Composed` for each part that msgspec cannot decode, or *type* itself.

    Raises:
        UndecodableType: a part cannot be decoded at all; the text says what to use.
        NameError: the type of a field cannot be evaluated.
    """
    try:
        is_composed = _is_composed(type, set())
    except Exception:  # noqa: BLE001 -- an annotation can be any object; msgspec says what is wrong
        return type
    return _rewritten(type) if is_composed else type


def convert(composed: Any, value: Any) -> Any:
    """Return *value*, plain from JSON, as the type that *composed* stands for (a ``dec_hook``)."""
    if not (isinstance(composed, type) and issubclass(composed, Composed)):
        raise NotImplementedError(f"JSON cannot be decoded to {composed}")
    return composed.convert(value)


def _converted(value: Any, type: Any) -> Any:
    """Return *value*, plain from JSON, as *type*, a type for msgspec.

    Raises:
        WrongType: it is not of that type.
    """
    try:
        return msgspec.convert(value, type, dec_hook=convert)
    except msgspec.ValidationError as error:
        raise WrongType(text_of(error)) from None


def _is_composed(type: Any, seen: set[Any]) -> bool:
    """Return whether a part of *type* is not for msgspec."""
    if is_pydantic(type) or _is_union_of_records(type):
        return True
    if (inner := _behind(type)) is not type:
        return _is_composed(inner, seen)
    if get_origin(type) is Annotated:
        return _is_composed(get_args(type)[0], seen)
    if any(_is_composed(each, seen) for each in _arguments(type)):
        return True
    if not _has_fields(type) or type in seen:
        return False
    seen.add(type)
    return any(_is_composed(each.type, seen) for each in fields_with_types(type))


def _rewritten(type: Any) -> Any:
    if is_pydantic(type) or _is_left_to_pydantic(type):
        return _of_pydantic(type)
    if (inner := _behind(type)) is not type:
        return _rewritten(inner)
    if get_origin(type) is Annotated:
        inner, *metadata = get_args(type)
        # a limit of msgspec on a container, which therefore is not left to pydantic as a whole
        new = (
            _rewritten_container(inner) if get_origin(inner) in _CONTAINERS else for_msgspec(inner)
        )
        return Annotated[(new, *metadata)]
    if is_union(type):
        return _rewritten_union(type)
    if _has_fields(type):
        return _record(type) if _is_composed(type, set()) else type
    if not any(_is_composed(each, set()) for each in _arguments(type)):
        return type
    return _rewritten_container(type)


def _rewritten_container(type: Any) -> Any:
    new = tuple(each if each is ... else for_msgspec(each) for each in get_args(type))
    return type.copy_with(new) if hasattr(type, "copy_with") else get_origin(type)[new]


def _rewritten_union(type: Any) -> Any:
    members = get_args(type)
    if any(map(has_pydantic, members)):
        # which member it is, is pydantic's to say; it knows dataclasses, too
        return _of_pydantic(Union[tuple(map(_for_pydantic, members))])  # noqa: UP007
    records = [each for each in members if is_record(each)]
    others = [each for each in members if each not in records]
    is_beside_others = any(_is_composed(each, set()) for each in records) and others != [_NONE]
    if is_beside_others or _is_union_of_records(type):
        return _union_of_records(type, records, others)
    return Union[tuple(map(for_msgspec, members))]  # noqa: UP007 -- of a tuple


# ---- what a type is ------------------------------------------------------------------------------


def is_union(type: Any) -> bool:
    """Return whether *type* is a union: ``X | Y``, ``Union[X, Y]`` or ``Optional[X]``."""
    return get_origin(type) in (Union, types.UnionType)


def _behind(type: Any) -> Any:
    """Return the type that a new name stands for (``type X = ...``, NewType), or *type* itself."""
    if isinstance(type, NewType):
        return type.__supertype__
    return getattr(type, "__value__", type) if _name_of_class(type) == "TypeAliasType" else type


def _name_of_class(value: Any) -> str:
    return type(value).__name__


def _arguments(type: Any) -> Iterator[Any]:
    origin = get_origin(type)
    if origin is not None and origin is not Literal and origin is not Annotated:
        yield from (each for each in get_args(type) if not isinstance(each, (list, str)))


def _is_union_of_records(type: Any) -> bool:
    """Return whether several members of a union are records which msgspec cannot tell apart."""
    if not is_union(type) or sum(map(is_record, get_args(type))) < 2:
        return False
    try:
        msgspec.json.Decoder(type)
    except TypeError:
        return True
    return False


def has_pydantic(type: Any) -> bool:
    """Return whether pydantic decodes *type*, or an argument of it; fields do not count."""
    return is_pydantic(type) or any(map(has_pydantic, _arguments(type)))


def _is_left_to_pydantic(type: Any) -> bool:
    """Return whether *type* is a container of pydantic's types and of such as both know alike."""
    return has_pydantic(type) and all(map(_is_alike, _arguments(type))) and (
        get_origin(type) in _CONTAINERS or is_union(type)
    )  # fmt: skip


def _is_alike(type: Any) -> bool:
    if is_pydantic(type) or (isinstance(type, enum.EnumMeta)) or get_origin(type) is Literal:
        return True
    if get_origin(type) in _CONTAINERS or is_union(type):
        return all(map(_is_alike, get_args(type)))
    is_neutral = type in _NEUTRAL or type in _CONTAINERS
    return is_neutral or getattr(type, "__module__", "") in _NEUTRAL_MODULES


def _has_fields(type: Any) -> bool:
    cls = get_origin(type) or type
    return is_record(type) or is_typeddict(cls) or is_named_tuple(cls)


def is_named_tuple(cls: Any) -> bool:
    """Return whether *cls* is a class of named tuples."""
    return isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")


def fields_with_types(type: Any) -> list[Field]:
    """Return the fields that JSON may have of a record, a named tuple or a TypedDict.

    Raises:
        NameError: the type of a field cannot be evaluated.
    """
    if is_record(type):
        return fields_of(type)
    cls = get_origin(type) or type
    hints = get_type_hints(cls, include_extras=True)
    if is_named_tuple(cls):
        return [
            Field(each, each, hints.get(each, Any), each not in cls._field_defaults)
            for each in cls._fields
        ]
    return [
        Field(key, key, *_without_qualifier(hint, key in cls.__required_keys__))
        for key, hint in hints.items()
    ]


def _without_qualifier(type: Any, is_required: bool) -> tuple[Any, bool]:
    """Return *type* without ``Required``, ``NotRequired`` and ``ReadOnly``, and what they say."""
    while (name := getattr(get_origin(type), "_name", "")) in _QUALIFIERS:
        is_required = _QUALIFIERS[name](is_required)
        type = get_args(type)[0]
    return type, is_required


_QUALIFIERS: dict[str, Callable[[bool], bool]] = {
    "Required": lambda _: True, "NotRequired": lambda _: False, "ReadOnly": bool,
}  # fmt: skip


# ---- what stands for it --------------------------------------------------------------------------


_Parts = Callable[[], list[tuple[str, Any]]]


def _composed(type: Any, parts: _Parts, convert: Callable[[Any], Any]) -> Any:
    attributes = {"type": type, "parts": staticmethod(parts), "convert": staticmethod(convert)}
    return _TakesAll(f"Composed_{_name(type)}", (Composed,), attributes)


_class = type


def _of_pydantic(type: Any) -> Any:
    decoder = PydanticDecoder(type)
    found = _composed(type, list, decoder.convert)
    found.decode = staticmethod(decoder.decode)
    return found


class _LeftToMsgspec:
    """In a type for pydantic: the struct *type* is decoded by msgspec."""

    def __init__(self, type: Any) -> None:
        self.type = for_msgspec(type)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            lambda value: _converted(value, self.type)
        )


def _for_pydantic(type: Any) -> Any:
    cls = get_origin(type) or type
    is_struct = isinstance(cls, _class) and issubclass(cls, msgspec.Struct)
    return Annotated[type, _LeftToMsgspec(type)] if is_struct else type


def _union_of_records(type: Any, records: list[Any], others: list[Any]) -> Any:
    for each in others:
        if is_typeddict(get_origin(each) or each) or (get_origin(each) or each) in _ANY_OBJECT:
            raise UndecodableType(
                f"JSON cannot say whether an object is {_name(records[0])} or {_name(each)}: use "
                f"one of them, or msgspec.Struct with tag=True"
            )
    among = alternatives(records)
    targets = {each.name: for_msgspec(each.type) for each in among}
    rest = for_msgspec(Union[tuple(others)]) if others else dict  # noqa: UP007 -- of a tuple

    def convert_value(value: Any) -> Any:
        is_object = isinstance(value, dict)
        return _converted(value, targets[choose(value, among).name] if is_object else rest)

    return _composed(type, lambda: [*targets.items(), ("", rest)], convert_value)


@lru_cache(maxsize=256)
def _record(type: Any) -> Any:
    """Return what stands for a record with fields that msgspec cannot decode.

    Its JSON is decoded to a struct of the same keys, and the record is made from that. The struct
    is made at its first use, because a type may contain itself.
    """
    fields = fields_with_types(type)
    cls = get_origin(type) or type
    struct: list[Any] = []

    def convert_record(value: Any) -> Any:
        if not struct:
            struct.append(_struct_like(cls, fields))
        read = _converted(value, struct[0])
        given = {
            each.name: found for n, each in enumerate(fields)
            if (found := getattr(read, f"f{n}")) is not msgspec.UNSET
        }  # fmt: skip
        try:
            return cls(**given)
        except (ValueError, TypeError) as error:  # of a ``__post_init__``
            raise WrongType(own_text(error)) from None

    return _composed(
        type, lambda: [(f"{cls.__name__}.{e.name}", e.type) for e in fields], convert_record
    )


def _struct_like(cls: Any, fields: list[Field]) -> Any:
    """Return a struct whose JSON looks as that of the record *cls*; its fields are f0, f1, ..."""
    config = getattr(cls, "__struct_config__", None)
    options: dict[str, Any] = {"array_like": is_named_tuple(cls)}
    if config is not None:
        names = ("tag", "tag_field", "array_like", "forbid_unknown_fields")
        options = {each: getattr(config, each) for each in names}
    members: list[Any] = []
    for n, each in enumerate(fields):
        member = (f"f{n}", for_msgspec(each.type))
        members.append(member if each.is_required else (*member, msgspec.UNSET))
    keys = {f"f{n}": each.key for n, each in enumerate(fields)}
    return msgspec.defstruct(cls.__name__, members, rename=keys, kw_only=True, **options)


def _name(type: Any) -> str:
    return getattr(type, "__name__", str(type))

"""JSON bytes to a typed value, and which types no JSON can ever be decoded to.

A type is checked where a stage is defined (`check_decodable`), so that one which can never be
decoded is an error there, and not the end of each message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from mousetrap.errors import UndecodableMessage
from mousetrap.model.composed_types import Composed, convert, for_msgspec
from mousetrap.model.decode_errors import UndecodableType, WrongType, text_of
from mousetrap.model.empty_types import why_empty

_OFFSET = re.compile(r"\(byte (\d+)\)")
_TOO_LARGE = ("Number out of range", "Integer value out of range")  # msgspec's words
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of UTF-8
_JSON_VALUES: tuple[Any, ...] = ({}, [], "", 0, 0.5, True, None)  # one of each kind


def decode(body: bytes, type: Any = Any) -> Any:
    """Return *body* decoded to *type*: a dataclass or any other type that `msgspec` can validate.

    Raises:
        UndecodableMessage: *body* is not UTF-8, not JSON, nested too deep, or not of *type*; the
            error says which of them, and where.
    """
    try:
        return _decoder(type)(body)
    except WrongType as error:
        raise UndecodableMessage(f"wrong type: {text_of(error)}") from None
    except msgspec.ValidationError as error:
        if type is Any or str(error).startswith(_TOO_LARGE):
            raise UndecodableMessage(f"not usable JSON: {error}") from None
        # msgspec stops at a wrong type, and does not look at what comes after it
        if (defect := _defect_of(body)) is not None:
            raise defect from None
        raise UndecodableMessage(f"wrong type: {text_of(error)}") from None
    except msgspec.DecodeError as error:
        raise _not_json(body, str(error)) from None
    except UnicodeDecodeError as error:
        raise UndecodableMessage(f"not UTF-8: {error.reason}", _first_bad_byte(body)) from None
    except (RecursionError, ValueError) as error:
        raise UndecodableMessage(f"not usable JSON: {error}") from None


def _defect_of(body: bytes) -> UndecodableMessage | None:
    """Return why *body* is no JSON at all; None if it is, or if it is nested too deep to know."""
    try:
        decode(body)
    except UndecodableMessage as defect:
        return None if defect.offset is None else defect
    return None


def _not_json(body: bytes, text: str) -> UndecodableMessage:
    if body.startswith(_BYTE_ORDER_MARK):
        return UndecodableMessage("not JSON: it begins with a byte order mark, send it without", 0)
    if (wrong := _first_bad_byte(body)) is not None:
        return UndecodableMessage("not UTF-8, so not JSON: send JSON in UTF-8", wrong)
    found = _OFFSET.search(text)
    reason = _OFFSET.sub("", text).strip().removeprefix("JSON is malformed: ")
    return UndecodableMessage(f"not JSON: {reason}", int(found[1]) if found else len(body))


@lru_cache(maxsize=256)
def _decoder(type: Any) -> Callable[[bytes], Any]:
    known = for_msgspec(type)
    if known is type:
        return msgspec.json.Decoder(type).decode
    return getattr(known, "decode", None) or msgspec.json.Decoder(known, dec_hook=convert).decode


def _first_bad_byte(body: bytes) -> int | None:
    # msgspec decodes each string separately and counts from the beginning of that string
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def check_decodable(type: Any) -> None:
    """Return if JSON can be decoded to *type* and to every type that it contains.

    Raises:
        TypeError: it cannot. The text names the type, the field that has it, and what to use.
    """
    try:
        hash(type)  # the decoders are kept by type
    except TypeError as error:
        raise TypeError(f"it is {error}: JSON cannot be decoded to it") from None
    _check_type(type, "", {})


def _check_type(type: Any, field: str, seen: dict[int, Any]) -> None:
    """Check *type*, which *field* has; *seen* keeps what was checked: a type may be circular."""
    import msgspec.inspect  # late: a worker of plain types does not need it

    try:
        known = for_msgspec(type)
        msgspec.json.Decoder(known)
        found = msgspec.inspect.type_info(known)
    except UndecodableType as error:
        raise TypeError(f"{error} (it is the type of {field})" if field else str(error)) from None
    except NameError as error:
        raise TypeError(
            f"a type inside of it cannot be evaluated ({error}): define that type above, and "
            f"import it outside of `if TYPE_CHECKING:`"
        ) from None
    except Exception as error:  # noqa: BLE001 -- an annotation can be any object, with any error of its own
        raise TypeError(
            f"JSON cannot be decoded to it ({str(error).rstrip('.')}): use a dataclass, a "
            f"msgspec.Struct, or plain types; for one of several, msgspec.Struct with tag=True"
        ) from None
    _check(found, field, seen)


def _check(found: Any, field: str, seen: dict[int, Any]) -> None:
    """Check a type of `msgspec.inspect` and those inside it; *field* has it, as ``Order.buyer``."""
    cls = getattr(found, "cls", None)
    if isinstance(cls, _Class) and issubclass(cls, Composed):
        found = cls  # the same object for the same type
    if id(found) in seen:  # a type may contain itself
        return
    seen[id(found)] = found
    if found is cls:
        for label, part in cls.parts():
            _check_type(part, label or field, seen)
        return
    cls = getattr(cls, "__origin__", cls)  # of a generic class
    within = f", the type of {field}" * bool(field)
    name = getattr(cls, "__qualname__", str(cls)) + within
    if type(found).__name__ == "CustomType" and not _is_class_of_json(cls):
        raise TypeError(
            f"no JSON value can become {name}: use a dataclass, a msgspec.Struct, a TypedDict, or "
            f"plain types such as dict, list, str and int"
        )
    if reason := why_empty(found):
        raise TypeError(f"no JSON value can fill {_class_name(found, cls)}{within}: {reason}")
    for each in getattr(found, "fields", ()):
        if _is_read(cls, each.name):
            _check(each.type, f"{getattr(cls, '__name__', cls)}.{each.name}", seen)
    inner = [getattr(found, each, None) for each in ("item_type", "key_type", "value_type")]
    for each in (*inner, *getattr(found, "item_types", ()), *getattr(found, "types", ())):
        if each is not None:
            _check(each, field, seen)


_Class = type


def _class_name(found: Any, cls: Any) -> str:
    return str(getattr(cls, "__qualname__", type(found).__name__.removesuffix("Type").lower()))


def _is_class_of_json(cls: Any) -> bool:
    """Return whether some JSON value is an instance of *cls*, such as ``object`` or ``Sized``."""
    try:
        return any(isinstance(value, cls) for value in _JSON_VALUES)
    except TypeError:  # a Protocol that is not for run time
        return False


def _is_read(cls: Any, field: str) -> bool:
    """Return whether *field* comes from the JSON: one that ``__init__`` does not take does not."""
    declared = getattr(cls, "__dataclass_fields__", {}).get(field)
    return declared is None or bool(declared.init)

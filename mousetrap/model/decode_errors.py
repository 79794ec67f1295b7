"""Texts for values that are not of their type, and for types that no value can have.

The reason of a dead letter is read in places where bodies must not be, so a text here names the
field and quotes no value. What a user's own check says is used only if it is a constant of it.
"""

from __future__ import annotations

import re

import msgspec

# Invalid enum value 'x' - at `$.kind`; also of a tag of a union
_QUOTED_VALUE = re.compile(r"^(Invalid (?:enum )?value) .*?( - at `\$[^`]*`)?$", re.DOTALL)
_PLACES = re.compile(r" - at `\$([^`]*)` - at `\$([^`]*)`$")
_PLACE = re.compile(r" - at `\$[^`]*`$")


class UndecodableType(TypeError):
    """No JSON can be decoded to a type; the text says why, and what to use."""


class WrongType(ValueError):
    """A value is not of its type; the text may name its place, as in " - at `$.buyer`"."""


def text_of(error: msgspec.ValidationError | WrongType) -> str:
    """Return the text of *error* without any value of the body, with its place at most once."""
    text, cause = str(error), error.__cause__
    if cause is not None and not isinstance(cause, WrongType):  # a ``__post_init__`` raised it
        place = _PLACE.search(text)
        text = own_text(cause) + (place[0] if place else "")
    while found := _PLACES.search(text):  # the inner one comes first
        text = f"{text[: found.start()]} - at `${found[2]}{found[1]}`"
    return _QUOTED_VALUE.sub(r"\1\2", text)


def own_text(error: BaseException) -> str:
    """Return *error*, raised by a user's check of a value, as text without that value.

    Its text is used only if it is a constant of the function that raised it.
    """
    trace, name = error.__traceback__, type(error).__name__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    text = error.args[0] if len(error.args) == 1 else None
    if type(text) is str and trace is not None and text in trace.tb_frame.f_code.co_consts:
        return f"{name}: {text}"
    return f"{name} in a check of the type"

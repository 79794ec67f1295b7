r"""Makes text from messages, exceptions and notebooks safe to show: control characters are escaped.

A body or an error text can hold characters that act instead of being shown: terminal codes, new
lines, characters that reorder text. `safe` replaces each by its escape sequence, such as ``\x1b``,
and the end of a line by `NEW_LINE`.
For HTML the result still has to go through `html.escape`. Nothing here talks to a broker.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

# Escaped: C0 and C1 control characters; the bidirectional controls, which reorder what is read; the
# two line separators U+2028 and U+2029; surrogates and the two noncharacters, which neither UTF-8
# nor XML can hold. Unicode's other format characters are left to the fonts.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_IN_A_LINE = re.compile(f"\r?\n|[{_UNSAFE}]")
_IN_A_BLOCK = re.compile(rf"(?![\n\t])[{_UNSAFE}]")

NEW_LINE = " ⏎ "  # what a text of several lines has on one line

# HTML classes: within such an element, text between two dollar signs is not shown as a formula.
NO_FORMULAS = "tex2jax_ignore mathjax_ignore"


_NAME = type.__dict__["__name__"].__get__  # a metaclass may have a `__name__` that raises


def class_name(value: object) -> str:
    """Return the name of the value's class, whatever the class makes of its own name."""
    return str(_NAME(type(value)))


def text_of(value: object) -> str:
    """Return ``str(value)``; if that raises, whatever it raises, a text that says so.

    Objects of users and their exceptions are shown where an error must not come up: in the reason
    of a dead letter, in a log, in a table.
    """
    return _converted(value, str)


def repr_of(value: object) -> str:
    """Return ``repr(value)``; if that raises, whatever it raises, a text that says so."""
    return _converted(value, repr)


def _converted(value: object, convert: Callable[[object], str]) -> str:
    try:
        return str.__str__(convert(value))  # a plain str, not a subclass with its own methods
    except BaseException as error:  # noqa: BLE001 -- SystemExit in a `__str__` must not end a worker
        return f"(its __{convert.__name__}__ raised {class_name(error)})"


def safe(text: object, limit: int | None = None) -> str:
    r"""Return *text* on one line: control characters escaped, and cut to *limit* characters.

    The text is cut before it is escaped: the result can be longer than *limit*.
    """
    return _IN_A_LINE.sub(_escaped, _cut(text_of(text), limit))


def safe_block(text: object, limit: int | None = None) -> str:
    r"""Return *text* as `safe` does, but keep ``\n`` and ``\t``: for text in XML and HTML."""
    return _IN_A_BLOCK.sub(_escaped, _cut(text_of(text), limit))


def safe_lines(text: object) -> str:
    """Return *text* as `safe` does, but keep its lines: for a traceback or the text of an error."""
    return "\n".join(safe(line) for line in text_of(text).splitlines())


class SafeText(str):
    """A text made safe that a notebook shows with its lines and without quotes: a traceback."""

    __slots__ = ()

    def __new__(cls, text: object) -> SafeText:  # noqa: D102 -- documented at the class, as for __init__
        return super().__new__(cls, safe_lines(text))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre class='{NO_FORMULAS}' style='font-family:monospace'>{html.escape(self)}</pre>"


def _cut(text: str, limit: int | None) -> str:
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def _escaped(found: re.Match[str]) -> str:
    if found[0].endswith("\n"):
        return NEW_LINE
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

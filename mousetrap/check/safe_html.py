"""Markup in which nothing acts that was not written here: HTML elements whose text is text.

What a notebook printed, a parameter or an error may hold tags, control characters and worse.
Everything goes through `element`, which escapes all but `Html`; characters that cannot be seen and
change what is read are escaped by `mousetrap.display.safe_text`.
"""

from __future__ import annotations

import html

from mousetrap.check.executed_notebook import without_passwords
from mousetrap.display.safe_text import safe_block

_VOID = {"meta", "img", "br", "link"}


class Html(str):
    """Text that is markup already; any other `str` is escaped."""

    __slots__ = ()


def visible(text: object, limit: int | None = None) -> str:
    r"""Return *text* without URL passwords, with what cannot be seen spelled out, cut at *limit*.

    What is left can stand in HTML, once it is escaped, and in XML, which knows no ``\x00``.
    """
    return safe_block(without_passwords(str(text)), limit)


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Return ``<name attributes>children</name>``; an attribute that is None is left out.

    ``class_`` stands for class, and ``_`` in other names for ``-``.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{words}>")
    return Html(f"<{name}{words}>{joined(*children)}</{name}>")


def joined(*children: object) -> Html:
    """Return the children one after another, each escaped unless it is markup."""
    return Html("".join(child if isinstance(child, Html) else escaped(child) for child in children))


def escaped(text: object) -> str:
    """Return *text* as text in HTML, also within an attribute."""
    return html.escape(visible(text), quote=True)

"""Cells of a table that are more than a text: a bar, a code, a text with a name before it.

Each is a value with a text for the terminal and HTML for the notebook. What is in them may come
from messages and exceptions: it is made safe here. Nothing here talks to a broker.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from mousetrap.display import design_tokens as tokens
from mousetrap.display.inline_pictures import image
from mousetrap.display.safe_text import safe

BAR_WIDTH, BAR_HEIGHT = 80, 10  # px
BAR_CHARS = 10  # in a terminal
MAX_CELL_CHARS = 120  # a longer cell is cut
MAX_CHARS = 240  # of a text that may take several lines


class TableCell:
    """What a table shows for a value."""

    def text(self) -> str:
        """Return it for a terminal: one line, and safe."""
        raise NotImplementedError

    def html(self) -> str:
        """Return it as HTML."""
        return html.escape(self.text())


@dataclass(frozen=True)
class Plain(TableCell):
    """Any value as one line of text."""

    value: object

    def text(self) -> str:
        """Return it, cut if it is long."""
        return safe(self.value, MAX_CELL_CHARS)


@dataclass(frozen=True)
class Bar(TableCell):
    """The share of *part* in *whole* as the length of a bar."""

    part: float
    whole: float
    color: str = tokens.DEAD_MARK

    def text(self) -> str:
        """Return a bar of up to `BAR_CHARS` characters; what is not 0 has at least one."""
        length = round(BAR_CHARS * self.part / self.whole) if self.whole else 0
        return "█" * min(BAR_CHARS, max(length, int(self.part > 0)))

    def html(self) -> str:
        """Return a picture, which also a sanitizer of HTML keeps."""
        length = min(BAR_WIDTH, BAR_WIDTH * self.part / self.whole) if self.whole else 0.0
        length = max(length, 1.0 if self.part > 0 else 0.0)
        bar = f'<rect width="{length:.1f}" height="{BAR_HEIGHT}" fill="{self.color}"/>'
        return image(bar, BAR_WIDTH, BAR_HEIGHT, f"{self.part:,} of {self.whole:,}")


@dataclass(frozen=True)
class Marked(TableCell):
    """A name that stands out, with a sign before it."""

    sign: str
    name: str

    def text(self) -> str:
        """Return both."""
        return f"{self.sign} {safe(self.name, MAX_CELL_CHARS)}"

    def html(self) -> str:
        """Return both in bold."""
        return f"<b>{html.escape(self.text())}</b>"


@dataclass(frozen=True)
class Code(TableCell):
    """What a person types or copies: an id, a command."""

    code: str

    def text(self) -> str:
        """Return it on one line."""
        return safe(self.code, MAX_CHARS)

    def html(self) -> str:
        """Return it in the font of code."""
        return f'<code style="white-space:nowrap">{html.escape(self.text())}</code>'


@dataclass(frozen=True)
class Named(TableCell):
    """A text with a *name* before it, which stands out, and *details* on a line below."""

    name: str
    words: str
    details: str = ""

    def text(self) -> str:
        """Return all of it on one line; *details* in brackets."""
        words = ": ".join(filter(None, (safe(self.name, 80), safe(self.words, MAX_CHARS))))
        return f"{words} ({safe(self.details, MAX_CHARS)})" if self.details else words

    def html(self) -> str:
        """Return the name in bold."""
        colon = ": " if self.name and self.words else ""
        return (
            f"<b>{html.escape(safe(self.name, 80))}</b>{colon}"
            f"{html.escape(safe(self.words, MAX_CHARS))}"
            f"<span style='display:block;font-size:{tokens.MIN_FONT}px'>"
            f"{html.escape(safe(self.details, MAX_CHARS))}</span>"
        )

"""Rows for people to look at: text in a terminal, HTML in a notebook, a DataFrame on demand.

Whatever comes from a message or an exception is shown, never obeyed: markup is escaped and control
characters are spelled out. Nothing here talks to a broker.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SHOWN = 20  # rows; the rest is counted
WIDTH = 120  # characters of a cell
# Bidirectional controls reorder what is read, two separators begin a line, the last two are no
# characters and spoil an SVG; Unicode's other format characters are left to the fonts.
_ACTING = {*range(0x2028, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0xFFFE, 0xFFFF}
IGNORED = "tex2jax_ignore mathjax_ignore"  # HTML classes: between two dollar signs is no formula


def safe(text: object, limit: int | None = None) -> str:
    """Return *text* with everything that could act on a terminal spelled out, cut at *limit*."""
    whole = str(text)
    cut = whole if limit is None or len(whole) <= limit else whole[: limit - 1] + "…"
    return "".join(
        f"\\x{ord(char):02x}" if ord(char) < 32 or 127 <= ord(char) < 160
        else f"\\u{ord(char):04x}" if ord(char) in _ACTING or 0xD800 <= ord(char) < 0xE000
        else char
        for char in cut
    )  # fmt: skip


def safe_lines(text: object) -> str:
    """Return *text* as `safe` does, except that its lines stay lines: a traceback, an error."""
    return "\n".join(safe(line) for line in str(text).splitlines())


def age(seconds: float) -> str:
    """Say how long ago in a unit people read: ``12 s``, ``3 min``, ``2.5 h``."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Text(str):
    """Foreign text made safe, which shows itself line by line, not quoted: a traceback."""

    __slots__ = ()

    def __new__(cls, text: object) -> Text:  # noqa: D102 -- as for __init__
        return super().__new__(cls, safe_lines(text))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre class='{IGNORED}' style='font-family:monospace'>{html.escape(self)}</pre>"


class Table(Sequence[Mapping[str, Any]]):
    """Rows with the same *columns*; a sequence of mappings that shows itself.

    Shows the first `SHOWN` rows, and below them *note*; ``table[n]``, ``len(table)`` and
    `to_pandas` have all rows.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        title: str = "",
        note: str = "",
    ) -> None:
        self.columns = tuple(columns)
        self.title = title
        self.note = note
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Table(self.columns, self._rows[index], self.title, self.note)
        return dict(zip(self.columns, self._rows[index], strict=True))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[n] for n in range(len(self)))

    def to_pandas(self) -> Any:
        """Return all rows as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed; says how to install it.
        """
        try:
            import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ImportError:
            raise ImportError("pandas is not installed: pip install pandas") from None
        return pandas.DataFrame(list(self._rows), columns=list(self.columns))

    def __repr__(self) -> str:
        rows = [tuple(safe(name) for name in self.columns), *self._shown()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*([safe(self.title)] if self.title else []), *lines, *self._rest()])

    def _repr_html_(self) -> str:
        left = "style='text-align:left'"
        head = "".join(f"<th {left}>{html.escape(safe(name))}</th>" for name in self.columns)
        body = "".join(
            "<tr>"
            + "".join(f"<td {_style(cell)}>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
            for row in self._shown()
        )
        title = f"<caption {left}>{html.escape(safe(self.title))}</caption>" if self.title else ""
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in self._rest())
        return (
            f"<div class='{IGNORED}'><table>{title}<thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{rest}</div>"
        )

    def _shown(self) -> list[tuple[str, ...]]:
        return [tuple(_cell(value) for value in row) for row in self._rows[:SHOWN]]

    def _rest(self) -> list[str]:
        more = len(self) - SHOWN
        rest = [f"... and {more:,} more"] if more > 0 else []
        return [*rest, *([safe(self.note)] if self.note else [])]


def _style(cell: str) -> str:
    """Only what is long may be broken into lines: a size or an age stays in one piece."""
    return f"style='text-align:left{'' if len(cell) > 20 else ';white-space:nowrap'}'"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if type(value) is int else safe(value, WIDTH)

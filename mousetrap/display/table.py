"""Tables: text in a terminal, HTML in a notebook, a DataFrame on demand.

Cells can hold text from messages and exceptions: markup and control characters are escaped. Nothing
here talks to a broker.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mousetrap.display import formats
from mousetrap.display.safe_text import NO_FORMULAS, safe

MAX_TABLE_ROWS = 20  # rows that are shown; the others are counted
MAX_CELL_CHARS = 120  # a longer cell is cut


class Table(Sequence[Mapping[str, Any]]):
    """A sequence of rows, each a mapping from column to value; a notebook shows it as a table.

    `MAX_TABLE_ROWS` rows are shown, those of *page* (from 1), and *note* below them; ``table[n]``,
    ``len(table)`` and `to_pandas` give access to all rows. *more* says how to see the others.
    *units* are shown with the names of columns: ``wait, s``.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        title: str = "",
        note: str = "",
        *,
        page: int = 1,
        more: str = "",
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.title = title
        self.note = note
        self._more = more
        self._units = units or {}
        self._rows = rows
        pages = max(1, -(-len(rows) // MAX_TABLE_ROWS))
        self._start = (min(max(1, page), pages) - 1) * MAX_TABLE_ROWS

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Table(self.columns, self._rows[index], self.title, self.note, units=self._units)
        return dict(zip(self.columns, self._rows[index], strict=True))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[n] for n in range(len(self)))

    def to_pandas(self) -> Any:
        """Return all rows as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed; the message says how to install it.
        """
        try:
            import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]  # optional
        except ImportError:
            raise ImportError("pandas is not installed: pip install pandas") from None
        return pandas.DataFrame(list(self._rows), columns=list(self.columns))

    def __repr__(self) -> str:
        rows = [tuple(self._heads()), *self._shown()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*([safe(self.title)] if self.title else []), *lines, *self._rest()])

    def _repr_html_(self) -> str:
        left = "style='text-align:left'"
        head = "".join(f"<th {left}>{html.escape(name)}</th>" for name in self._heads())
        body = "".join(
            "<tr>"
            + "".join(f"<td {_style(cell)}>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
            for row in self._shown()
        )
        title = f"<caption {left}>{html.escape(safe(self.title))}</caption>" if self.title else ""
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in self._rest())
        return (
            f"<div class='{NO_FORMULAS}'><table>{title}<thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{rest}</div>"
        )

    def _shown(self) -> list[tuple[str, ...]]:
        shown = self._rows[self._start : self._start + MAX_TABLE_ROWS]
        return [tuple(_cell(value) for value in row) for row in shown]

    def _heads(self) -> list[str]:
        units = self._units
        return [safe(f"{each}, {units[each]}" if each in units else each) for each in self.columns]

    def _rest(self) -> list[str]:
        number = len(self)
        rest = [f"... and {number - MAX_TABLE_ROWS:,} more"] if number > MAX_TABLE_ROWS else []
        if self._more and rest:
            last = min(number, self._start + MAX_TABLE_ROWS)
            rest = [f"rows {self._start + 1:,} to {last:,} of {number:,}; {self._more}"]
        return [*rest, *([safe(self.note)] if self.note else [])]


def _style(cell: str) -> str:
    """Return the cell's style: a short cell, such as a size or an age, is never wrapped."""
    return f"style='text-align:left{'' if len(cell) > 20 else ';white-space:nowrap'}'"


def _cell(value: Any) -> str:
    if value is None:
        return formats.UNKNOWN
    if isinstance(value, float):
        return formats.number(value)
    return f"{value:,}" if type(value) is int else safe(value, MAX_CELL_CHARS)

"""Tables: text in a terminal, HTML in a notebook, a DataFrame on demand.

Cells can hold text from messages and exceptions: markup and control characters are escaped. Nothing
here talks to a broker.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mousetrap.display.safe_text import NO_FORMULAS, safe

MAX_TABLE_ROWS = 20  # rows that are shown; the others are counted
MAX_CELL_CHARS = 120  # a longer cell is cut


def age(seconds: float) -> str:
    """Return a time span in the unit that people read: ``12 s``, ``3 min``, ``2.5 h``."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Table(Sequence[Mapping[str, Any]]):
    """A sequence of rows, each a mapping from column to value; a notebook shows it as a table.

    The first `MAX_TABLE_ROWS` rows are shown, and *note* below them; ``table[n]``, ``len(table)``
    and `to_pandas` give access to all rows.
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
            ImportError: pandas is not installed; the message says how to install it.
        """
        try:
            import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]  # optional
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
            f"<div class='{NO_FORMULAS}'><table>{title}<thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{rest}</div>"
        )

    def _shown(self) -> list[tuple[str, ...]]:
        return [tuple(_cell(value) for value in row) for row in self._rows[:MAX_TABLE_ROWS]]

    def _rest(self) -> list[str]:
        more = len(self) - MAX_TABLE_ROWS
        rest = [f"... and {more:,} more"] if more > 0 else []
        return [*rest, *([safe(self.note)] if self.note else [])]


def _style(cell: str) -> str:
    """Return the cell's style: a short cell, such as a size or an age, is never wrapped."""
    return f"style='text-align:left{'' if len(cell) > 20 else ';white-space:nowrap'}'"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if type(value) is int else safe(value, MAX_CELL_CHARS)

"""Tables: text in a terminal, HTML in a notebook, a DataFrame on demand.

Cells can hold text from messages and exceptions: markup and control characters are escaped. Nothing
here talks to a broker.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from mousetrap.display import formats
from mousetrap.display.cells import MAX_CELL_CHARS as MAX_CELL_CHARS
from mousetrap.display.cells import Plain, TableCell
from mousetrap.display.safe_text import NO_FORMULAS, safe

MAX_TABLE_ROWS = 20  # rows that are shown; the others are counted
MIN_WRAPPED = 24  # characters: a narrower column is not wrapped in a terminal

LEFT = "text-align:left"
RIGHT = "text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"


class Table(Sequence[Mapping[str, Any]]):
    """A sequence of rows, each a mapping from column to value; a notebook shows it as a table.

    `MAX_TABLE_ROWS` rows are shown, those of *page* (from 1), and *note* below them; ``table[n]``,
    ``len(table)`` and `to_pandas` give access to all rows. *more* says how to see the others.

    Numbers are on the right of their columns, and so are the columns *right*. *units* are shown
    with the names of columns: ``wait, s``. *shows* has for a column the function that returns what
    is shown for a value, a text or a `TableCell`: `formats.size`. It is not called for None. In a
    terminal the column *wrapped* is the last one, and its lines are wrapped. If no column has a
    name, there is no line of headings: the first column heads the rows. A column of *repeats* is
    left out if in each row that is shown it has the value of another: ``{"job": "message"}``.
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
        shows: Mapping[str, Callable[[Any], str | TableCell]] | None = None,
        right: Collection[str] = (),
        wrapped: str = "",
        repeats: Mapping[str, str] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.title = title
        self.note = note
        self._more = more
        self._units = units or {}
        self._shows = shows or {}
        self._right = right
        self._wrapped = wrapped
        self._repeats = repeats or {}
        self._rows = rows
        pages = max(1, -(-len(rows) // MAX_TABLE_ROWS))
        self._start = (min(max(1, page), pages) - 1) * MAX_TABLE_ROWS

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._like(self.columns, self._rows[index])
        return dict(zip(self.columns, self._rows[index], strict=True))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[n] for n in range(len(self)))

    def without(self, *columns: str) -> Table:
        """Return a table without these columns."""
        kept = [n for n, name in enumerate(self.columns) if name not in columns]
        rows = [[row[n] for n in kept] for row in self._rows]
        return self._like([self.columns[n] for n in kept], rows)

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
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return the table as text; the column *wrapped* so that no line exceeds *width*."""
        cells = [self._heads()] if any(self.columns) else []
        cells += [[each.text() for each in row] for row in self._shown()]
        is_right = self._sides()
        names = [self.columns[n] for n in self._kept()]
        order = sorted(range(len(names)), key=lambda n: names[n] == self._wrapped)
        widths = [max((len(row[n]) for row in cells), default=0) for n in range(len(names))]
        before = sum(widths[n] + 2 for n in order[:-1])
        lines = []
        for row in cells:
            *first, last = [
                row[n].rjust(widths[n]) if is_right[n] else row[n].ljust(widths[n]) for n in order
            ]
            parts = [last]
            if width and self._wrapped and width - before >= MIN_WRAPPED:
                parts = textwrap.wrap(last.rstrip(), width - before) or [""]
            lines.append("  ".join([*first, parts[0]]).rstrip())
            lines += [" " * before + each for each in parts[1:]]
        return "\n".join([*([safe(self.title)] if self.title else []), *lines, *self._rest()])

    def _repr_html_(self) -> str:
        sides = [RIGHT if right else LEFT for right in self._sides()]
        names = "".join(
            f"<th scope='col' style='{side};white-space:normal'>{html.escape(name)}</th>"
            for side, name in zip(sides, self._heads(), strict=True)
        )
        head = f"<thead><tr>{names}</tr></thead>" if any(self.columns) else ""
        body = "".join(_row(row, sides, is_headed=not head) for row in self._shown())
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in self._rest())
        table = _scrollable(f"{head}<tbody>{body}</tbody>", self.title)
        return f"<div class='{NO_FORMULAS}'>{table}{rest}</div>"

    def _like(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
        return Table(
            columns, rows, self.title, self.note, more=self._more, units=self._units,
            shows=self._shows, right=self._right, wrapped=self._wrapped, repeats=self._repeats,
        )  # fmt: skip

    def _page(self) -> Sequence[Sequence[Any]]:
        return self._rows[self._start : self._start + MAX_TABLE_ROWS]

    def _kept(self) -> list[int]:
        """Return the indexes of the columns that are shown."""
        index = {name: n for n, name in enumerate(self.columns)}
        repeats = {index[name]: index[other] for name, other in self._repeats.items()}
        rows = self._page()
        return [
            n for n in range(len(self.columns))
            if n not in repeats or any(row[n] != row[repeats[n]] for row in rows)
        ]  # fmt: skip

    def _shown(self) -> list[list[TableCell]]:
        kept = [(n, self._shows.get(self.columns[n])) for n in self._kept()]
        return [[_cell(row[n], shows) for n, shows in kept] for row in self._page()]

    def _sides(self) -> list[bool]:
        """Return for each column that is shown whether it stands on the right."""
        rows, names = self._page(), self.columns
        return [
            names[n] in self._right
            or _is_numeric([row[n] for row in rows], self._shows.get(names[n]))
            for n in self._kept()
        ]

    def _heads(self) -> list[str]:
        names, units = [self.columns[n] for n in self._kept()], self._units
        return [safe(f"{each}, {units[each]}" if each in units else each) for each in names]

    def _rest(self) -> list[str]:
        more = len(self) - MAX_TABLE_ROWS
        rest = [f"{more:,} more: {self._more or '.to_pandas()'}"] if more > 0 else []
        if more > 0 and self._start:
            last = min(len(self), self._start + MAX_TABLE_ROWS)
            how = self._more or ".to_pandas()"
            rest = [f"rows {self._start + 1:,} to {last:,} of {len(self):,}; more: {how}"]
        return [*rest, *([safe(self.note)] if self.note else [])]


def _scrollable(table: str, title: str) -> str:
    """Return the element table with the rows *table*; a wide one is scrolled, also by keyboard."""
    shown = html.escape(safe(title))
    caption = ""
    if shown:
        nowrap = "" if len(shown) > MAX_CELL_CHARS else ";white-space:nowrap"
        caption = f"<caption style='{LEFT}{nowrap}'>{shown}</caption>"
    return (
        f"<div style='overflow-x:auto' tabindex='0' role='region' aria-label='{shown or 'table'}'>"
        f"<table>{caption}{table}</table></div>"
    )


def _row(row: Sequence[TableCell], sides: Sequence[str], *, is_headed: bool) -> str:
    """Return the element tr; with *is_headed* its first cell is its heading."""
    cells = []
    for n, (side, cell) in enumerate(zip(sides, row, strict=True)):
        # a short cell, such as an id or an age, is never wrapped
        nowrap = ";white-space:nowrap" if side == LEFT and len(cell.text()) <= 20 else ""
        name, scope = ("th", " scope='row'") if is_headed and not n else ("td", "")
        cells.append(f"<{name}{scope} style='{side}{nowrap}'>{cell.html()}</{name}>")
    return f"<tr style='vertical-align:top'>{''.join(cells)}</tr>"


def _is_numeric(values: Sequence[Any], shows: Callable[[Any], str | TableCell] | None) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (shows is None or isinstance(shows(value), str))
        for value in found
    )


def _cell(value: Any, shows: Callable[[Any], str | TableCell] | None) -> TableCell:
    if value is None:
        return Plain(formats.UNKNOWN)
    if shows is not None:
        shown = shows(value)
        return shown if isinstance(shown, TableCell) else Plain(shown)
    if isinstance(value, float):
        return Plain(formats.number(value))
    return Plain(f"{value:,}" if type(value) is int else value)

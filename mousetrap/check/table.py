"""The table that compares the points of a grid: which columns it has, and the text of each cell.

The templates beside `mousetrap.check.page` write it as HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mousetrap.check.results import FIGURES, GridResult, PointResult
from mousetrap.model.summary_view import PERCENTILES

VERDICT_SIGNS = {"passed": "✓", "failed": "✗", "not run": "–"}  # colour alone is not enough

_TOOK = "took"
_WITH_BARS = ("seconds", "p50", "p99", _TOOK)
_TITLES = {
    "seconds": "seconds of the run in the notebook, from its summary",
    "p50": "latency: half of the jobs took less, in seconds",
    "p99": "latency: 99 of 100 jobs took less, in seconds",
    _TOOK: "seconds of the whole check, including the start of its kernel",
}
_NUMERIC = "n"  # the CSS class of a cell with a number
_MAX_VALUE_LENGTH = 400  # characters of a value; the executed copy has the rest
_MAX_NUMBER = 10**15  # larger numbers are shown as the text that they are


@dataclass(frozen=True)
class Cell:
    """A cell of the table, or a heading; None for an HTML attribute that it does not have."""

    text: str
    css_class: str | None = None
    style: str | None = None
    title: str | None = None


@dataclass(frozen=True)
class ComparisonTable:
    """Headings, and for each point its cells. The column of the points' numbers is not in them."""

    headings: list[Cell]
    rows: list[tuple[PointResult, list[Cell]]]


def comparison_table(grid: GridResult) -> ComparisonTable:
    """Return one row per point: what varies, the verdict and the figures."""
    with_notebook = len(notebooks_of(grid)) > 1 or not grid.axes
    names = [name for name in FIGURES if any(name in point.figures for point in grid)]
    figures = {name: [point.figures.get(name) for point in grid] for name in names}
    figures[_TOOK] = [point.check.seconds if point.has_started else None for point in grid]
    headings = [
        *([Cell("notebook")] if with_notebook else []),
        *(Cell(name, _value_class(_first_value(grid, name))) for name in grid.axes),
        Cell("verdict"),
        *(Cell(_heading(name), _NUMERIC, title=_TITLES.get(name)) for name in figures),
    ]
    rows = []
    for index, point in enumerate(grid):
        cells = [
            *([Cell(point.check.notebook.name)] if with_notebook else []),
            *(_value_cell(point.varying.get(name)) for name in grid.axes),
            Cell(f"{VERDICT_SIGNS[point.verdict]} {point.verdict}", verdict_class(point)),
            *(_figure_cell(name, column[index], column) for name, column in figures.items()),
        ]
        rows.append((point, cells))
    return ComparisonTable(headings, rows)


def _heading(figure: str) -> str:
    return f"{PERCENTILES[figure]}, s" if figure in PERCENTILES else figure


def notebooks_of(grid: GridResult) -> list[str]:
    """Return the notebooks of *grid*, each once."""
    return list(dict.fromkeys(str(point.check.notebook) for point in grid))


def verdict_class(point: PointResult) -> str:
    """Return the CSS class for the verdict on *point*: ``not-run``."""
    return point.verdict.replace(" ", "-")


def readable(value: object) -> str:
    """Return *value* as text for people: numbers rounded, and long text cut."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{name}: {readable(each)}" for name, each in value.items())
        return truncated(pairs or "–")
    number = _number(value)
    if number is None:
        return truncated(str(value))
    if isinstance(value, int) or abs(number) >= 1000:
        return f"{value:,.0f}"
    return f"{number:.3g}"


def truncated(text: str) -> str:
    """Return *text* as a plain `str`, cut to `_MAX_VALUE_LENGTH` characters."""
    text = str(text)  # Markup, which Jinja2 would not escape, becomes text
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[: _MAX_VALUE_LENGTH - 1]}…"


def _figure_cell(name: str, value: object, column: list[object]) -> Cell:
    number = _number(value)
    classes, style = [_NUMERIC], None
    text = "" if value is None else readable(value)
    if name in ("dead", "lost") and number:
        classes.append(name)
    if name in _WITH_BARS and number is not None:
        largest = max(each for each in map(_number, column) if each is not None)
        text = _aligned(number, largest)
        if len(column) > 1 and largest > 0:
            classes.append("bar")  # behind the number; its length is the share of the largest
            style = f"--share: {max(0.0, number / largest):.1%}"
    return Cell(text, " ".join(classes), style)


def _aligned(number: float, largest: float) -> str:
    """Return *number* with as many decimals as give the *largest* of its column three digits."""
    decimals = 3 if largest <= 0 else 2 - math.floor(math.log10(largest))
    return f"{number:,.{min(6, max(0, decimals))}f}"


def _value_cell(value: object) -> Cell:
    return Cell("" if value is None else readable(value), _value_class(value))


def _first_value(grid: GridResult, axis: str) -> object:
    return next((point.varying[axis] for point in grid if axis in point.varying), None)


def _value_class(value: object) -> str | None:
    return None if _number(value) is None else _NUMERIC


def _number(value: object) -> float | None:
    """Return *value* as a float if it is a number that can be drawn; else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _MAX_NUMBER else None  # False for NaN, too

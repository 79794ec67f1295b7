"""The table that compares the points of a grid, and how values are written in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from mousetrap.check.results import FIGURES, GridResult, PointResult
from mousetrap.check.safe_html import Html, element

SIGNS = {"passed": "✓", "failed": "✗", "not run": "–"}  # not by colour alone

_TOOK = "took"
_WITH_BARS = ("seconds", "p50", "p99", _TOOK)
_TITLES = {
    "seconds": "seconds of the run in the notebook, by its own record",
    "p50": "latency: half of the jobs took less, in seconds",
    "p99": "latency: 99 of 100 jobs took less, in seconds",
    _TOOK: "seconds of the whole check, its kernel included",
}
_LONGEST = 400  # characters of a value; the rest is in the executed copy
_LARGEST = 10**15  # from there on a number is shown as the text it is


def table(grid: GridResult, plots: Callable[[PointResult], Html] | None = None) -> Html:
    """Return one row per point: what varies, the verdict, the figures, and *plots* of each."""
    named = len(notebooks_of(grid)) > 1 or not grid.axes
    shown = [name for name in FIGURES if any(name in point.figures for point in grid)]
    figures = {name: [point.figures.get(name) for point in grid] for name in shown}
    figures[_TOOK] = [point.check.seconds if point.begun else None for point in grid]
    heads = [element("th", "", class_="n")]
    heads += [element("th", "notebook")] if named else []
    heads += [element("th", name, class_=_side(_first(grid, name))) for name in grid.axes]
    heads += [element("th", "verdict")]
    heads += [element("th", name, title=_TITLES.get(name), class_="n") for name in figures]
    heads += [element("th", "plots")] if plots else []
    rows = []
    for index, point in enumerate(grid):
        link = element("a", point.number, href=f"#point-{point.number}") if plots else point.number
        cells = [element("th", link, class_="n")]
        cells += [element("td", point.check.notebook.name)] if named else []
        cells += [_value(point.varying.get(name)) for name in grid.axes]
        cells += [element("td", f"{SIGNS[point.verdict]} {point.verdict}", class_=kind_of(point))]
        cells += [_figure(name, column[index], column) for name, column in figures.items()]
        cells += [element("td", plots(point), class_="plots")] if plots else []
        rows.append(element("tr", *cells))
    return element("table", element("thead", element("tr", *heads)), element("tbody", *rows))


def notebooks_of(grid: GridResult) -> list[str]:
    """The notebooks of *grid*, each once."""
    return list(dict.fromkeys(str(point.check.notebook) for point in grid))


def kind_of(point: PointResult) -> str:
    """The verdict as the name of a style."""
    return point.verdict.replace(" ", "-")


def short(value: object) -> str:
    """Return *value* as people read it, not longer than a few lines."""
    if isinstance(value, Mapping):
        return cut(", ".join(f"{name}: {short(each)}" for name, each in value.items()) or "–")
    number = _number(value)
    if number is None:
        return cut(str(value))
    if isinstance(value, int) or abs(number) >= 1000:
        return f"{value:,.0f}"
    return f"{number:.3g}"


def cut(text: str) -> str:
    """Return *text*, or as much of it as anybody reads."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _figure(name: str, value: object, column: list[object]) -> Html:
    number = _number(value)
    kinds, style = ["n"], None
    text = "" if value is None else short(value)
    if name in ("dead", "lost") and number:
        kinds.append(name)
    if name in _WITH_BARS and number is not None:
        largest = max(each for each in map(_number, column) if each is not None)
        text = _aligned(number, largest)
        if len(column) > 1 and largest > 0:
            kinds.append("bar")  # behind the number, as long as its share of the largest
            style = f"--share: {max(0.0, number / largest):.1%}"
    return element("td", text, class_=" ".join(kinds), style=style)


def _aligned(number: float, largest: float) -> str:
    """Three digits of the largest of a column, and the same decimals in all of it."""
    decimals = 3 if largest <= 0 else 2 - math.floor(math.log10(largest))
    return f"{number:,.{min(6, max(0, decimals))}f}"


def _value(value: object) -> Html:
    return element("td", "" if value is None else short(value), class_=_side(value))


def _first(grid: GridResult, axis: str) -> object:
    return next((point.varying[axis] for point in grid if axis in point.varying), None)


def _side(value: object) -> str | None:
    return None if _number(value) is None else "n"


def _number(value: object) -> float | None:
    """Return *value* if it is a number that can be drawn."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _LARGEST else None  # no NaN is smaller

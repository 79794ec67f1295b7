"""The page about a grid: one table to compare its points, what failed, and each point in full.

It needs no script and loads nothing: style and pictures are in it, and its own policy forbids the
rest, should something that a notebook printed ever get through as markup.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

from mousetrap import RunSummary
from mousetrap.check.pictures import Album
from mousetrap.check.results import DATA, JUNIT, GridResult, PointResult
from mousetrap.check.safe_html import Html, element, joined
from mousetrap.check.table import SIGNS, cut, kind_of, notebooks_of, short, table

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_MOST = 60  # entries of a record or of parameters
_WIDEST = 12  # columns about a stage; a guess: more do not fit beside each other


def document(grid: GridResult) -> str:
    """Return the page as HTML, complete in itself."""
    album = Album()
    pictures = {point.number: album.pictures_of(point.check.output) for point in grid}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{grid.sentence()} – {', '.join(notebooks_of(grid))}"),
        element("style", Html(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    failed = [point for point in grid if not point.passed]
    overview = table(grid, lambda point: _plots(pictures[point.number]))
    full = (_in_full(grid, point) for point in grid)
    data, junit = (element("a", name, href=name) for name in (DATA, JUNIT))
    body = element(
        "body",
        _header(grid),
        element("section", overview, class_="table"),
        _note(album.left_out),
        _shared(grid),
        _section("What did not pass", *map(_failure, failed)) if failed else "",
        _section("Each in full", *full),
        element("footer", "The same as data: ", data, " · ", junit, " · made by mousetrap check"),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def fragment(grid: GridResult) -> str:
    """Return the table for a notebook, with how it went above and where the page is below."""
    return element(
        "div",
        element("p", element("b", grid.sentence()), f" in {short(grid.seconds)} s"),
        table(grid),
        element("p", "With plots, errors and executed copies: ", element("code", grid.page)),
    )


def _header(grid: GridResult) -> Html:
    when = grid.begun.replace("T", " ").removesuffix("+00:00")
    took = f"{short(grid.seconds)} s, {grid.parallel} at a time"
    facts = " · ".join((", ".join(notebooks_of(grid)), f"{when} UTC", took))
    squares = (
        element("a", SIGNS[point.verdict], class_=kind_of(point), href=f"#point-{point.number}",
                title=f"{cut(point.name)}: {point.verdict}")
        for point in grid
    )  # fmt: skip
    return element(
        "header",
        element("h1", grid.sentence()),
        element("p", facts, class_="facts"),
        element("p", grid.ended, class_="ended") if grid.ended else "",
        element("p", *squares, class_="squares"),
        class_="good" if grid.passed else "bad",
    )


def _section(title: str, *children: Html) -> Html:
    return element("section", element("h2", title), *children)


def _plots(pictures: list[str]) -> Html:
    """Small ones that grow when they are clicked: a summary that opens nothing but itself."""
    images = (
        element("img", src=picture, alt=f"plot {number}", title="larger, and back")
        for number, picture in enumerate(pictures, start=1)
    )
    return joined(*(element("details", element("summary", image)) for image in images))


def _note(left_out: int) -> Html:
    if not left_out:
        return Html("")
    noun = "picture is" if left_out == 1 else "pictures are"
    return element("p", f"{left_out:,} more {noun} in the executed copies only.", class_="note")


def _shared(grid: GridResult) -> Html:
    """What is the same everywhere, so that the table need not say it in every row."""
    first, *others = [dict(each.check.parameters) for each in grid if each.begun] or [{}]
    same = {
        name: value
        for name, value in first.items()
        if name not in grid.axes and all(each.get(name) == value for each in others)
    }
    if not same or not others or len(notebooks_of(grid)) > 1:
        return Html("")
    chips = (element("span", f"{name} ", element("b", short(same[name]))) for name in same)
    return _section("The same in every point", element("p", *chips, class_="chips"))


def _failure(point: PointResult) -> Html:
    failing = point.check.failing
    where = Html("")
    if failing is not None:
        count = "" if failing.count is None else f", In [{failing.count}]"
        where = element("p", f"cell {failing.number}{count}: ", element("code", failing.line))
    return element(
        "article",
        element("h3", element("a", cut(point.name), href=f"#point-{point.number}")),
        where,
        element("pre", point.reason),
        class_=kind_of(point),
    )


def _in_full(grid: GridResult, point: PointResult) -> Html:
    check = point.check
    took = f"{point.verdict} in {short(check.seconds)} s" if point.begun else point.verdict
    sign = element("span", SIGNS[point.verdict], class_=kind_of(point))
    summary = element(
        "summary", sign, f" {point.number} · {cut(point.name)} ", element("small", took)
    )
    summary_told = check.summary or {}
    # As a record has them; the executed copy has them in the order of the alphabet.
    order = [each.name for each in fields(RunSummary) if each.name in summary_told]
    counts = {name: summary_told[name] for name in order} | summary_told
    stages = counts.pop("stages", None)
    told = {"Parameters": check.parameters, "Summary": counts}
    lists = (element("div", element("h3", name), _pairs(told[name])) for name in told if told[name])
    return element(
        "details",
        summary,
        # The name is within: who follows a link to it finds it open.
        element("div", _copy(grid, point), id=f"point-{point.number}"),
        element("pre", check.error) if check.error else "",
        element("div", *lists, class_="lists"),
        _stages(stages) if isinstance(stages, Mapping) and stages else "",
        class_="point",
    )


def _stages(stages: Mapping[str, object]) -> Html:
    """What each stage did: a row each, ``{"wait": {"p50": 0.1}}`` in a column "wait p50"."""
    rows = {name: _flat(told) for name, told in list(stages.items())[:_MOST]}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))[:_WIDEST]
    heads = (element("th", cut(column), class_="n") for column in columns)
    body = (
        element("tr", element("th", cut(name)),
                *(element("td", short(row.get(column, "")), class_="n") for column in columns))
        for name, row in rows.items()
    )  # fmt: skip
    head = element("thead", element("tr", element("th", "stage"), *heads))
    return element("div", element("table", head, element("tbody", *body)), class_="stages")


def _flat(told: object) -> dict[str, object]:
    if not isinstance(told, Mapping):
        return {"": told}
    flat: dict[str, object] = {}
    for name, value in told.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        flat |= {f"{name} {part}" if part else name: each for part, each in parts.items()}
    return flat


def _copy(grid: GridResult, point: PointResult) -> Html:
    output = point.check.output
    link: object = "no executed copy"
    if output.is_file() and output.is_relative_to(grid.folder):
        address = quote(output.relative_to(grid.folder).as_posix())
        link = joined("executed copy ", element("a", output.name, href=f"./{address}"))
    namespace = element("code", point.namespace)
    return element("p", link, " · namespace ", namespace, class_="facts")


def _pairs(pairs: Mapping[str, object]) -> Html:
    shown = [
        joined(element("dt", cut(str(name))), element("dd", short(value)))
        for name, value in list(pairs.items())[:_MOST]
    ]
    if len(pairs) > _MOST:
        shown.append(element("dt", f"and {len(pairs) - _MOST:,} more"))
    return element("dl", *shown)

"""The HTML of a grid's result: the report page, and the view of it in a notebook.

The page needs no script and loads nothing: style and pictures are in it, and its
Content-Security-Policy forbids the rest, in case that text from a notebook ever gets through as
markup.

Jinja2 renders the templates ``*.html.j2`` beside this module; it is imported when the first page is
rendered. Text from a notebook stays text: Jinja2 escapes each value (autoescape), and before that
`safe_text` replaces characters that cannot be seen and masks the passwords of URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mousetrap.check.page_style import style_sheet
from mousetrap.check.parameters import INSTALL
from mousetrap.check.pictures import PictureCollector
from mousetrap.check.results import JUNIT_FILE, RESULTS_FILE, GridResult, PointResult
from mousetrap.check.safe_text import safe_text
from mousetrap.check.table import (
    VERDICT_SIGNS,
    comparison_table,
    notebooks_of,
    readable,
    truncated,
    verdict_class,
)
from mousetrap.errors import CheckError
from mousetrap.model.error_kinds import MAX_KINDS, ErrorKind, further, kinds_in_summary
from mousetrap.model.summary import RunSummary
from mousetrap.model.summary_view import PERCENTILES

if TYPE_CHECKING:
    import jinja2

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_FOLDER = Path(__file__).parent
_MAX_ENTRIES = 60  # of a summary, of parameters, of stages
_MAX_STAGE_COLUMNS = 12  # a guess: more do not fit side by side


def report_page(grid: GridResult) -> str:
    """Return the page about *grid* as HTML, complete in itself.

    Raises:
        CheckError: Jinja2 is not installed.
    """
    collector = PictureCollector()
    pictures = {point.number: collector.pictures_of(point.check.output) for point in grid}
    return _render(
        "page.html.j2",
        grid=grid,
        table=comparison_table(grid),
        pictures=pictures,
        left_out=collector.left_out,
        notebooks=", ".join(notebooks_of(grid)),
        started_at=grid.started_at.replace("T", " ").removesuffix("+00:00"),
        shared=_shared_parameters(grid),
        failed=[point for point in grid if not point.passed],
        details=[_details(grid, point) for point in grid],
    )


def notebook_view(grid: GridResult) -> str:
    """Return the table for a notebook, with the outcome above it and the page's path below.

    Raises:
        CheckError: Jinja2 is not installed.
    """
    return _render("notebook.html.j2", grid=grid, table=comparison_table(grid))


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError:
        raise CheckError(
            f"Jinja2 is not installed, which writes the report page: {INSTALL}"
        ) from None
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Called with each value before it is escaped; Markup is what a template has rendered.
        finalize=lambda value: value if isinstance(value, Markup) else safe_text(value),
    )
    environment.filters |= {
        "readable": readable,
        "truncated": truncated,
        "verdict_class": verdict_class,
    }
    environment.globals |= {
        "policy": POLICY,
        "style": Markup(style_sheet()),  # noqa: S704 -- our own file and colours
        "signs": VERDICT_SIGNS,
        "data": RESULTS_FILE,
        "junit": JUNIT_FILE,
        "max_entries": _MAX_ENTRIES,
    }
    return environment


@dataclass(frozen=True)
class _Details:
    """What the page shows of one point beyond the table; `copy_address` is None without a copy."""

    point: PointResult
    copy_address: str | None
    lists: list[tuple[str, list[tuple[str, object]]]]
    stage_columns: list[str]
    stages: list[tuple[str, list[object]]]
    kinds: list[tuple[ErrorKind, float]]  # with the share in the largest
    further_kinds: str


def _details(grid: GridResult, point: PointResult) -> _Details:
    summary = dict(point.check.summary or {})
    # In the order of the fields of a RunSummary: the executed copy has them in alphabetical order.
    order = [field.name for field in fields(RunSummary) if field.name in summary]
    counts = {name: summary[name] for name in order} | summary
    stages = counts.pop("stages", None)
    kinds = kinds_in_summary(counts.get("reasons"))
    if kinds:
        del counts["reasons"]
    columns, rows = _stage_table(stages) if isinstance(stages, Mapping) else ([], [])
    lists = {"Parameters": point.check.parameters, "Summary": counts}
    return _Details(
        point,
        _copy_address(grid, point.check.output),
        [(title, list(pairs.items())) for title, pairs in lists.items() if pairs],
        columns,
        rows,
        [(kind, kind.number / kinds[0].number) for kind in kinds[:MAX_KINDS]],
        further(kinds, "message"),
    )


def _shared_parameters(grid: GridResult) -> list[tuple[str, object]]:
    """Return the parameters that are the same in all points, so that no row has to show them."""
    first, *others = [dict(each.check.parameters) for each in grid if each.has_started] or [{}]
    if not others or len(notebooks_of(grid)) > 1:
        return []
    return [
        (str(name), value)
        for name, value in first.items()
        if name not in grid.axes and all(each.get(name) == value for each in others)
    ]


def _stage_table(stages: Mapping[str, object]) -> tuple[list[str], list[tuple[str, list[object]]]]:
    """Return columns, and a row per stage.

    ``{"wait": {"p50": 0.1}}`` is 0.1 in the column "wait, half within, s".
    """
    flat = {name: _flat(stage) for name, stage in list(stages.items())[:_MAX_ENTRIES]}
    columns = list(dict.fromkeys(column for row in flat.values() for column in row))
    columns = columns[:_MAX_STAGE_COLUMNS]
    return columns, [(name, [row.get(each, "") for each in columns]) for name, row in flat.items()]


def _column(name: str, part: str) -> str:
    if part in PERCENTILES:
        return f"{name}, {PERCENTILES[part]}, s"
    return f"{name} {part}" if part else name


def _flat(stage: object) -> dict[str, Any]:
    if not isinstance(stage, Mapping):
        return {"": stage}
    flat: dict[str, Any] = {}
    for name, value in stage.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        flat |= {_column(name, part): each for part, each in parts.items()}
    return flat


def _copy_address(grid: GridResult, output: Path) -> str | None:
    if output.is_file() and output.is_relative_to(grid.folder):
        return f"./{quote(output.relative_to(grid.folder).as_posix())}"
    return None

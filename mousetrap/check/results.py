"""The results of a grid as values: in a notebook, in a script, and in ``results.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mousetrap.check.executed_notebook import CheckResult, FailingCell
from mousetrap.check.safe_text import without_passwords
from mousetrap.errors import CheckError

RESULTS_FILE = "results.json"
PAGE_FILE = "index.html"
JUNIT_FILE = "junit.xml"
FIGURES = ("done", "dead", "lost", "seconds", "p50", "p99")
"""The fields of a run's summary that a table shows; the last two are in its ``latency``."""

_FORMAT_VERSION = 2  # of the format of results.json
_html_renderer: Callable[[GridResult], str] | None = None


@dataclass(frozen=True)
class PointResult:
    """The result of one point of a grid; `check` is the result of its run.

    `has_started` is False if the grid ended before the point could start; `check.error` then says
    why. `varying` has the values of the axes, ``{"prefetch": 1, "jobs": 100}``.
    """

    number: int
    name: str
    varying: Mapping[str, object]
    namespace: str
    has_started: bool
    check: CheckResult

    @property
    def passed(self) -> bool:
        """Whether the point ran, all of its cells ran, and none raised."""
        return self.has_started and self.check.passed

    @property
    def verdict(self) -> str:
        """The verdict in words: ``passed``, ``failed`` or ``not run``."""
        if not self.has_started:
            return "not run"
        return "passed" if self.check.passed else "failed"

    @property
    def raised(self) -> bool:
        """Whether it failed because a cell raised, and not by a deadline or Ctrl-C."""
        failing, error = self.check.failing, self.check.error
        return failing is not None and error is not None and error.endswith(failing.error)

    @property
    def reason(self) -> str:
        """Why it did not pass; empty if it passed. `check.failing` has the cell that raised."""
        failing = self.check.failing
        return failing.error if failing is not None and self.raised else self.check.error or ""

    @property
    def figures(self) -> dict[str, object]:
        """Those of `FIGURES` that the summary of the run has."""
        summary = self.check.summary or {}
        latency = summary.get("latency")
        percentiles = latency if isinstance(latency, dict) else {}
        sources = [(summary, FIGURES[:-2]), (percentiles, FIGURES[-2:])]
        return {name: source[name] for source, names in sources for name in names if name in source}


@dataclass(frozen=True)
class GridResult:
    """The results of a grid, point by point; in a notebook it is shown as a table.

    `axes` are the names of the parameters that vary. `started_at` is a time in UTC, ISO 8601.
    `ended` says why the grid ended early; None if it did not. The report is in `folder`.
    """

    axes: tuple[str, ...]
    points: tuple[PointResult, ...]
    folder: Path
    started_at: str
    seconds: float
    parallel: int
    ended: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every point passed."""
        return all(point.passed for point in self.points)

    @property
    def page(self) -> Path:
        """The path of the report page."""
        return self.folder / PAGE_FILE

    def rows(self) -> list[dict[str, object]]:
        """Return one flat row per point: ``pandas.DataFrame(grid.rows())``.

        ``took`` is the time of the whole run, with the start of the kernel. A figure with the name
        of a parameter gets the prefix ``summary_``.
        """
        several = len({point.check.notebook for point in self.points}) > 1
        rows: list[dict[str, object]] = []
        for point in self.points:
            row: dict[str, object] = {"notebook": str(point.check.notebook)} if several else {}
            row |= point.varying
            figures = {"verdict": point.verdict, **point.figures}
            if point.has_started:
                figures["took"] = point.check.seconds
            rows.append(row | {f"summary_{n}" if n in row else n: v for n, v in figures.items()})
        return rows

    def count(self) -> dict[str, int]:
        """Return how many points have each verdict."""
        verdicts = [point.verdict for point in self.points]
        return {each: verdicts.count(each) for each in ("passed", "failed", "not run")}

    def sentence(self) -> str:
        """Return the result in one sentence: ``7 of 8 points passed``."""
        count, total = self.count(), len(self.points)
        noun = "point" if self.axes else "notebook"
        nouns = noun if total == 1 else f"{noun}s"
        not_run = f", {count['not run']} not run" if count["not run"] else ""
        return f"{count['passed']} of {total} {nouns} passed{not_run}"

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``results.json``: plain values that JSON can hold."""
        plain = {
            "version": _FORMAT_VERSION,
            "begun": self.started_at,
            "seconds": self.seconds,
            "parallel": self.parallel,
            "passed": self.passed,
            "ended": self.ended,
            "count": self.count(),
            "axes": list(self.axes),
            "points": [self._plain(point) for point in self.points],
        }
        return dict(_jsonable(plain))

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[PointResult]:
        return iter(self.points)

    def __repr__(self) -> str:
        """Return how many passed and where the page is; the summaries can be long."""
        return f"<GridResult {self.sentence()} in {self.seconds:.1f} s: {self.page}>"

    def _repr_html_(self) -> str | None:
        return None if _html_renderer is None else _html_renderer(self)

    def _plain(self, point: PointResult) -> dict[str, Any]:
        check = point.check
        output = check.output
        if output.is_relative_to(self.folder):  # so that the folder can be moved
            output = output.relative_to(self.folder)
        return {
            "number": point.number,
            "name": point.name,
            "notebook": str(check.notebook),
            "verdict": point.verdict,
            "varying": dict(point.varying),
            "parameters": dict(check.parameters),
            "namespace": point.namespace,
            "seconds": check.seconds,
            "cells": check.cells,
            "summary": check.summary,
            "error": check.error,
            "failing": check.failing and asdict(check.failing),
            "output": output.as_posix(),
        }


def register_html_renderer(render: Callable[[GridResult], str]) -> None:
    """Set the function that draws a `GridResult` as HTML in a notebook.

    `mousetrap.check` registers `mousetrap.check.page`. So the values here do not import their HTML.
    """
    global _html_renderer
    _html_renderer = render


def read_results(path: str | Path) -> GridResult:
    """Read the results of a grid: *path* is its folder, or the ``results.json`` in it.

    Raises:
        CheckError: the file does not exist, or has another content.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULTS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _grid(document, path.parent)
    except FileNotFoundError:
        raise CheckError(
            f"there is no {path}: give the folder that `mousetrap check --report` has written"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckError(
            f"{path} does not hold the results of a grid ({type(error).__name__}): give the "
            "results.json that `mousetrap check --report` has written"
        ) from None


def _grid(document: dict[str, Any], folder: Path) -> GridResult:
    if document["version"] != _FORMAT_VERSION:
        raise ValueError
    return GridResult(
        axes=tuple(document["axes"]),
        points=tuple(_point(each, folder) for each in document["points"]),
        folder=folder,
        started_at=document["begun"],
        seconds=float(document["seconds"]),
        parallel=int(document["parallel"]),
        ended=document["ended"],
    )


def _point(document: dict[str, Any], folder: Path) -> PointResult:
    return PointResult(
        number=int(document["number"]),
        name=str(document["name"]),
        varying=dict(document["varying"]),
        namespace=str(document["namespace"]),
        has_started=document["verdict"] != "not run",
        check=CheckResult(
            notebook=Path(document["notebook"]),
            output=folder / document["output"],
            parameters=dict(document["parameters"]),
            seconds=float(document["seconds"]),
            cells=int(document["cells"]),
            summary=document["summary"],
            failing=FailingCell(**document["failing"]) if document["failing"] else None,
            error=document["error"],
        ),
    )


def _jsonable(value: Any) -> Any:
    """Return *value* as plain values that JSON can hold, with the passwords in URLs masked."""
    if isinstance(value, Mapping):
        return {without_passwords(str(name)): _jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_passwords(str(value))

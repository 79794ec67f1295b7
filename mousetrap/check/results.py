"""What came of a grid, as values: in a notebook, in a script, and in ``results.json``."""

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
"""What a table shows of a record; the last two are percentiles of its latency."""

_FORMAT_VERSION = 1  # of the format of results.json
_html_renderer: Callable[[GridResult], str] | None = None


@dataclass(frozen=True)
class PointResult:
    """What came of one point of a grid; `check` is the result of its run.

    `begun` is False when there was no time left for it, or Ctrl-C came first; then `check.error`
    says so. `varying` is what sets the point apart, ``{"prefetch": 1, "jobs": 100}``.
    """

    number: int
    name: str
    varying: Mapping[str, object]
    namespace: str
    begun: bool
    check: CheckResult

    @property
    def passed(self) -> bool:
        """Whether it ran, and every cell did, and none raised."""
        return self.begun and self.check.passed

    @property
    def verdict(self) -> str:
        """In words: ``passed``, ``failed`` or ``not run``."""
        if not self.begun:
            return "not run"
        return "passed" if self.check.passed else "failed"

    @property
    def raised(self) -> bool:
        """Whether a cell of it is to blame, and no deadline and nobody's Ctrl-C."""
        failing, error = self.check.failing, self.check.error
        return failing is not None and error is not None and error.endswith(failing.error)

    @property
    def reason(self) -> str:
        """Why it did not pass; empty when it did. The cell is not named if it raised: see there."""
        failing = self.check.failing
        return failing.error if failing is not None and self.raised else self.check.error or ""

    @property
    def figures(self) -> dict[str, object]:
        """Those of `FIGURES` that its record has."""
        summary = self.check.summary or {}
        latency = summary.get("latency")
        percentiles = latency if isinstance(latency, dict) else {}
        told = [(summary, FIGURES[:-2]), (percentiles, FIGURES[-2:])]
        return {name: place[name] for place, names in told for name in names if name in place}


@dataclass(frozen=True)
class GridResult:
    """What came of a grid, point by point; shows itself as a table.

    `axes` names what varies; `begun` is a time in UTC, ISO 8601; `ended` says why not every point
    could run to its end, None when each could. The report is in `folder`.
    """

    axes: tuple[str, ...]
    points: tuple[PointResult, ...]
    folder: Path
    begun: str
    seconds: float
    parallel: int
    ended: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every point passed."""
        return all(point.passed for point in self.points)

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.folder / PAGE_FILE

    def rows(self) -> list[dict[str, object]]:
        """One flat row per point, for a table of your own: ``pandas.DataFrame(grid.rows())``.

        ``took`` is the whole run, its kernel included; a figure that is called like a parameter
        gets the prefix ``record_``.
        """
        several = len({point.check.notebook for point in self.points}) > 1
        rows: list[dict[str, object]] = []
        for point in self.points:
            row: dict[str, object] = {"notebook": str(point.check.notebook)} if several else {}
            row |= point.varying
            told = {"verdict": point.verdict, **point.figures}
            if point.begun:
                told["took"] = point.check.seconds
            rows.append(row | {f"record_{n}" if n in row else n: v for n, v in told.items()})
        return rows

    def count(self) -> dict[str, int]:
        """How many points have which verdict."""
        verdicts = [point.verdict for point in self.points]
        return {each: verdicts.count(each) for each in ("passed", "failed", "not run")}

    def sentence(self) -> str:
        """How it went, in one sentence: ``7 of 8 points passed``."""
        count, total = self.count(), len(self.points)
        noun = "point" if self.axes else "notebook"
        nouns = noun if total == 1 else f"{noun}s"
        not_run = f", {count['not run']} not run" if count["not run"] else ""
        return f"{count['passed']} of {total} {nouns} passed{not_run}"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, fit for JSON: what ``results.json`` holds."""
        plain = {
            "version": _FORMAT_VERSION,
            "begun": self.begun,
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
        """Say how it went and where the page is; the records may be long."""
        return f"<GridResult {self.sentence()} in {self.seconds:.1f} s: {self.page}>"

    def _repr_html_(self) -> str | None:
        return None if _html_renderer is None else _html_renderer(self)

    def _plain(self, point: PointResult) -> dict[str, Any]:
        check = point.check
        output = check.output
        if output.is_relative_to(self.folder):  # the folder may be moved, or be an artefact of CI
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
    """Read the results of a grid back: *path* is its folder, or the ``results.json`` in it.

    Raises:
        CheckError: there is no such file, or it is something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULTS_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return _grid(told, path.parent)
    except FileNotFoundError:
        raise CheckError(
            f"there is no {path}: give the folder that `mousetrap check --report` made"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckError(
            f"{path} does not hold the results of a grid ({type(error).__name__}): give the "
            "results.json that `mousetrap check --report` made"
        ) from None


def _grid(told: dict[str, Any], folder: Path) -> GridResult:
    if told["version"] != _FORMAT_VERSION:
        raise ValueError
    return GridResult(
        axes=tuple(told["axes"]),
        points=tuple(_point(each, folder) for each in told["points"]),
        folder=folder,
        begun=told["begun"],
        seconds=float(told["seconds"]),
        parallel=int(told["parallel"]),
        ended=told["ended"],
    )


def _point(told: dict[str, Any], folder: Path) -> PointResult:
    return PointResult(
        number=int(told["number"]),
        name=str(told["name"]),
        varying=dict(told["varying"]),
        namespace=str(told["namespace"]),
        begun=told["verdict"] != "not run",
        check=CheckResult(
            notebook=Path(told["notebook"]),
            output=folder / told["output"],
            parameters=dict(told["parameters"]),
            seconds=float(told["seconds"]),
            cells=int(told["cells"]),
            summary=told["summary"],
            failing=FailingCell(**told["failing"]) if told["failing"] else None,
            error=told["error"],
        ),
    )


def _jsonable(value: Any) -> Any:
    """Plain values without what JSON does not know, and without the passwords in URLs."""
    if isinstance(value, Mapping):
        return {without_passwords(str(name)): _jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_passwords(str(value))

"""Runs the points of a grid, several at a time, and writes the report about them.

Each point has its own process, namespace and executed copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mousetrap.check import executed_notebook
from mousetrap.check.child_process import PROGRESS_INTERVAL
from mousetrap.check.executed_notebook import CheckResult, read
from mousetrap.check.grid_points import Point, plan_points
from mousetrap.check.progress import CheckProgress
from mousetrap.check.report import write_report
from mousetrap.check.results import JUNIT_FILE, PAGE_FILE, RESULTS_FILE, GridResult, PointResult
from mousetrap.check.run import check, require_finite, require_installed
from mousetrap.errors import CheckError
from mousetrap.runtime import clock, threads
from mousetrap.runtime.atomic_file import is_replaceable

NAMESPACE_VARIABLE = "MOUSETRAP_NAMESPACE"
EXPIRE_VARIABLE = "MOUSETRAP_QUEUES_EXPIRE"
MAX_PARALLEL = 64  # a guess: each needs at least three processes


@dataclass(frozen=True)
class GridProgress:
    """The progress of a grid: the points that have `ended`, in that order, and those that run."""

    total: int
    ended: tuple[PointResult, ...] = ()
    running: tuple[tuple[Point, CheckProgress], ...] = ()


def check_grid(
    notebooks: str | Path | Iterable[str | Path],
    axes: Mapping[str, Iterable[object]] | None = None,
    parameters: Mapping[str, object] | None = None,
    *,
    parallel: int = 1,
    deadline: float = 300.0,
    total_deadline: float = 3600.0,
    folder: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_progress: Callable[[GridProgress], None] | None = None,
) -> GridResult:
    """Run each notebook at each point of a grid, and write a report about all points.

    The points are the product of the values of *axes*: ``{"prefetch": [1, 10], "jobs": [100]}`` has
    two points. Without axes there is one point per notebook. *parameters* are the same at each
    point. *parallel* points run at a time, each in its own process and with its own
    ``MOUSETRAP_NAMESPACE``, whose name begins with the namespace that is set. The other points go
    on when a point fails.

    The executed copies, ``index.html``, ``results.json`` and ``junit.xml`` are written to *folder*,
    by default ``_build/<name>.grid`` beside the notebook. *deadline* is the time of each point in
    seconds, as in `check`, and *total_deadline* that of all points together. After
    *total_deadline*, and after Ctrl-C, the points that run are ended, the others do not start, and
    the report is written; then the KeyboardInterrupt is raised again.

    `on_progress` is called when a point ends, and at least twice a second in between. An exception
    from it ends the grid as Ctrl-C does.

    Raises:
        ParameterError: before a point runs: a parameter or a value of an axis is unknown, mistyped
            or looks like a secret, or two points are the same.
        CheckError: before a point runs: a file is not a notebook, a package is not installed, or
            the report cannot be written.
        SettingsError: the namespace that is set is too long for the namespaces of the points.

    Threads: any. `on_progress` is called in the caller's thread.
    """
    _require_valid(parallel, deadline, total_deadline)
    listed = [notebooks] if isinstance(notebooks, str | Path) else list(notebooks)
    paths = [Path(notebook) for notebook in listed]
    environment = dict(environment or {})
    namespace = environment.get(NAMESPACE_VARIABLE, os.environ.get(NAMESPACE_VARIABLE, ""))
    points = plan_points(paths, axes or {}, parameters or {}, namespace)
    target = Path(folder) if folder is not None else default_folder(paths)
    _prepare(target, points)

    grid_run = _GridRun(target, deadline, environment)
    started_at, started = clock.now().isoformat(timespec="seconds"), clock.monotonic()
    try:
        grid_run.run(points, parallel, total_deadline, on_progress)
    finally:
        results = tuple(grid_run.result_of(point) for point in points)
        seconds = clock.monotonic() - started
        names, ended = tuple(axes or {}), grid_run.ended
        grid = GridResult(names, results, target, started_at, seconds, parallel, ended)
        write_report(grid)
    return grid


def _require_valid(parallel: int, deadline: float, total_deadline: float) -> None:
    require_finite("deadline", deadline)
    require_finite("total_deadline", total_deadline)
    require_installed("jinja2")  # for the report page
    if not 1 <= parallel <= MAX_PARALLEL:
        raise CheckError(f"parallel is {parallel!r}: it must lie in 1..{MAX_PARALLEL}")


def default_folder(notebooks: Sequence[Path]) -> Path:
    """Return the default folder: ``_build/check_x.grid``, for several ``_build/report``."""
    first = notebooks[0]
    return first.parent / "_build" / (f"{first.stem}.grid" if len(notebooks) == 1 else "report")


def _prepare(folder: Path, points: list[Point]) -> None:
    """Create *folder*, and delete the files of an earlier grid that have the same names."""
    sources = {point.notebook.resolve() for point in points}
    copies = [folder / point.file for point in points]
    for copy in copies:
        if copy.resolve() in sources:
            raise CheckError(f"an executed copy would overwrite {copy}: give another folder")
    if (folder / PAGE_FILE).exists() and not (folder / RESULTS_FILE).exists():
        raise CheckError(f"{folder / PAGE_FILE} was not written by a check: give another folder")
    executed_notebook.make_folder(folder)
    try:
        for path in (*copies, *(folder / name for name in (PAGE_FILE, JUNIT_FILE, RESULTS_FILE))):
            if is_replaceable(path):
                Path(os.path.realpath(path)).unlink(missing_ok=True)
    except OSError as error:
        raise CheckError(f"{error.filename} cannot be replaced: {error.strerror}") from None


class _GridEnded(CheckError):
    """Raised in a run to end it because the whole grid ends; the text is the reason."""


class _GridRun:
    """Runs the points in a pool of threads, and keeps their progress and their results.

    Threads: `run` and `result_of` belong to the caller's thread, `_run_point` to the pool's.
    """

    def __init__(self, folder: Path, deadline: float, environment: Mapping[str, str]) -> None:
        self.ended: str | None = None  # why the grid ends before all points have run
        self._folder = folder
        self._deadline = deadline
        self._environment = environment
        self._lock = threads.Lock()
        self._running: dict[int, tuple[Point, CheckProgress]] = {}
        self._results: dict[int, PointResult] = {}  # in the order they ended

    def run(
        self,
        points: list[Point],
        parallel: int,
        total_deadline: float,
        on_progress: Callable[[GridProgress], None] | None,
    ) -> None:
        """Run all *points*; when this returns or raises, no point is running."""
        until = clock.monotonic() + total_deadline
        with ThreadPoolExecutor(parallel, "mousetrap-check") as pool:
            waiting = {pool.submit(self._run_point, point) for point in points}
            try:
                while waiting:
                    ended, waiting = wait(waiting, PROGRESS_INTERVAL, FIRST_COMPLETED)
                    for each in ended:
                        each.result()  # re-raises an error of our own code in the thread
                    if on_progress is not None:
                        on_progress(self._progress(len(points)))
                    if waiting and self.ended is None and clock.monotonic() > until:
                        self.ended = (
                            f"the grid took longer than its deadline of {total_deadline:g} s: "
                            "set a longer one, or run more in parallel"
                        )
            except BaseException as problem:
                # Points that run see it within half a second; the others do not start.
                interrupted = isinstance(problem, KeyboardInterrupt)
                self.ended = "interrupted" if interrupted else f"ended by {_described(problem)}"
                raise

    def result_of(self, point: Point) -> PointResult:
        """Return the result of *point*; without one, the reason why the grid ended."""
        with self._lock:
            known = self._results.get(point.number)
            has_started = point.number in self._running
        return known or self._result(point, self._without_copy(point, f"{self.ended}"), has_started)

    def _run_point(self, point: Point) -> None:
        if self.ended is not None:
            return
        self._set_progress(point, CheckProgress())
        started = clock.monotonic()
        try:
            result = check(
                point.notebook,
                point.parameters,
                output=self._folder / point.file,
                deadline=self._deadline,
                environment={
                    **self._environment,
                    NAMESPACE_VARIABLE: point.namespace,
                    EXPIRE_VARIABLE: "1",
                },
                on_progress=partial(self._set_progress, point),
            )
        except Exception as error:  # noqa: BLE001 -- any error of one point: the other points go on
            result = self._failed(point, error, clock.monotonic() - started)
        with self._lock:
            del self._running[point.number]
            self._results[point.number] = self._result(point, result, has_started=True)

    def _set_progress(self, point: Point, progress: CheckProgress) -> None:
        if self.ended is not None:
            raise _GridEnded(self.ended)
        with self._lock:
            self._running[point.number] = (point, progress)

    def _progress(self, total: int) -> GridProgress:
        with self._lock:
            ended, running = tuple(self._results.values()), tuple(self._running.values())
        return GridProgress(total, ended, running)

    def _failed(self, point: Point, error: Exception, seconds: float) -> CheckResult:
        """Return the result of a failed run: from its executed copy, if there is one."""
        with suppress(CheckError):
            return read(self._folder / point.file)
        text = str(error) if isinstance(error, CheckError) else _described(error)
        return replace(self._without_copy(point, text), seconds=seconds)

    def _without_copy(self, point: Point, error: str) -> CheckResult:
        copy = self._folder / point.file
        return CheckResult(point.notebook, copy, point.parameters, error=error)

    def _result(self, point: Point, result: CheckResult, has_started: bool) -> PointResult:
        return PointResult(
            point.number, point.name, point.varying, point.namespace, has_started, result
        )


def _described(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"

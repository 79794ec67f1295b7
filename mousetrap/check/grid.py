"""Many runs at once: every point of a grid in a process, a namespace and a file of its own."""

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

NAMESPACE_VARIABLE = "MOUSETRAP_NAMESPACE"
MAX_PARALLEL = 64  # a guess: each is three processes at least


@dataclass(frozen=True)
class GridProgress:
    """A look at a grid: of *total* points these have `ended`, in that order, and these run."""

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
    """Run each notebook at each point of a grid, and write a report about all of them.

    The points are the product of the values of *axes*: ``{"prefetch": [1, 10], "jobs": [100]}``
    are two, and no axes one per notebook; *parameters* are the same in each. *parallel* of them run
    at a time, each in a process of its own and with a ``MOUSETRAP_NAMESPACE`` of its own, within
    the one that is set. A point that fails does not stop the others.

    Executed copies, ``index.html``, ``results.json`` and ``junit.xml`` go to *folder*, by default
    ``_build/<name>.grid`` beside the notebook. They are written also after Ctrl-C, which is raised
    again afterwards, and when *total_deadline*, in seconds for all points together, is up; what
    was running is ended then, and what had not begun does not begin. *deadline* is for each point,
    as in `check`.

    `on_progress` is called whenever a point ends, and at least twice a second in between; what it
    raises ends the grid like Ctrl-C.

    Raises:
        ParameterError: before anything runs: a parameter or a value of an axis is unknown,
            mistyped or looks like a secret, or two points are the same.
        CheckError: before anything runs: not a notebook, not installed, or no place for the report.
        SettingsError: the namespace that is set is too long for others within it.

    Threads: any; `on_progress` is called in the same one.
    """
    require_finite("deadline", deadline)
    require_finite("total_deadline", total_deadline)
    require_installed("jinja2")  # for the report page
    if not 1 <= parallel <= MAX_PARALLEL:
        raise CheckError(f"parallel is {parallel!r}: it must lie in 1..{MAX_PARALLEL}")
    listed = [notebooks] if isinstance(notebooks, str | Path) else list(notebooks)
    paths = [Path(notebook) for notebook in listed]
    environment = dict(environment or {})
    within = environment.get(NAMESPACE_VARIABLE, os.environ.get(NAMESPACE_VARIABLE, ""))
    points = plan_points(paths, axes or {}, parameters or {}, within)
    target = Path(folder) if folder is not None else default_folder(paths)
    _prepare(target, points)

    crew = _GridRun(target, deadline, environment)
    begun, started = clock.now().isoformat(timespec="seconds"), clock.monotonic()
    try:
        crew.run(points, parallel, total_deadline, on_progress)
    finally:
        grid = GridResult(
            axes=tuple(axes or {}),
            points=tuple(crew.result_of(point) for point in points),
            folder=target,
            begun=begun,
            seconds=clock.monotonic() - started,
            parallel=parallel,
            ended=crew.ended,
        )
        write_report(grid)
    return grid


def default_folder(notebooks: Sequence[Path]) -> Path:
    """Where the report goes: ``notebooks/_build/check_x.grid``; for several, ``_build/report``."""
    first = notebooks[0]
    return first.parent / "_build" / (f"{first.stem}.grid" if len(notebooks) == 1 else "report")


def _prepare(folder: Path, points: list[Point]) -> None:
    """Make *folder*, and take away what an earlier grid left where our files go."""
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
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CheckError(f"{error.filename} cannot be replaced: {error.strerror}") from None


class _GridEnded(CheckError):
    """Raised within a run to end it, because the whole grid ends; says why."""


class _GridRun:
    """The threads that wait for the points' processes, and what each has found so far.

    Threads: `run` and `result_of` on the caller's, the others on ours.
    """

    def __init__(self, folder: Path, deadline: float, environment: Mapping[str, str]) -> None:
        self.ended: str | None = None  # why no point may go on
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
        """Run all *points*; returns, or raises, when none runs any more."""
        until = clock.monotonic() + total_deadline
        with ThreadPoolExecutor(parallel, "mousetrap-check") as pool:
            waiting = {pool.submit(self._work, point) for point in points}
            try:
                while waiting:
                    ended, waiting = wait(waiting, PROGRESS_INTERVAL, FIRST_COMPLETED)
                    for each in ended:
                        each.result()  # what is raised there is a mistake of ours: not to be lost
                    if on_progress is not None:
                        on_progress(self._look(len(points)))
                    if waiting and self.ended is None and clock.monotonic() > until:
                        self.ended = (
                            f"the deadline of {total_deadline:g} s for the whole grid was up: "
                            "give it more time, or run more in parallel"
                        )
            except BaseException as problem:
                # Those that run see it within half a second; those that wait will not begin.
                interrupted = isinstance(problem, KeyboardInterrupt)
                self.ended = "interrupted" if interrupted else f"ended by {_described(problem)}"
                raise

    def result_of(self, point: Point) -> PointResult:
        """What is known of *point*; one without a result has none because the grid ended."""
        with self._lock:
            known = self._results.get(point.number)
            begun = point.number in self._running
        return known or self._result(point, self._blank(point, f"{self.ended}"), begun)

    def _work(self, point: Point) -> None:
        if self.ended is not None:
            return
        self._note(point, CheckProgress())
        begun = clock.monotonic()
        try:
            result = check(
                point.notebook,
                point.parameters,
                output=self._folder / point.file,
                deadline=self._deadline,
                environment={**self._environment, NAMESPACE_VARIABLE: point.namespace},
                on_progress=partial(self._note, point),
            )
        except Exception as error:  # noqa: BLE001 -- whatever it is: the neighbours go on
            result = self._failed(point, error, clock.monotonic() - begun)
        with self._lock:
            del self._running[point.number]
            self._results[point.number] = self._result(point, result, begun=True)

    def _note(self, point: Point, progress: CheckProgress) -> None:
        if self.ended is not None:
            raise _GridEnded(self.ended)
        with self._lock:
            self._running[point.number] = (point, progress)

    def _look(self, total: int) -> GridProgress:
        with self._lock:
            ended, running = tuple(self._results.values()), tuple(self._running.values())
        return GridProgress(total, ended, running)

    def _failed(self, point: Point, error: Exception, seconds: float) -> CheckResult:
        """What a failed run left: its executed copy says most, where there is one."""
        with suppress(CheckError):
            return read(self._folder / point.file)
        told = str(error) if isinstance(error, CheckError) else _described(error)
        return replace(self._blank(point, told), seconds=seconds)

    def _blank(self, point: Point, error: str) -> CheckResult:
        copy = self._folder / point.file
        return CheckResult(point.notebook, copy, point.parameters, error=error)

    def _result(self, point: Point, result: CheckResult, begun: bool) -> PointResult:
        return PointResult(point.number, point.name, point.varying, point.namespace, begun, result)


def _described(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"

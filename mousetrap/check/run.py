"""Runs one notebook from its first cell to its last, and decides whether it passed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mousetrap.check import executed_notebook
from mousetrap.check.child_process import PapermillProcess
from mousetrap.check.copy_place import can_be_read, place_for, target_of
from mousetrap.check.drift import refuse_drift
from mousetrap.check.executed_notebook import CheckResult, FailingCell, read
from mousetrap.check.kernel_sockets import language_of
from mousetrap.check.notebook_format import text_of
from mousetrap.check.parameters import INSTALL, convert_parameters, parameters_in, read_notebook
from mousetrap.check.progress import CheckProgress, read_stage_counts
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded
from mousetrap.runtime import clock, randomness


def check(
    notebook: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    output: str | Path | None = None,
    deadline: float = 300.0,
    environment: Mapping[str, str] | None = None,
    on_cell: Callable[[int, int], None] | None = None,
    on_progress: Callable[[CheckProgress], None] | None = None,
    on_failure: Callable[[], object] | None = None,
) -> CheckResult:
    """Run *notebook* with *parameters* from its first cell to its last.

    A value that is text is converted to the type that the notebook declares (``{"jobs": "500"}``).
    The kernel runs in the notebook's folder, as in JupyterLab, with the variables of this process
    and those of *environment*. The executed copy is kept at *output*, by default
    ``_build/<name>.ipynb`` beside the notebook. It is kept after a failure, too, and only its owner
    can read it (permissions 0600). ``-`` is the standard output. A device or a pipe gets the copy
    at the end of the run; it is not replaced by a file, and a link is not, either.

    `on_cell` is called with (done, total) when a code cell ends. `on_progress` is called when a
    cell begins or ends, and at least twice a second in between. `on_failure` is called when a cell
    has raised or the deadline has passed, while the kernel and its child processes still run, so
    that it can inspect them. An exception from any of the three ends the run.

    The whole run has *deadline* seconds. After that the cell is interrupted; the kernel, and each
    process that it started, is killed if it does not end within about 5 s. The same happens on
    Ctrl-C, and when this process is killed. Processes that the notebook leaves running are ended
    after every run.

    Raises:
        ParameterError: a parameter is unknown, mistyped or looks like a secret.
        Drifted: a function marked as the same as one in a package differs from it.
        CheckFailed: a cell raised or never ran, or the kernel died; `output` is the executed copy.
        DeadlineExceeded: the run took longer than *deadline*; `output` is the executed copy.
        CheckError: the file is not a notebook, a package or the kernel is not installed, or the
            executed copy cannot be written.

    Threads: any. `on_cell`, `on_progress` and `on_failure` are called in the caller's thread.
    """
    started = clock.monotonic()
    path = Path(notebook)
    require_finite("deadline", deadline)
    require_installed()
    document = read_notebook(path)
    given = convert_parameters(parameters or {}, parameters_in(document, path), path)
    refuse_drift(document, path)
    target = target_of(path, output)
    with place_for(target, path) as place:
        run = _NotebookRun(path, document, place, deadline, started)
        error = run.execute(given, environment or {}, on_cell, on_progress, on_failure)
        if error is not None:
            error.args = (f"{error}\nExecuted copy: {target}",)
            error.output = target if can_be_read(target) else None
            raise error
        return replace(read(place), output=target)


class _NotebookRun:
    """One run of a notebook, and the facts about it that its executed copy contains.

    Threads: one.
    """

    def __init__(
        self, path: Path, document: Any, target: Path, deadline: float, started: float
    ) -> None:
        self.target = target
        self._path = path
        self._document = document
        self._deadline = deadline
        self._started = started
        self._run_id = randomness.new_id()
        self._draft = target.absolute().with_name(f".{target.stem}.{self._run_id[:8]}.ipynb")
        self._facts: dict[str, Any] = {
            "notebook": str(path), "deadline": deadline, "error": None, "failing": None
        }  # fmt: skip
        self._first_lines = {
            number: executed_notebook.first_line(cell)
            for _, number, cell in executed_notebook.code_cells(document)
        }

    def execute(
        self,
        parameters: Mapping[str, object],
        environment: Mapping[str, str],
        on_cell: Callable[[int, int], None] | None,
        on_progress: Callable[[CheckProgress], None] | None,
        on_failure: Callable[[], object] | None,
    ) -> CheckError | None:
        """Run the notebook in a child process, write the executed copy, and return the error."""
        executed_notebook.create_draft(self._draft, text_of(self._document))
        error: CheckError | None = None
        with PapermillProcess(self._job(parameters), environment) as child:
            try:
                on_event = partial(self._report, child, on_cell, on_progress)
                in_time = child.follow(self._started + self._deadline, on_event, on_failure)
                child.stop()
                deadline = None if in_time else self._deadline
                error, failing = _verdict(child, self._draft, self._path, deadline)
                self._facts["error"] = error and str(error)
                self._facts["failing"] = failing and asdict(failing)
            except BaseException as problem:
                self._facts["error"] = (
                    str(problem)
                    if isinstance(problem, CheckError)
                    else f"the run was ended by {type(problem).__name__}"
                )
                child.stop()
                raise
            finally:
                self._facts["seconds"] = clock.monotonic() - self._started
                save_error = executed_notebook.finish(self._draft, self.target, self._facts)
        if save_error and error is None:
            return CheckError(f"{self._path} passed, but {save_error}")
        return error

    def _job(self, parameters: Mapping[str, object]) -> dict[str, Any]:
        source = self._path.absolute()
        return {
            "notebook": str(source),
            "folder": str(source.parent),
            "draft": str(self._draft),
            "output": str(self.target.absolute()),
            "parameters": parameters,
            "kernel": self._document.metadata.get("kernelspec", {}).get("name") or "python3",
            "language": language_of(self._document),
            "run_id": self._run_id,
            "facts": self._facts,
        }

    def _report(
        self,
        child: PapermillProcess,
        on_cell: Callable[[int, int], None] | None,
        on_progress: Callable[[CheckProgress], None] | None,
        cell_ended: bool,
    ) -> None:
        total = len(self._first_lines)
        if on_cell is not None and cell_ended:
            on_cell(child.done, total)
        if on_progress is not None:
            line = self._first_lines.get(child.number, "")
            counts = read_stage_counts(child.progress_file)
            on_progress(CheckProgress(child.done, total, child.number, line, **counts))


def require_finite(name: str, seconds: float) -> None:
    """Refuse a limit that would let a run go on for ever.

    Raises:
        CheckError: *seconds* is not a finite number above 0.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise CheckError(f"{name} is {seconds!r}: it must be a number of seconds above 0")


def require_installed(*more: str) -> None:
    """Check that the packages that run notebooks are installed, and *more* modules.

    Raises:
        CheckError: one is missing; says what to install.
    """
    for module in ("papermill", "ipykernel", "psutil", *more):
        if importlib.util.find_spec(module) is None:
            raise CheckError(f"{module} is not installed, and a check needs it: {INSTALL}")


def _verdict(
    child: PapermillProcess, draft: Path, notebook: Path, deadline: float | None
) -> tuple[CheckError | None, FailingCell | None]:
    """Return the error of the run, if any, and the failing cell.

    They follow from the child's events and from the executed copy.
    """
    document = read_notebook(draft)
    failing = executed_notebook.failing_cell(document)
    if deadline is not None:
        at = (
            executed_notebook.cell_named(document, child.number, f"{deadline:g} s were up")
            or failing
        )
        where = f" in {_place(at)}" if child.number and at else " before its first cell"
        return DeadlineExceeded(
            f"{notebook} took longer than its deadline of {deadline:g} s{where}\n"
            "Its kernel and all processes that it had started were ended. Set a longer deadline, "
            "or find out what does not end there"
        ), at
    if child.unsaved:  # papermill stops when it cannot save
        at = executed_notebook.cell_named(document, child.number, child.unsaved)
        where = f" in {_place(at)}" if at else " before its first cell"
        return CheckError(
            f"{notebook} was stopped{where}\n{child.unsaved}. Free some space there, or give "
            "another output"
        ), at
    reason = child.reason
    if reason is not None and not child.number:
        return CheckError(f"{notebook} could not be run: {reason}"), None
    failing = _first_failing(document, child)
    if failing is not None:
        return CheckFailed(f"{notebook} failed in {_place(failing)}\n{failing.error}"), failing
    if child.has_failed:
        return CheckFailed(f"{notebook} failed, and papermill does not say in which cell"), None
    return None, None


def _first_failing(document: Any, child: PapermillProcess) -> FailingCell | None:
    """Return the first failing cell: of those in the copy, and those that *child* reported.

    The copy lacks the error of a kernel that died, and what papermill could not save.
    """
    died, failed = child.reason and (child.number, child.reason), child.failed
    found = [
        executed_notebook.cell_named(document, *died) if died else None,
        executed_notebook.failing_cell(document),
        executed_notebook.cell_named(document, *failed) if failed else None,
    ]
    return min((each for each in found if each), key=lambda each: each.number, default=None)


def _place(cell: FailingCell) -> str:
    count = "" if cell.count is None else f" (In [{cell.count}])"
    return f"cell {cell.number}{count}: {cell.line}"

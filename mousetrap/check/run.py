"""One run of one notebook, from its first cell to its last, and the verdict on it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mousetrap.check import executed_notebook
from mousetrap.check.child_process import PapermillProcess
from mousetrap.check.drift import refuse_drift
from mousetrap.check.executed_notebook import CheckResult, FailingCell, default_output, read
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
    """Run *notebook* with *parameters* from its first cell to its last, or say why not.

    Text is converted to the type that the notebook declares (``{"jobs": "500"}``). The kernel runs
    in the notebook's folder, as in JupyterLab; *environment* is added to ours. The executed copy
    is kept at *output*, by default ``_build/<name>.ipynb`` beside the notebook, whatever happens,
    with permissions 0600.

    `on_cell` is called with (done, total) as code cells end. `on_progress` is called whenever a
    cell begins or ends, and at least twice a second in between. `on_failure` is called when a cell
    has raised or time is up, while the kernel and all it started still live: the last chance to
    see how things stand. What any of them raises ends the run.

    The whole run has *deadline* seconds; after that the cell is interrupted, and what does not end
    by itself within some 5 s is killed: the kernel and every process it started. The same
    happens on Ctrl-C, and when this process is killed. Processes that a notebook leaves behind
    are ended in any case.

    Raises:
        ParameterError: a parameter is unknown, mistyped or looks like a secret.
        Drifted: a function that is said to be the package's is not the same any more.
        CheckFailed: a cell raised, never ran, or the kernel died; `output` is the executed copy.
        DeadlineExceeded: time was up; `output` is the executed copy.
        CheckError: not a notebook, not installed, no such kernel, or no place for the copy.

    Threads: any; `on_cell`, `on_progress` and `on_failure` are called in the same one.
    """
    begun = clock.monotonic()
    shown, source = Path(notebook), Path(notebook).absolute()
    require_finite("deadline", deadline)
    require_installed()
    document = read_notebook(shown)
    given = convert_parameters(parameters or {}, parameters_in(document, shown), shown)
    refuse_drift(document, shown)
    target = Path(output) if output is not None else default_output(shown)
    if target.resolve() == source.resolve():
        raise CheckError(f"the executed copy would overwrite {shown}: give another output")
    if target.is_dir():
        raise CheckError(f"output {target} is a folder: give a file name in it")

    mark = randomness.new_id()
    facts = {"notebook": str(shown), "deadline": deadline, "error": None, "failing": None}
    draft = target.absolute().with_name(f".{target.stem}.{mark[:8]}.ipynb")
    job = {
        "notebook": str(source),
        "folder": str(source.parent),
        "draft": str(draft),
        "output": str(target.absolute()),
        "parameters": given,
        "kernel": document.metadata.get("kernelspec", {}).get("name") or "python3",
        "language": _language(document),
        "mark": mark,
        "facts": facts,
    }
    executed_notebook.create_draft(draft, source.read_text(encoding="utf-8"))
    error: CheckError | None = None
    lines = {
        number: executed_notebook.first_line(cell)
        for _, number, cell in executed_notebook.code_cells(document)
    }
    with PapermillProcess(job, environment or {}) as child:

        def tell(ended: bool) -> None:
            if on_cell is not None and ended:
                on_cell(child.done, len(lines))
            if on_progress is not None:
                line = lines.get(child.number, "")
                told = read_stage_counts(child.progress_file)
                on_progress(CheckProgress(child.done, len(lines), child.number, line, **told))

        try:
            in_time = child.follow(begun + deadline, tell, on_failure)
            child.stop()
            error, failing = _verdict(child, draft, shown, None if in_time else deadline)
            facts |= {"error": error and str(error), "failing": failing and asdict(failing)}
        except BaseException as problem:
            facts["error"] = (
                str(problem)
                if isinstance(problem, CheckError)
                else f"the run was ended by {type(problem).__name__}"
            )
            child.stop()
            raise
        finally:
            facts["seconds"] = clock.monotonic() - begun
            save_error = executed_notebook.finish(draft, target, facts)
    if save_error and error is None:
        error = CheckError(f"{shown} passed, but {save_error}")
    if error is not None:
        error.args = (f"{error}\nExecuted copy: {target}",)
        error.output = target
        raise error
    return read(target)


def require_finite(name: str, seconds: float) -> None:
    """Every run ends.

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
    """Say whether the run passed, from what the child reported and what the copy shows."""
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
            "Its kernel and all it had started were ended. Give it more time, or look there for "
            "what never ends"
        ), at
    if child.unsaved:  # papermill gives up when it cannot save
        at = executed_notebook.cell_named(document, child.number, child.unsaved)
        where = f" in {_place(at)}" if at else " before its first cell"
        return CheckError(
            f"{notebook} was stopped{where}\n{child.unsaved}. Make room there, or name another "
            "output"
        ), at
    reason = child.reason
    if reason is not None and not child.number:
        return CheckError(f"{notebook} could not be run: {reason}"), None
    if reason is not None:
        failing = executed_notebook.cell_named(document, child.number, reason)
    if failing is not None:
        return CheckFailed(f"{notebook} failed in {_place(failing)}\n{failing.error}"), failing
    return None, None


def _place(cell: FailingCell) -> str:
    count = "" if cell.count is None else f" (In [{cell.count}])"
    return f"cell {cell.number}{count}: {cell.line}"


def _language(document: Any) -> str:
    metadata = document.metadata
    return (
        metadata.get("language_info", {}).get("name")
        or metadata.get("kernelspec", {}).get("language")
        or "python"
    )

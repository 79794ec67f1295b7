"""Run a notebook as a check: papermill under strict rules.

What papermill lets pass is an error here. A parameter that is unknown, mistyped or looks like a
secret: no kernel is started (`mousetrap.check.parameters`), nor where a function is said to be the
package's and is not (`mousetrap.check.drift`). A notebook that does not end: at the
deadline its kernel and all it started are ended (`mousetrap.check.descendants`). A cell that
leaves by ``SystemExit(0)``, or takes the kernel with it: that is a failure. And the executed copy
is always kept, in one piece, with the failing cell named (`mousetrap.check.executed`).

papermill runs in a process of its own (`mousetrap.check.runner`): it can be ended when it hangs,
and it ends the kernel when we are killed. Importing this module imports neither papermill nor
IPython.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mousetrap.check import executed
from mousetrap.check.drift import refuse_drift
from mousetrap.check.executed import CheckResult, FailingCell, default_output, read
from mousetrap.check.parameters import (
    INSTALL,
    Parameter,
    fit,
    parameters_in,
    parameters_of,
    parse_parameters,
    read_notebook,
)
from mousetrap.errors import CheckError, CheckFailed, DeadlineExceeded

if TYPE_CHECKING:
    from mousetrap.check.descendants import Descendants

__all__ = [
    "CheckResult",
    "FailingCell",
    "Parameter",
    "check",
    "default_output",
    "parameters_of",
    "parse_parameters",
    "read",
]


def check(
    notebook: str | Path,
    parameters: Mapping[str, object] | None = None,
    *,
    output: str | Path | None = None,
    deadline: float = 300.0,
    environment: Mapping[str, str] | None = None,
    on_cell: Callable[[int, int], None] | None = None,
    on_failure: Callable[[], object] | None = None,
) -> CheckResult:
    """Run *notebook* with *parameters* from its first cell to its last, or say why not.

    Text is converted to the type that the notebook declares (``{"jobs": "500"}``). The kernel runs
    in the notebook's folder, as in JupyterLab; *environment* is added to ours. `on_cell` is called
    with (done, total) as code cells end, `on_failure` when a cell has raised or time is up, while
    the kernel and all it started still live: the last chance to see how things stand. The executed
    copy is kept at *output*, by default ``_build/<name>.ipynb`` beside the notebook, whatever
    happens, with permissions 0600.

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

    Threads: any; `on_cell` and `on_failure` are called in the same one.
    """
    begun = time.monotonic()
    shown, source = Path(notebook), Path(notebook).absolute()
    if not (deadline > 0 and math.isfinite(deadline)):
        raise CheckError(f"deadline is {deadline!r}: it must be a number of seconds above 0")
    for module in ("papermill", "ipykernel", "psutil"):
        if importlib.util.find_spec(module) is None:
            raise CheckError(f"{module} is not installed, which runs notebooks: {INSTALL}")
    document = read_notebook(shown)
    given = fit(parameters or {}, parameters_in(document, shown), shown)
    refuse_drift(document, shown)
    target = Path(output) if output is not None else default_output(shown)
    if target.resolve() == source.resolve():
        raise CheckError(f"the executed copy would overwrite {shown}: give another output")
    if target.is_dir():
        raise CheckError(f"output {target} is a folder: give a file name in it")

    mark = uuid.uuid4().hex
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
    executed.open_draft(draft, source.read_text(encoding="utf-8"))
    error: CheckError | None = None
    with _Runner(job, environment or {}) as runner:
        total = sum(1 for _ in executed.code_cells(document))
        try:
            in_time = runner.follow(begun + deadline, on_cell, on_failure, total)
            runner.stop()
            error, failing = _verdict(runner, draft, shown, None if in_time else deadline)
            facts |= {"error": error and str(error), "failing": failing and asdict(failing)}
        except BaseException as problem:
            facts["error"] = f"the run was ended by {type(problem).__name__}"
            runner.stop()
            raise
        finally:
            executed.finish(draft, target, facts | {"seconds": time.monotonic() - begun})
    if error is not None:
        error.args = (f"{error}\nExecuted copy: {target}",)
        error.output = target
        raise error
    return read(target)


def _verdict(
    runner: _Runner, draft: Path, notebook: Path, deadline: float | None
) -> tuple[CheckError | None, FailingCell | None]:
    """Say whether the run passed, from what the runner reported and what the copy shows."""
    document = read_notebook(draft)
    failing = executed.failing_cell(document)
    if deadline is not None:
        at = executed.cell_named(document, runner.number, f"{deadline:g} s were up") or failing
        where = f" in {_place(at)}" if runner.number and at else " before its first cell"
        return DeadlineExceeded(
            f"{notebook} took longer than its deadline of {deadline:g} s{where}\n"
            "Its kernel and all it had started were ended. Give it more time, or look there for "
            "what never ends"
        ), at
    reason = runner.reason
    if reason is not None and not runner.number:
        return CheckError(f"{notebook} could not be run: {reason}"), None
    if reason is not None:
        failing = executed.cell_named(document, runner.number, reason)
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


class _Runner:
    """The child process with papermill in it, and all that descends from it."""

    def __init__(self, job: dict[str, Any], environment: Mapping[str, str]) -> None:
        self._job = job
        self._environment = environment
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._end: dict[str, Any] | None = None
        self._gone = False
        self.number = 0  # of the last cell that was begun, in the source notebook

    def __enter__(self) -> _Runner:
        from mousetrap.check.descendants import MARK, Descendants

        self._folder = tempfile.TemporaryDirectory(prefix="mousetrap-", ignore_cleanup_errors=True)
        self._stderr = open(Path(self._folder.name, "stderr"), "w+b")
        self._process = subprocess.Popen(
            # -P: a json.py where we happen to stand is not the one to import
            [sys.executable, "-P", "-m", "mousetrap.check.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **self._environment, MARK: self._job["mark"]},
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it in good order
        )
        self._descendants: Descendants = Descendants(self._process.pid, self._job["mark"])
        threading.Thread(target=self._read_events, daemon=True).start()
        job = self._job | {"scratch": self._folder.name}
        self._send(json.dumps(job).encode() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()  # the lifeline: now it may go
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()
        self._folder.cleanup()

    def follow(
        self,
        until: float,
        on_cell: Callable[[int, int], None] | None,
        on_failure: Callable[[], object] | None,
        total: int,
    ) -> bool:
        """Read events until the run is over; False when time was up before."""
        done = 0
        while (remaining := until - time.monotonic()) > 0:
            try:
                # Short waits, because Windows does not see Ctrl-C while it waits for a lock.
                event = self._events.get(timeout=min(remaining, 0.5))
            except queue.Empty:
                continue
            # Now, while the parents live: who is started with another environment and then
            # orphaned could not be found later.
            self._descendants.look()
            if event is None or event["event"] == "end":
                self._end, self._gone = event, event is None
                return True
            if event["event"] == "begun":
                self.number = event["number"]
            elif event["event"] == "failed":
                try:
                    if on_failure is not None:
                        on_failure()
                finally:
                    self._send(b"seen\n")  # until then the kernel is kept alive
            elif on_cell is not None:
                done += 1
                on_cell(done, total)
        if on_failure is not None:
            on_failure()
        return False

    def stop(self) -> None:
        """End the run if it is not over, and whatever it left running; nothing writes any more.

        The cell is interrupted first, so that it can clean up and papermill can save where it
        was. papermill goes before the kernel does: it would report a death that we caused.
        """
        from mousetrap.check.descendants import INTERRUPT_PATIENCE, TERMINATE_PATIENCE

        if self._end is None and not self._gone:
            self._descendants.look()
            self._descendants.interrupt_children()
            if not self._ends_within(INTERRUPT_PATIENCE):
                self._process.kill()
                self._process.wait()
        self._descendants.end(TERMINATE_PATIENCE)

    def _ends_within(self, patience: float) -> bool:
        limit = time.monotonic() + patience
        while (remaining := limit - time.monotonic()) > 0:
            with suppress(queue.Empty):
                event = self._events.get(timeout=remaining)
                if event is None or event["event"] == "end":
                    return event is not None
        return False

    @property
    def reason(self) -> str | None:
        """Why papermill could not go on; None when it could, or a cell raised."""
        if self._end is None:
            return f"the process that ran it ended by itself{self._last_words()}"
        kind, error = self._end["kind"], self._end["error"]
        if kind in (None, "PapermillExecutionError"):
            return None
        if kind == "DeadKernelError":
            return "the kernel died: a cell left by os._exit, crashed it, or used up the memory"
        if kind == "NoSuchKernel":
            return (
                f"there is no kernel named {self._job['kernel']!r}; see `jupyter kernelspec list`, "
                "or save the notebook with the kernel 'python3'"
            )
        return executed.plain(f"{kind}: {error}{self._last_words()}")

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()[-5:]
        return "".join(f"\n  {line}" for line in lines)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it died already: the missing events will tell
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._process.stdout.close()
        self._events.put(None)

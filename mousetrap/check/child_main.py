"""The program of the child process in which papermill runs, so that the parent can end it.

Only `mousetrap.check.check` starts it. The parent writes the job as one line of JSON to standard
input, and keeps standard input open as a lifeline. The child writes its events to standard output,
one line of JSON each. After the event of a failed cell the child keeps the kernel running until the
parent answers with a line. When standard input ends, the parent was killed; then the child ends the
kernel, and all processes that it started.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mousetrap.check import executed_notebook
from mousetrap.check.descendants import INTERRUPT_TIMEOUT, TERMINATE_TIMEOUT, Descendants
from mousetrap.check.kernel_reply import failure_in, show_failure
from mousetrap.check.kernel_sockets import kernel_sockets
from mousetrap.check.parameters import skip_slow_imports
from mousetrap.errors import CheckError
from mousetrap.runtime import threads
from mousetrap.runtime.atomic_file import write_atomically

INSPECT_TIMEOUT = 30.0  # seconds that the parent has to inspect a failure; a guess


def main() -> None:
    """Run the notebook of the job on standard input, and write events to standard output."""
    # Use copies of both streams: the kernel inherits descriptors 0 and 1, and what it writes there
    # must not look like an event.
    lifeline, reports = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    skip_slow_imports()
    job = json.loads(_read_line(lifeline))
    # jupyter_client writes the kernel's connection file, with its key, into the folder for
    # temporary files. This folder is removed even if the kernel is killed. It is set for this
    # process only: the kernel's own temporary files are not affected.
    tempfile.tempdir = job["scratch"]
    run = _Run(job, reports)
    threads.Thread(target=run.watch, args=(lifeline,), daemon=True).start()
    run.execute()


class _Run:
    """Threads: `execute` runs in the main thread, `watch` in another."""

    def __init__(self, job: dict[str, Any], reports: Any) -> None:
        self._job = job
        self._reports = reports
        self._numbers: dict[int, int] = {}  # of each cell of the source, by its index in the copy
        self._inserted: dict[int, int] = {}  # of papermill's cell of parameters
        self._inspected = threads.Event()
        self._finished = threads.Event()
        self._released = threads.Event()

    def execute(self) -> None:
        error = kind = None
        try:
            self._execute()
        except Exception as problem:  # noqa: BLE001 -- the parent reports it
            kind = type(problem).__name__
            error = str(problem)
        self._finished.set()
        self._report(event="end", kind=kind, error=error)
        self._released.wait()

    def watch(self, lifeline: int) -> None:
        """Wait until the lifeline ends; then end all processes and keep the executed copy."""
        while os.read(lifeline, 4096):
            self._inspected.set()
        draft = Path(self._job["draft"])
        if not draft.exists():  # the parent has made it the executed copy: a normal end
            self._released.set()
            return
        processes = Descendants(os.getpid(), self._job["run_id"])
        processes.update()
        processes.interrupt_children()
        self._finished.wait(INTERRUPT_TIMEOUT)
        processes.terminate(TERMINATE_TIMEOUT)
        facts = self._job["facts"] | {"error": "the process that started this run was ended"}
        executed_notebook.finish(draft, Path(self._job["output"]), facts)
        shutil.rmtree(self._job["scratch"], ignore_errors=True)
        os._exit(1)  # the main thread may wait in papermill for the killed kernel

    def _execute(self) -> None:
        import papermill
        from papermill.iorw import papermill_io

        draft = self._job["draft"]
        drafts = _Draft(Path(draft), Path(self._job["output"]))
        papermill_io.register(self._job["notebook"], drafts)
        papermill_io.register(draft, drafts)
        papermill.execute_notebook(
            _literal(self._job["notebook"]),
            _literal(draft),
            self._job["parameters"],
            kernel_name=self._job["kernel"],
            language=self._job["language"],
            cwd=self._job["folder"],
            progress_bar=False,
            autosave_cell_every=2,  # seconds: keeps the output of a cell that hangs
            config=kernel_sockets(Path(self._job["scratch"]), self._job["language"]),
            on_notebook_start=self._on_notebook_start,
            on_cell_execute=self._on_cell_begun,
            on_cell_executed=self._on_cell_done,
        )

    def _on_notebook_start(self, notebook: Any) -> None:
        self._numbers = {
            index: number for index, number, _ in executed_notebook.code_cells(notebook)
        }
        self._inserted = {
            index: number
            for index, number, _ in executed_notebook.runnable_cells(notebook)
            if index not in self._numbers
        }

    def _on_cell_begun(self, cell: Any, cell_index: int) -> None:  # noqa: ARG002 -- nbclient's names
        if cell_index in self._numbers:
            self._report(event="begun", number=self._numbers[cell_index])

    def _on_cell_done(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        reply = execute_reply["content"]
        failure = failure_in(reply, cell)
        if failure is not None:
            show_failure(reply, cell)
            self._inspected.clear()
            number = (self._numbers | self._inserted)[cell_index]
            self._report(event="failed", number=number, error=failure)
            self._inspected.wait(INSPECT_TIMEOUT)
        elif cell_index in self._numbers:
            self._report(event="done")

    def _report(self, **event: Any) -> None:
        with suppress(OSError):  # the parent is gone; `watch` sees that the lifeline ends
            self._reports.write(json.dumps(event) + "\n")
            self._reports.flush()


class _Draft:
    """Reads the notebook from the draft of its copy, and writes papermill's output atomically.

    The parent has written the draft from the notebook, complete: papermill itself fails on a cell
    without metadata. papermill itself can also leave half a file when it is killed.
    """

    def __init__(self, draft: Path, output: Path) -> None:
        self._draft = draft
        self._output = output

    def read(self, path: str) -> str:  # noqa: ARG002 -- the notebook's, papermill's interface
        return self._draft.read_text(encoding="utf-8")

    def write(self, text: str, path: str) -> None:
        try:
            write_atomically(Path(path), text)
        except OSError as error:
            raise CheckError(executed_notebook.save_error(self._output, error)) from None

    def pretty_path(self, path: str) -> str:
        return path


def _literal(path: str) -> str:
    """Escape braces in *path*, because papermill replaces ``{name}`` by a parameter."""
    return path.replace("{", "{{").replace("}", "}}")


def _read_line(descriptor: int) -> bytes:
    # Not with a buffered file: the thread of `watch` would hold its lock when Python exits.
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(descriptor, 65_536)
        if not chunk:
            raise SystemExit("mousetrap.check.child_main is started by mousetrap.check only")
        line += chunk
    return line


if __name__ == "__main__":
    main()

"""The child process in which papermill runs, so that whoever waits for it can always end it.

Spoken to by `mousetrap.check.check` only: one line of JSON arrives on standard input, which then
stays open as a lifeline; lines of JSON leave on standard output, one per event. The event of a cell
that failed is answered by a line on the lifeline, and the kernel waits for that. When the lifeline
breaks, our parent was killed; then we end the kernel, and all it started, ourselves.
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
from mousetrap.check.parameters import skip_slow_imports
from mousetrap.errors import CheckError
from mousetrap.runtime import threads
from mousetrap.runtime.atomic_file import write_atomically

INSPECT_TIMEOUT = 30.0  # seconds that the parent has to inspect a failure; a guess


def main() -> None:
    """Run the notebook named on standard input and report on standard output."""
    # Take both streams for ourselves: a kernel inherits what is left on 0 and 1, and what it
    # writes there must not look like an event.
    lifeline, reports = os.dup(0), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    skip_slow_imports()
    job = json.loads(_read_line(lifeline))
    # jupyter_client puts the kernel's connection file, with its key, where temporary files go:
    # into a folder that is removed even if the kernel is killed. The kernel's own stay as they are.
    tempfile.tempdir = job["scratch"]
    run = _Run(job, reports)
    threads.Thread(target=run.watch, args=(lifeline,), daemon=True).start()
    run.execute()


class _Run:
    """Threads: `execute` on the main one, `watch` on another."""

    def __init__(self, job: dict[str, Any], reports: Any) -> None:
        self._job = job
        self._reports = reports
        self._numbers: dict[int, int] = {}
        self._seen = threads.Event()
        self._over = threads.Event()
        self._released = threads.Event()

    def execute(self) -> None:
        error = kind = None
        try:
            self._execute()
        except Exception as problem:  # noqa: BLE001 -- our parent says it in its own words
            kind = type(problem).__name__
            error = str(problem)
        self._over.set()
        self._report(event="end", kind=kind, error=error)
        self._released.wait()

    def watch(self, lifeline: int) -> None:
        """Wait for the lifeline to break; then leave nothing behind but the executed copy."""
        while os.read(lifeline, 4096):
            self._seen.set()
        draft = Path(self._job["draft"])
        if not draft.exists():  # our parent made it the executed copy, so all is well
            self._released.set()
            return
        processes = Descendants(os.getpid(), self._job["mark"])
        processes.look()
        processes.interrupt_children()
        self._over.wait(INTERRUPT_TIMEOUT)
        processes.end(TERMINATE_TIMEOUT)
        facts = self._job["facts"] | {"error": "the process that asked for this run was ended"}
        executed_notebook.finish(draft, Path(self._job["output"]), facts)
        shutil.rmtree(self._job["scratch"], ignore_errors=True)
        os._exit(1)  # the main thread may be waiting in papermill for the kernel we killed

    def _execute(self) -> None:
        import papermill
        from papermill.iorw import papermill_io

        draft = self._job["draft"]
        papermill_io.register(draft, _Draft(Path(self._job["output"])))
        papermill.execute_notebook(
            _literal(self._job["notebook"]),
            _literal(draft),
            self._job["parameters"],
            kernel_name=self._job["kernel"],
            language=self._job["language"],
            cwd=self._job["folder"],
            progress_bar=False,
            autosave_cell_every=2,  # seconds: what a hanging cell printed is worth reading
            config=_sockets(Path(self._job["scratch"]), self._job["language"]),
            on_notebook_start=self._on_notebook_start,
            on_cell_execute=self._on_cell_begun,
            on_cell_executed=self._on_cell_done,
        )

    def _on_notebook_start(self, notebook: Any) -> None:
        self._numbers = {
            index: number for index, number, _ in executed_notebook.code_cells(notebook)
        }

    def _on_cell_begun(self, cell: Any, cell_index: int) -> None:  # noqa: ARG002 -- nbclient's names
        if cell_index in self._numbers:
            self._report(event="begun", number=self._numbers[cell_index])

    def _on_cell_done(self, cell: Any, cell_index: int, execute_reply: Any) -> None:  # noqa: ARG002 -- as above
        if cell_index not in self._numbers:
            return
        if execute_reply["content"]["status"] == "ok":
            self._report(event="done")
        else:
            self._seen.clear()
            self._report(event="failed")
            self._seen.wait(INSPECT_TIMEOUT)

    def _report(self, **event: Any) -> None:
        with suppress(OSError):  # nobody listens any more: the lifeline will tell
            self._reports.write(json.dumps(event) + "\n")
            self._reports.flush()


class _Draft:
    """papermill's way to write its output; its own may leave half a file when it is killed."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def write(self, text: str, path: str) -> None:
        try:
            write_atomically(Path(path), text)
        except OSError as error:
            raise CheckError(executed_notebook.save_error(self._output, error)) from None

    def pretty_path(self, path: str) -> str:
        return path


def _sockets(scratch: Path, language: str) -> Any:
    """Return traitlets that let papermill and the kernel talk by sockets in a folder of their own.

    By default jupyter_client looks for five free ports, closes them, and hopes that they are still
    free a second later, when the kernel has started. Two that start at the same time may be
    given the same one (nteract/papermill#511; we measured 17 of 10,000 pairs), and one dies.
    """
    from traitlets.config import Config

    prefix = str(scratch / "kernel")
    # Not every kernel of another language can do it, and the name of a socket is short by law:
    # macOS allows 103 bytes, and zmq adds "-1".
    if os.name == "nt" or language != "python" or len(os.fsencode(prefix)) > 95:
        return Config()
    return Config({"KernelManager": {"transport": "ipc", "ip": prefix}})


def _literal(path: str) -> str:
    """Keep papermill from filling in ``{name}`` in a path."""
    return path.replace("{", "{{").replace("}", "}}")


def _read_line(descriptor: int) -> bytes:
    # Not by a buffered file: the watching thread would still hold its lock when Python ends.
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(descriptor, 65_536)
        if not chunk:
            raise SystemExit(
                "mousetrap.check.child_main is started by mousetrap.check, not by people"
            )
        line += chunk
    return line


if __name__ == "__main__":
    main()

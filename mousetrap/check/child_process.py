"""Starts the child process in which papermill runs, reads its events, and ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mousetrap.check.progress import PROGRESS_VARIABLE
from mousetrap.check.safe_text import plain_text
from mousetrap.runtime import clock, threads
from mousetrap.runtime.processes import own_group
from mousetrap.runtime.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from mousetrap.check.descendants import Descendants

PROGRESS_INTERVAL = 0.5  # seconds, at most, between two reports of a run's progress


class PapermillProcess:
    """The child process that runs papermill, and all processes that it starts.

    `done` counts the code cells that ran to their end. `number` is the number, in the source
    notebook, of the code cell that began last; 0 before the first. `failed` is the number and the
    error of the first cell that failed according to its kernel, None if there is none.
    """

    def __init__(self, job: dict[str, Any], environment: Mapping[str, str]) -> None:
        self._job = job
        self._environment = environment
        self._events: threads.Queue[dict[str, Any] | None] = threads.Queue()
        self._end: dict[str, Any] | None = None
        self._has_died = False
        self.done = 0
        self.number = 0
        self.failed: tuple[int, str] | None = None

    def __enter__(self) -> PapermillProcess:
        from mousetrap.check.descendants import RUN_ID_VARIABLE, Descendants

        self._folder = TemporaryFolder("mousetrap-")
        self.progress_file = self._folder.path / "progress.json"
        self._stderr = open(self._folder.path / "stderr", "w+b")
        ours = {RUN_ID_VARIABLE: self._job["run_id"], PROGRESS_VARIABLE: str(self.progress_file)}
        self._process = subprocess.Popen(
            # -P: do not import a json.py from the current folder
            [sys.executable, "-P", "-m", "mousetrap.check.child_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **self._environment, **ours},
            **own_group(session=True),  # Ctrl-C reaches only this process, which ends the child
        )
        self._descendants: Descendants = Descendants(self._process.pid, self._job["run_id"])
        threads.Thread(target=self._read_events, daemon=True).start()
        job = self._job | {"scratch": str(self._folder.path)}
        self._send(json.dumps(job).encode() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()  # the lifeline: closing it lets the child exit
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()
        self._folder.close()

    def follow(
        self,
        until: float,
        on_event: Callable[[bool], None],
        on_failure: Callable[[], object] | None,
    ) -> bool:
        """Read events until the run is over, or until the time *until*; then return False.

        *on_event* is called after each event, with whether a code cell has ended, and at least
        every `PROGRESS_INTERVAL` seconds. *on_failure* is called when a cell has raised or time is
        up, while the kernel still runs.
        """
        inspect = on_failure or (lambda: None)
        while (remaining := until - clock.monotonic()) > 0:
            try:
                # The wait is short also because Windows ignores Ctrl-C while a thread waits.
                event = self._events.get(timeout=min(remaining, PROGRESS_INTERVAL))
            except threads.Empty:
                on_event(False)
                continue
            # While the parent processes still run: a process that was started with another
            # environment, and then lost its parent, could not be found later.
            self._descendants.update()
            if event is None or event["event"] == "end":
                self._end, self._has_died = event, event is None
                return True
            if event["event"] == "begun":
                self.number = event["number"]
            elif event["event"] == "failed":
                self.failed = self.failed or (event["number"], event["error"])
                try:
                    inspect()
                finally:
                    self._send(b"inspected\n")  # the child keeps the kernel running until then
            else:
                self.done += 1
            on_event(event["event"] == "done")
        inspect()
        return False

    def stop(self) -> None:
        """End the run if it is not over, and all processes that it left running.

        First the cell is interrupted, so that it can clean up and papermill can save its state.
        papermill is ended before the kernel: it would report a kernel death that we caused.
        """
        from mousetrap.check.descendants import INTERRUPT_TIMEOUT, TERMINATE_TIMEOUT

        if self._end is None and not self._has_died:
            self._descendants.update()
            self._descendants.interrupt_children()
            if not self._ends_within(INTERRUPT_TIMEOUT):
                self._process.kill()
                self._process.wait()
        self._descendants.terminate(TERMINATE_TIMEOUT)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the child has died; `follow` sees that its events end
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _ends_within(self, timeout: float) -> bool:
        until = clock.monotonic() + timeout
        while (remaining := until - clock.monotonic()) > 0:
            with suppress(threads.Empty):
                event = self._events.get(timeout=remaining)
                if event is None or event["event"] == "end":
                    return event is not None
        return False

    @property
    def unsaved(self) -> str:
        """Why papermill could not save the executed copy during the run; empty if it could."""
        if self._end is None or self._end["kind"] != "CheckError":
            return ""
        return str(self._end["error"])

    @property
    def has_failed(self) -> bool:
        """Whether papermill ended with an error, or the kernel reported one."""
        return self.failed is not None or self._end is None or self._end["kind"] is not None

    @property
    def reason(self) -> str | None:
        """Why papermill ended before the last cell; None if it did not, or if a cell raised."""
        if self._end is None:
            return f"the process that ran it ended unexpectedly{self._stderr_tail()}"
        kind, error = self._end["kind"], self._end["error"]
        if kind in (None, "PapermillExecutionError"):
            return None
        if kind == "DeadKernelError":
            return "the kernel died: a cell called os._exit, crashed it, or used up the memory"
        if kind == "NoSuchKernel":
            return (
                f"there is no kernel named {self._job['kernel']!r}; see `jupyter kernelspec list`, "
                "or save the notebook with the kernel 'python3'"
            )
        return plain_text(f"{kind}: {error}{self._stderr_tail()}")

    def _stderr_tail(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()[-5:]
        return "".join(f"\n  {line}" for line in lines)

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._process.stdout.close()
        self._events.put(None)

"""Workers as real processes, for as long as a ``with`` block lasts.

They are what production runs, ``mousetrap work``, so a check that passes with them has tested the
real thing. Prototyped in ``notebooks/check_pipeline.ipynb``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.flow import reference
from mousetrap.interrupt import finish
from mousetrap.settings import Settings
from mousetrap.stage import Stage


class WorkerProcesses:
    """Starts *stages* (name or ``module:attribute`` -> how many processes) and stops them.

    Each process sees *settings* through its environment, gets the *options* of ``mousetrap work``
    and ends with this process, however that ends. Output is kept in a file each (see `logs`).

    Threads: one.
    """

    def __init__(
        self,
        stages: Mapping[str, int],
        settings: Settings | None = None,
        *,
        options: Sequence[str] = (),
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self._stages = dict(stages)
        self._options = list(options)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}  # "fetch-0" -> process

    @classmethod
    def of(
        cls,
        stages: Sequence[Stage[..., Any]],
        processes: int | Mapping[str, int],
        settings: Settings,
        options: Mapping[str, Any],
    ) -> WorkerProcesses:
        """Return *processes* (a number, or one by stage name) for each stage, not started.

        Raises:
            SettingsError: a name is no stage's, or another process cannot import a stage.
        """
        names = [each.name for each in stages]
        counts = processes if isinstance(processes, Mapping) else dict.fromkeys(names, processes)
        if unknown := counts.keys() - set(names):
            raise SettingsError(f"processes names no stage of this flow: {', '.join(unknown)}")
        arguments = []
        for name, value in options.items():
            if value is not None:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                arguments += [f"--{name.replace('_', '-')}", text]
        wanted = {reference(each): counts.get(each.name, 1) for each in stages}
        return cls(wanted, settings, options=arguments)

    def start(self) -> WorkerProcesses:
        """Start all processes; they connect by themselves, jobs wait for them in the queues."""
        self._folder = tempfile.TemporaryDirectory(prefix="mousetrap-workers-")
        numbers: dict[str, count[int]] = {}
        for stage, many in self._stages.items():
            label = stage.rpartition(":")[2]
            for n in islice(numbers.setdefault(label, count()), many):
                name = f"{label}-{n}"
                with self._log(name).open("wb") as log:
                    self._running[name] = subprocess.Popen(
                        [sys.executable, "-m", "mousetrap", "work", stage, "--with-parent",
                         *self._options],
                        stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                        env=os.environ | self.settings.to_environment(),
                    )  # fmt: skip
        return self

    def check(self) -> None:
        """Raise if a process has ended by itself.

        Raises:
            MousetrapError: names it, its exit code and the end of its output.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise MousetrapError(
                    f"worker process {name} ended with exit code {process.returncode}:\n"
                    f"{self.logs()[name][-2000:]}"
                )

    def kill(self, name: str) -> None:
        """End one process by SIGKILL, as a crash would; no other is told."""
        self._running.pop(name).kill()

    def logs(self) -> dict[str, str]:
        """What each process has written so far."""
        return {name: self._log(name).read_text(errors="replace") for name in self._running}

    def stop(self, timeout: float = 15.0) -> None:
        """Have all finish what is in hand; those that do not within *timeout* s are killed.

        An interrupt ends the waiting; they are stopped all the same.
        """
        finish(lambda: self._stop(timeout))

    def _stop(self, timeout: float) -> None:
        for process in self._running.values():
            if process.stdin:
                process.stdin.close()  # for a worker that means: your parent is done
        deadline = time.monotonic() + timeout
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5.0)
        self._running.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> WorkerProcesses:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        states = ", ".join(
            f"{name} {'running' if process.poll() is None else f'exit {process.returncode}'}"
            for name, process in self._running.items()
        )
        return f"<WorkerProcesses {states or 'none'}>"

    def _log(self, name: str) -> Path:
        if self._folder is None:
            raise RuntimeError("not started")
        return Path(self._folder.name) / f"{name}.log"

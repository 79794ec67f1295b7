"""Worker processes that a test may kill: real ones, ``mousetrap work``, started in milliseconds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from mousetrap.settings import Settings

FORGE = Path(__file__).with_name("forge.py")


@dataclass
class Process:
    """A worker process; `code` is known when it has ended: negative for a signal."""

    pid: int
    log: Path
    code: int | None = None
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal; by default the one that nobody can catch."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):  # just ended; we are about to be told
                os.kill(self.pid, number)

    def wait(self, timeout: float = 20.0) -> int:
        """Return its exit code once it has ended."""
        assert self._ended.wait(timeout), f"{self.pid} runs on: {self.log.read_text()[-2000:]}"
        assert self.code is not None
        return self.code

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()


class Crew:
    """Starts workers of `rig.flow` and ends them all with its ``with`` block, or with this process.

    Threads: one; `Process.kill` from any.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        self._environment = environment  # of all of them
        self._number = 0
        self.newest: Process | None = None
        self._processes: dict[int, Process] = {}
        self._started: list[int] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Crew:
        paths = [str(FORGE.parents[1]), os.environ.get("PYTHONPATH", "")]
        self._forge = subprocess.Popen(
            [sys.executable, FORGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            bufsize=1, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
            | self._environment,
        )  # fmt: skip
        threading.Thread(target=self._listen, name="rig-crew", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        self._forge.stdin.close()
        self._forge.wait(10)

    def start(self, settings: Settings, *options: str, **environment: str) -> Process:
        """Start a worker of *settings*: *options* are those of ``mousetrap work``."""
        self._number += 1
        log = self._log
        log.touch()
        order = {"environment": settings.to_environment() | environment,
                 "options": options, "log": str(log)}  # fmt: skip
        with self._changed:
            self._forge.stdin.write(json.dumps(order) + "\n")
            assert self._changed.wait_for(lambda: self._started, 20), "the forge is silent"
            return self._processes[self._started.pop()]

    def kill_all(self) -> None:
        """End all that run by SIGKILL."""
        running = [each for each in self._processes.values() if each.is_running]
        for process in running:
            process.kill()
        for process in running:
            process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / f"worker-{self._number}.log"

    def _listen(self) -> None:
        for line in self._forge.stdout:
            told = json.loads(line)
            with self._changed:
                if "started" in told:
                    pid = told["started"]
                    self.newest = self._processes[pid] = Process(pid, self._log)
                    self._started.append(pid)
                elif process := self._processes.get(told["ended"]):
                    process.code = told["code"]
                    process._ended.set()
                self._changed.notify_all()

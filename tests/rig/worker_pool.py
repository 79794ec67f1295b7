"""Worker processes that a test may kill: ``mousetrap work``, started in milliseconds."""

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

FORK_SERVER = Path(__file__).with_name("fork_server.py")
START_TIMEOUT = 20.0  # seconds for the fork server to answer
# Windows, where the pool is not used, has no SIGKILL.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@dataclass
class PoolProcess:
    """A worker process; `code` is its exit code once it has ended: negative for a signal."""

    pid: int
    log: Path
    code: int | None = None
    waited: float = 0.0  # seconds; what it computed, on a machine however busy, does not count
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def kill(self, number: int = KILL) -> None:
        """Send it a signal, by default SIGKILL."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def wait(self, timeout: float = 20.0) -> int:
        """Return its exit code once it has ended."""
        assert self._ended.wait(timeout), f"{self.pid} still runs: {self.log.read_text()[-2000:]}"
        assert self.code is not None
        return self.code

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()


class WorkerPool:
    """Starts workers of `rig.work_stage`, and ends them with its ``with`` block or this process.

    Threads: any.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        self._environment = environment  # of all processes
        self._number = 0
        self.newest: PoolProcess | None = None
        self._processes: dict[int, PoolProcess] = {}
        self._started: list[int] = []
        self._changed = threading.Condition()
        self._starting = threading.Lock()

    def __enter__(self) -> WorkerPool:
        paths = [str(FORK_SERVER.parents[1]), os.environ.get("PYTHONPATH", "")]
        self._fork_server = subprocess.Popen(
            [sys.executable, FORK_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            bufsize=1, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
            | self._environment,
        )  # fmt: skip
        threading.Thread(target=self._read_answers, name="rig-workers", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        self._fork_server.stdin.close()
        self._fork_server.wait(10)

    def start(self, settings: Settings, *options: str, **environment: str) -> PoolProcess:
        """Start a worker with *settings* and the *options* of ``mousetrap work``."""
        command = ["work", "rig.work_stage:work", "--with-parent", *options]
        return self.run(settings, *command, **environment)

    def run(self, settings: Settings, *command: str, **environment: str) -> PoolProcess:
        """Start the *command* of ``mousetrap`` with *settings*."""
        with self._starting:
            return self._run(settings, command, environment)

    def _run(
        self, settings: Settings, command: tuple[str, ...], environment: dict[str, str]
    ) -> PoolProcess:
        self._number += 1
        log = self._log
        log.touch()
        request = {"environment": settings.to_environment() | environment,
                   "command": command, "log": str(log)}  # fmt: skip
        with self._changed:
            self._fork_server.stdin.write(json.dumps(request) + "\n")
            has_started = self._changed.wait_for(lambda: self._started, START_TIMEOUT)
            assert has_started, "the fork server does not answer"
            return self._processes[self._started.pop()]

    def kill_all(self) -> None:
        """End all processes by SIGKILL."""
        running = [each for each in self._processes.values() if each.is_running]
        for process in running:
            process.kill()
        for process in running:
            process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / f"worker-{self._number}.log"

    def _read_answers(self) -> None:
        for line in self._fork_server.stdout:
            answer = json.loads(line)
            with self._changed:
                if "started" in answer:
                    pid = answer["started"]
                    self.newest = self._processes[pid] = PoolProcess(pid, self._log)
                    self._started.append(pid)
                elif "waited" in answer:
                    self._processes[answer["pid"]].waited = answer["waited"]
                elif process := self._processes.get(answer["ended"]):
                    process.code = answer["code"]
                    process._ended.set()
                self._changed.notify_all()

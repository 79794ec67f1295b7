"""Finds the runs of this user whose process is gone, and deletes their queues.

Each run has a file in the user's state folder that names its queues, and holds a lock on that file.
The operating system releases the lock when the run's process ends, however it ends. The run's
worker processes do not hold the lock; they end by themselves soon after the run's process. `sweep`
deletes the queues of runs whose lock is free. Without a sweep, the queues expire by themselves.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor

from mousetrap.broker.paths import state_folder
from mousetrap.errors import WireError
from mousetrap.job_queue import delete_unused
from mousetrap.runtime import clock
from mousetrap.settings import Settings

# seconds that worker processes have to end after the run's process; longer than their stop timeout
WORKER_EXIT_TIMEOUT = 15.0


class RunLock:
    """The locked file of one live run. The run calls `delete` when its queues are deleted.

    Raises:
        OSError: the state folder cannot be written.
    """

    def __init__(self, settings: Settings, queues: Iterable[str]) -> None:
        self.path = state_folder("runs") / f"{settings.namespace}.json"
        self._file = self.path.open("w")
        _lock(self._file)
        broker = {key: getattr(settings, key) for key in ("host", "port", "user", "vhost", "tls")}
        facts = broker | {
            "namespace": settings.namespace,
            "queues": list(queues),
            "expiry": settings.queue_expiry,
            "process": f"{socket.gethostname()}:{os.getpid()}",
            "program": Path(sys.argv[0] or "python").name,
            "started": clock.time(),
        }
        json.dump(facts, self._file)
        self._file.flush()

    def delete(self) -> None:
        """Delete the file: no queue of the run is left."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def release(self) -> None:
        """Release the lock and keep the file: `sweep`, or expiry, deletes the queues."""
        self._file.close()


@dataclass(frozen=True)
class StaleRun:
    """A run whose process is gone, and what `sweep` did about it."""

    namespace: str
    process: str  # host:pid, and the program that ran
    age: float  # seconds since the run started
    queues: tuple[str, ...]  # the ones that were deleted, by their names on the wire
    problem: str = ""  # why they could not be deleted; the next sweep tries again


def stale_runs() -> list[str]:
    """Return the namespaces of the runs that `sweep` would remove; change nothing."""
    return [path.stem for path, _ in _unlocked()]


def sweep(settings: Settings | None = None) -> list[StaleRun]:
    """Delete the queues of this user's stale runs and return these runs; live runs stay.

    The queues are deleted at the broker that the run used, with the password of *settings*.
    """
    settings = settings or Settings.from_environment()
    found = []
    with closing(_unlocked()) as files:  # an exception unlocks the file at once
        for path, file in files:
            try:
                facts = json.load(file)
            except ValueError:  # killed while it wrote the file, before it declared a queue
                path.unlink(missing_ok=True)
                continue
            stale = _delete_queues(facts, settings)
            found.append(stale)
            # after twice the expiry the queues are gone, even if the broker cannot be reached
            if not stale.problem or stale.age > 2 * facts["expiry"]:
                path.unlink(missing_ok=True)
    return found


def _unlocked() -> Generator[tuple[Path, IO[str]]]:
    """Yield the files of stale runs, each locked until the next one is asked for."""
    for path in sorted(state_folder("runs").glob("*.json")):
        try:
            file = path.open("r+")
        except FileNotFoundError:  # the run has just ended
            continue
        with file:
            if _lock(file):
                yield path, file


def _delete_queues(facts: dict[str, Any], settings: Settings) -> StaleRun:
    broker = {key: facts[key] for key in ("host", "port", "user", "vhost", "tls")}
    queues: list[str] = []
    problem = ""
    try:
        queues = delete_unused(
            facts["queues"], settings.replace(**broker), timeout=WORKER_EXIT_TIMEOUT
        )
    except (WireError, TimeoutError) as error:
        problem = str(error)
    return StaleRun(
        namespace=str(facts["namespace"]),
        process=f"{facts['process']} {facts['program']}",
        age=clock.time() - float(facts["started"]),
        queues=tuple(queues),
        problem=problem,
    )


def _lock(file: IO[str]) -> bool:
    """Take the lock on an open file; False if another process has it."""
    try:
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError:  # a file system without locks: treat the run as live and delete nothing
        return False

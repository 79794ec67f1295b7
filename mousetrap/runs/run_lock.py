"""Which runs of this user are alive, and what the dead ones left behind.

Each run keeps a file in this user's state folder that names its queues, and holds a lock on it: the
system drops the lock however the process ends. `sweep` deletes the queues of those whose lock is
gone; where nobody sweeps, they expire by themselves.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mousetrap.broker.paths import state_folder
from mousetrap.errors import WireError
from mousetrap.job_queue import delete_unused
from mousetrap.runtime import clock
from mousetrap.settings import Settings

PATIENCE = 15.0  # seconds that workers who lost their parent have to end; longer than their grace


class RunLock:
    """The file of one live run; `drop` it when nothing is left of the run.

    Raises:
        OSError: the state folder cannot be written.
    """

    def __init__(self, settings: Settings, queues: Iterable[str]) -> None:
        self.path = state_folder("runs") / f"{settings.namespace}.json"
        self._handle = self.path.open("w")
        _lock(self._handle)
        place = {name: getattr(settings, name) for name in ("host", "port", "user", "vhost", "tls")}
        facts = place | {
            "namespace": settings.namespace,
            "queues": list(queues),
            "expiry": settings.queue_expiry,
            "process": f"{socket.gethostname()}:{os.getpid()}",
            "program": Path(sys.argv[0] or "python").name,
            "started": clock.time(),
        }
        json.dump(facts, self._handle)
        self._handle.flush()

    def delete(self) -> None:
        """Forget the run: nothing is left of it."""
        self.path.unlink(missing_ok=True)
        self._handle.close()

    def release(self) -> None:
        """Leave the rest of the run to `sweep`, or to expiry."""
        self._handle.close()


@dataclass(frozen=True)
class StaleRun:
    """What a run left behind that was killed, and what became of it."""

    namespace: str
    process: str  # host:pid, and the program it ran
    age: float  # seconds since it started
    queues: tuple[str, ...]  # deleted now, by the names on the wire
    problem: str = ""  # why it could not be removed; the next sweep tries again


def stale_runs() -> list[str]:
    """The namespaces of this user's dead runs that `sweep` would remove; nothing is touched."""
    found = []
    for path in sorted(state_folder("runs").glob("*.json")):
        with suppress(FileNotFoundError), path.open("r+") as handle:  # it may end at this moment
            if _lock(handle):
                found.append(path.stem)
    return found


def sweep(settings: Settings | None = None) -> list[StaleRun]:
    """Delete the queues of this user's dead runs and return what there was; live runs stay.

    Each run is looked for at the broker that it used, with the password of *settings*.
    """
    settings = settings or Settings.from_environment()
    found = []
    for path in sorted(state_folder("runs").glob("*.json")):
        with suppress(FileNotFoundError), path.open("r+") as handle:  # it may end at this moment
            if not _lock(handle):
                continue  # alive
            try:
                facts = json.load(handle)
            except ValueError:  # killed while it wrote: before it had declared anything
                path.unlink()
                continue
            leftover = _remove(facts, settings)
            found.append(leftover)
            # what cannot be reached has gone by itself by now, or will have gone
            if not leftover.problem or leftover.age > 2 * facts["expiry"]:
                path.unlink(missing_ok=True)
    return found


def _remove(facts: dict[str, object], settings: Settings) -> StaleRun:
    place = {name: facts[name] for name in ("host", "port", "user", "vhost", "tls")}
    queues: tuple[str, ...] = ()
    problem = ""
    try:
        queues = tuple(
            delete_unused(facts["queues"], settings.replace(**place), timeout=PATIENCE)  # type: ignore[arg-type]  # read from JSON
        )
    except (WireError, TimeoutError) as error:
        problem = str(error)
    return StaleRun(
        namespace=str(facts["namespace"]),
        process=f"{facts['process']} {facts['program']}",
        age=clock.time() - float(facts["started"]),  # type: ignore[arg-type]  # as above
        queues=queues,
        problem=problem,
    )


def _lock(handle: IO[str]) -> bool:
    """Take the lock on an open file; False if another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # far behind the text: on Windows a locked byte cannot even be read
            handle.seek(1_000_000)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
            handle.seek(0)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

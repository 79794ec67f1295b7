"""Finds the runs and tests of this user whose process is gone, and deletes their queues.

Each run, and each namespace of a test, has a file in the user's state folder that names its queues
and is locked while its process lives (`mousetrap.runs.locked_file`). The run's worker processes do
not hold the lock; they end by themselves soon after the run's process. `sweep` deletes the queues
of the files whose lock is free. Without a sweep, only the classic queues expire.

The file is written under the lock: if the lock is free, the file is complete and its process is
gone, or it is not complete and no queue was declared.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousetrap.amqp import declared_queues
from mousetrap.broker.paths import state_folder
from mousetrap.errors import BrokerUnreachable, ConnectionLost, SettingsError, WireError
from mousetrap.job_queue import delete_unused
from mousetrap.runs.delete_exchanges import delete_exchanges
from mousetrap.runs.locked_file import LockedFile
from mousetrap.runtime import clock
from mousetrap.settings import Settings

log = logging.getLogger("mousetrap.runs.run_lock")

# seconds that worker processes have to end after the run's process; longer than their stop timeout
WORKER_EXIT_TIMEOUT = 15.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # Linux: another one after each start

_warnings: set[str] = set()  # that were logged: one is enough for all runs of a process


class RunLock:
    """The locked file of one live namespace. Its owner calls `delete` when no queue is left.

    Its queues and exchanges are *queues* and *exchanges* (names on the wire), or those that
    processes with `DECLARED_VARIABLE` in their environment have declared in the namespace: then
    *has_declared_file*.

    If the state folder cannot be written, or has no locks, there is no file: a warning says that
    `sweep` will not know the queues, and everything else works.

    Raises:
        RunError: another process has this namespace.
    """

    def __init__(
        self,
        settings: Settings,
        queues: Iterable[str] = (),
        exchanges: Iterable[str] = (),
        *,
        has_declared_file: bool = False,
    ) -> None:
        self.declared_file: Path | None = None
        self._file: LockedFile | None = None
        broker = {key: getattr(settings, key) for key in ("host", "port", "user", "vhost", "tls")}
        facts = broker | {
            "namespace": settings.namespace,
            "queues": list(queues),
            "exchanges": list(exchanges),
            "expiry": settings.queue_expiry,
            "process": f"{socket.gethostname()}:{os.getpid()}",
            "program": Path(sys.argv[0] or "python").name,
            "started": clock.time(),
            "boot": _boot_id(),
            "uptime": clock.uptime(),
        }
        path: Path | None = None
        try:
            path = state_folder("runs") / f"{settings.namespace}.json"
            if has_declared_file:
                self.declared_file = _declared_file(path)
                self.declared_file.parent.mkdir(mode=0o700, exist_ok=True)
            self._file = LockedFile.create(path)
            self.add(facts)
        except (OSError, SettingsError) as error:
            self._give_up(path, error)

    def add(self, facts: dict[str, Any]) -> None:
        """Add *facts* to the file, as a line."""
        if self._file is not None:
            self._file.write(f"{json.dumps(facts)}\n")

    def delete(self) -> None:
        """Delete the file: no queue is left."""
        if self._file is not None:
            _delete(self._file)

    def release(self) -> None:
        """Release the lock and keep the file: `sweep`, or expiry, deletes the queues."""
        if self._file is not None:
            self._file.release()

    def _give_up(self, path: Path | None, error: Exception) -> None:
        if self._file is not None:
            _delete(self._file)
        elif path is not None:
            with suppress(OSError):  # made, and not locked: no process could find out that we live
                path.unlink(missing_ok=True)
        self._file = self.declared_file = None
        reason = str(error) if isinstance(error, SettingsError) else (
            f"the state folder {path and path.parent} cannot be used ({error}): make it writable, "
            f"on a file system with locks, or name another folder in XDG_STATE_HOME"
        )  # fmt: skip
        if reason not in _warnings:
            _warnings.add(reason)
            log.warning(
                "%s. Until then, mousetrap sweep does not know the runs of this process: if it is "
                "killed, their queues stay until they expire",
                reason,
            )


@dataclass(frozen=True)
class StaleRun:
    """A run or a test whose process is gone, and what `sweep` did about it."""

    namespace: str
    process: str  # host:pid, and the program that ran
    age: float  # seconds since the run started
    queues: tuple[str, ...]  # the ones that were deleted, by their names on the wire
    problem: str = ""  # why they could not be deleted; the next sweep tries again


def stale_runs() -> list[str]:
    """Return the namespaces of the runs that `sweep` would list; change nothing.

    A run whose broker ended with its process is none of them: its queues are gone.

    Raises:
        SettingsError: the state folder cannot be used.
    """
    with closing(_unlocked()) as files:
        facts = [_facts(file) for file in files]
    return [str(each["namespace"]) for each in facts if each and not _has_gone(each)]


def sweep(settings: Settings | None = None) -> list[StaleRun]:
    """Delete the queues of this user's stale runs and return these runs; live runs stay.

    The queues are deleted at the broker that the run used, with the password of *settings*. A run
    whose broker cannot be reached, or refuses, is kept: the next sweep tries again. A broker that
    does not answer is waited for once, `WORKER_EXIT_TIMEOUT` seconds at most, whatever the number
    of its runs.

    Raises:
        SettingsError: the state folder cannot be used.
    """
    settings = settings or Settings.from_environment()
    found = []
    silent: dict[Settings, WireError] = {}
    with closing(_unlocked()) as files:  # an exception unlocks the file at once
        for file in files:
            facts = _facts(file)
            if not facts:  # its process was killed before it declared a queue
                _delete(file)
                continue
            stale = _delete_queues(facts, settings, file.path, silent)
            if stale.queues or stale.problem or not _has_gone(facts):
                found.append(stale)
            if not stale.problem:
                _delete(file)
    return found


def _unlocked() -> Generator[LockedFile]:
    """Yield the files whose lock is free, each locked until the next one is asked for."""
    for path in sorted(state_folder("runs").glob("*.json")):
        if _is_of_this_user(path) and (file := LockedFile.try_open(path)) is not None:
            try:
                yield file
            finally:
                file.release()


def _is_of_this_user(path: Path) -> bool:
    """Return whether this user made the file: two can have one state folder, and root opens all."""
    try:
        return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
    except OSError:  # deleted meanwhile
        return False


def _has_gone(facts: dict[str, Any]) -> bool:
    """Return whether the run's broker, and all queues with it, ended with the run's process."""
    return bool(facts.get("has_temporary_broker"))


def _facts(file: LockedFile) -> dict[str, Any]:
    """Return what the owner wrote; empty if it was killed before it had written the first line."""
    facts: dict[str, Any] = {}
    for line in file.read().splitlines():
        try:
            facts |= json.loads(line)
        except ValueError:  # not finished
            break
    return facts


def _declared_file(path: Path) -> Path:
    # in a folder of its own, so that a process which ends late cannot make the deleted file again
    return path.with_suffix(".declared") / "queues"


def _declared_names(path: Path, namespace: str, *, exchanges: bool = False) -> list[str]:
    """Return the names of declared queues, or *exchanges*, in *namespace*.

    Those of runs are left out: they are in files of their own.

    A run that a test's process started may still live after the test: it has a longer namespace
    and a file of its own.
    """
    others = tuple(f"{each.stem}." for each in path.parent.glob("*.json") if each != path)
    declared = _declared_file(path)
    names = (declared_queues.exchanges_in if exchanges else declared_queues.names_in)(declared)
    return [name for name in names if name.startswith(namespace) and not name.startswith(others)]


def _delete(file: LockedFile) -> None:
    """Delete the file and the names of declared queues beside it; nothing in a forked child."""
    if file.is_locked:
        shutil.rmtree(_declared_file(file.path).parent, ignore_errors=True)
        file.delete()


def _delete_queues(
    facts: dict[str, Any], settings: Settings, path: Path, silent: dict[Settings, WireError]
) -> StaleRun:
    """Delete the queues of one run; *silent* has the brokers that did not answer before."""
    broker = {key: facts[key] for key in ("host", "port", "user", "vhost", "tls")}
    there = settings.replace(**broker)
    namespace = str(facts["namespace"])
    names = [*facts["queues"], *_declared_names(path, namespace)]
    queues: list[str] = []
    problem = ""
    try:
        if (known := silent.get(there)) is not None:
            raise type(known)(str(known))
        queues = delete_unused(names, there, timeout=WORKER_EXIT_TIMEOUT)
        exchanges = _declared_names(path, namespace, exchanges=True)
        delete_exchanges([*facts.get("exchanges", ()), *exchanges], there)
    except BrokerUnreachable as error:
        silent[there] = error
        queues = list(getattr(error, "deleted", ()))
        if not _has_gone(facts):
            problem = f"{error}; if that broker is gone for good, delete {path}"
    except (WireError, TimeoutError) as error:
        if isinstance(error, ConnectionLost):
            silent[there] = error
        queues, problem = list(getattr(error, "deleted", ())), str(error)
    return StaleRun(
        namespace=namespace,
        process=f"{facts['process']} {facts['program']}",
        age=_age(facts),
        queues=tuple(queues),
        problem=problem,
    )


def _age(facts: dict[str, Any]) -> float:
    """Return the seconds since the start; the system's clock may have been set meanwhile."""
    if facts.get("boot") and facts["boot"] == _boot_id():
        return clock.uptime() - float(facts["uptime"])
    return max(0.0, clock.time() - float(facts["started"]))


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # another system
        return ""

"""Files that a process keeps locked while it lives, so that others see whether it still does.

The lock is the operating system's (``flock``), which releases it when the process ends, however it
ends. Only the process that made the lock has it: a forked child closes its copy of the file at
once, because a lock that a child inherits would outlive its parent.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from mousetrap.errors import RunError
from mousetrap.runtime import clock, threads

LOCK_TIMEOUT = 10.0  # seconds; a process that lists the files has a lock for well below one of them
LOCK_RETRY_INTERVAL = 0.002  # seconds between two attempts to take a lock

_open_files: set[LockedFile] = set()
_forking = threads.RLock()  # no fork between opening or closing a file and the change of the set


class LockedFile:
    """An open file with its lock. `create` waits for the lock, `try_open` does not.

    In a forked child of the process that took the lock, every method does nothing.

    Threads: one at a time.
    """

    # A number and no file object: that has a lock of its own, and if another thread of the parent
    # held it at the moment of the fork, no child could close the file.
    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        self._owner = os.getpid()
        with _forking:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600)
            _open_files.add(self)

    @classmethod
    def create(cls, path: Path) -> LockedFile:
        """Return the file at *path*, locked and empty; it is made if it does not exist.

        Raises:
            RunError: another process kept the lock for `LOCK_TIMEOUT`.
            OSError: the file cannot be written, or the file system has no locks.
        """
        deadline = clock.monotonic() + LOCK_TIMEOUT
        while True:
            found = cls(path, os.O_CREAT)
            try:
                while not lock_descriptor(found._descriptor, blocking=False):
                    if not clock.remaining(deadline):
                        raise RunError(
                            f"{path} is locked by another process, and was for {LOCK_TIMEOUT:g} s: "
                            f"end that process, or use another namespace"
                        )
                    clock.sleep(LOCK_RETRY_INTERVAL)
                # A sweep that met the file before it was locked has deleted it: make it again.
                if found._is_at_path():
                    os.ftruncate(found._descriptor, 0)
                    return found
            except BaseException:
                found._close()
                raise
            found._close()

    @classmethod
    def try_open(cls, path: Path) -> LockedFile | None:
        """Return the file at *path*, locked; None if it does not exist or a process has its lock.

        None as well if that cannot be found out, because the file cannot be opened or the file
        system has no locks: the process may live.
        """
        try:
            found = cls(path, 0)
        except OSError:
            return None
        try:
            if lock_descriptor(found._descriptor, blocking=False) and found._is_at_path():
                return found
        except OSError:
            pass
        found._close()
        return None

    @property
    def is_locked(self) -> bool:
        """Whether this process has the lock."""
        return self in _open_files and self._owner == os.getpid()

    def read(self) -> str:
        """Return the text of the file."""
        size = os.fstat(self._descriptor).st_size
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, size).decode("utf-8", "replace")

    def write(self, text: str) -> None:
        """Append *text*; other processes see it when this returns."""
        left = text.encode()
        while left:
            left = left[os.write(self._descriptor, left) :]

    def delete(self) -> None:
        """Delete the file, then release the lock.

        Windows deletes no file that is open, so there the lock is released first. If another
        process has opened the file meanwhile, an empty file stays, which that process deletes.
        """
        if not self.is_locked:
            return
        if not self._is_at_path():
            self.release()
        elif sys.platform == "win32":
            os.ftruncate(self._descriptor, 0)
            self.release()
            with suppress(PermissionError):
                self.path.unlink(missing_ok=True)
        else:
            self.path.unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Release the lock and keep the file."""
        if self.is_locked:
            # not by closing alone: a child that was forked without our hook may have the file open
            unlock_descriptor(self._descriptor)
            self._close()

    def _close(self) -> None:
        with _forking:
            if self in _open_files:
                _open_files.remove(self)
                os.close(self._descriptor)

    def _is_at_path(self) -> bool:
        """Return whether *path* still names this file, and not another one or none."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def _close_all_in_child() -> None:
    _forking.release()
    for each in list(_open_files):
        each._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forking.acquire,
        after_in_parent=_forking.release,
        after_in_child=_close_all_in_child,
    )

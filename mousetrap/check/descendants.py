"""Finds the processes that a run started, and ends all of them.

It is not enough to kill the process group of papermill. jupyter_client starts the kernel in a
session of its own; the kernel's child processes can be in yet another session, and can run longer
than the kernel. So children are found by their parents, and processes that have lost their parent
by a variable in their environment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from contextlib import suppress

import psutil  # type: ignore[import-untyped]  # ships no types

from mousetrap.runtime import clock

RUN_ID_VARIABLE = "MOUSETRAP_CHECK"
"""The environment variable that every process of a run inherits; its value is the run's id."""

INTERRUPT_TIMEOUT = 3.0  # seconds that a cell has to clean up after its interrupt; a guess
TERMINATE_TIMEOUT = 2.0  # seconds between SIGTERM and SIGKILL; a guess
_POLL_INTERVAL = 0.02  # seconds between two checks of processes that are ending


class Descendants:
    """All processes below process *root* that `update` has found; *root* is not one of them.

    Without a root they are the processes whose `RUN_ID_VARIABLE` is *run_id*, and their
    descendants. That is for a parent that has other children, too, such as pytest with nbmake.

    A process is missed only if it was started with another environment *and* lost its parent
    before the next `update`.

    Threads: one at a time.
    """

    def __init__(self, root: int | None, run_id: str) -> None:
        self._root = root
        self._run_id = run_id
        self._found: set[psutil.Process] = set()  # compared by pid and start time

    def update(self) -> None:
        """Add the descendants that run now."""
        children = defaultdict(list)
        for process in psutil.process_iter():
            try:
                children[process.ppid()].append(process)
            except psutil.Error:
                continue
        parents = [process.pid for process in self._found if is_alive(process)]
        if self._root is not None:
            parents.append(self._root)
        while parents:
            for child in children.pop(parents.pop(), []):
                self._found.add(child)
                parents.append(child.pid)

    def interrupt_children(self) -> None:
        """Send SIGINT to the kernel: the children of root, or our own children of the run.

        The cell that runs then raises KeyboardInterrupt, so the executed copy shows where it was.
        """
        if sys.platform == "win32":
            return  # Windows has no such signal; `terminate` follows
        with suppress(psutil.Error):
            children = psutil.Process(self._root).children()  # None is this process
            if self._root is None:
                self._find_by_run_id()
                children = [child for child in children if child in self._found]
            for child in children:
                child.send_signal(signal.SIGINT)

    def terminate(self, timeout: float) -> int:
        """Send SIGTERM to all, after *timeout* seconds SIGKILL; return how many there were."""
        self._find_by_run_id()
        ended = {process for process in self._found if is_alive(process)}
        for process in ended:
            with suppress(psutil.Error):
                process.terminate()
        _wait_until_gone(ended, timeout)
        # A process can start another one before it is killed: repeat until none is left.
        for _ in range(20):
            self._find_by_run_id()
            rest = {process for process in self._found if is_alive(process)}
            if not rest:
                break
            ended |= rest
            for process in rest:
                with suppress(psutil.Error):
                    process.kill()
            _wait_until_gone(rest, 1.0)
        return len(ended)

    def _find_by_run_id(self) -> None:
        self.update()
        for process in psutil.process_iter():
            if process.pid in (self._root, os.getpid()):
                continue
            try:
                if process.environ().get(RUN_ID_VARIABLE) == self._run_id:
                    self._found.add(process)
            except (psutil.Error, OSError):
                continue  # a process of another user
        self.update()


def is_alive(process: psutil.Process) -> bool:
    """Whether *process* still runs; a zombie does not, it only waits for its parent."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _wait_until_gone(processes: set[psutil.Process], timeout: float) -> None:
    until = clock.monotonic() + timeout
    while any(is_alive(process) for process in processes) and clock.monotonic() < until:
        clock.sleep(_POLL_INTERVAL)

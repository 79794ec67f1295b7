"""The processes that a run started, and how to end every one of them.

Killing the process group of papermill is not enough: jupyter_client starts the kernel in a
session of its own, and what the kernel starts may be in another one yet, or outlive it. So we
follow parents to children, and find those that lost their parent by a mark in their environment.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from contextlib import suppress

import psutil  # type: ignore[import-untyped]  # ships no types

from mousetrap.runtime import clock

RUN_ID_VARIABLE = "MOUSETRAP_CHECK"
"""The environment variable that every process of a run inherits; its value is the run's id."""

INTERRUPT_TIMEOUT = 3.0  # seconds a cell has to clean up after its interrupt; a guess
TERMINATE_TIMEOUT = 2.0  # seconds between SIGTERM and SIGKILL; a guess
_PAUSE = 0.02  # seconds between two looks at processes that are ending


class Descendants:
    """All processes below process *root* that are, or once were, seen; *root* is not one of them.

    Without a root they are those that bear the mark, and what is below them: for a parent, like
    pytest with nbmake in it, that has other children too.

    A process is missed only if it left its parent before anybody looked *and* was started with
    an environment of its own.

    Threads: one at a time.
    """

    def __init__(self, root: int | None, mark: str) -> None:
        self._root = root
        self._mark = mark
        self._seen: set[psutil.Process] = set()  # a Process is pid and start time: no pid reuse

    def look(self) -> None:
        """Take note of the descendants that run now."""
        children = defaultdict(list)
        for process in psutil.process_iter():
            try:
                children[process.ppid()].append(process)
            except psutil.Error:
                continue
        families = [process.pid for process in self._seen if is_alive(process)]
        if self._root is not None:
            families.append(self._root)
        while families:
            for child in children.pop(families.pop(), []):
                self._seen.add(child)
                families.append(child.pid)

    def interrupt_children(self) -> None:
        """Send SIGINT to the children of root (of ours, that bear the mark): that is the kernel.

        The cell that runs then raises KeyboardInterrupt, so the executed copy shows where it was.
        """
        if os.name == "nt":
            return  # Windows has no such signal; `end` follows
        with suppress(psutil.Error):
            children = psutil.Process(self._root).children()  # of None: ours
            if self._root is None:
                self._find_marked()
                children = [child for child in children if child in self._seen]
            for child in children:
                child.send_signal(signal.SIGINT)

    def end(self, patience: float) -> int:
        """End all of them, by SIGTERM and after *patience* seconds by SIGKILL; return how many."""
        self._find_marked()
        ended = {process for process in self._seen if is_alive(process)}
        for process in ended:
            with suppress(psutil.Error):
                process.terminate()
        _wait_until_gone(ended, patience)
        # A process that is being killed may start another one: look again until nobody is left.
        for _ in range(20):
            self._find_marked()
            rest = {process for process in self._seen if is_alive(process)}
            if not rest:
                break
            ended |= rest
            for process in rest:
                with suppress(psutil.Error):
                    process.kill()
            _wait_until_gone(rest, 1.0)
        return len(ended)

    def _find_marked(self) -> None:
        self.look()
        for process in psutil.process_iter():
            if process.pid in (self._root, os.getpid()):
                continue
            try:
                if process.environ().get(RUN_ID_VARIABLE) == self._mark:
                    self._seen.add(process)
            except (psutil.Error, OSError):
                continue  # another user's
        self.look()


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie only waits for its parent, and does nothing any more."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _wait_until_gone(processes: set[psutil.Process], patience: float) -> None:
    limit = clock.monotonic() + patience
    while any(is_alive(process) for process in processes) and clock.monotonic() < limit:
        clock.sleep(_PAUSE)

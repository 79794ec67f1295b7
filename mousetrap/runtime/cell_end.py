"""Calls a function at the end of the cell that runs.

What a cell shows is known only then: its last value is displayed after the code has run.
"""

from __future__ import annotations

from collections.abc import Callable

from mousetrap.runtime import threads
from mousetrap.runtime.environment import ipython_shell, is_kernel


def at_cell_end(action: Callable[[], object]) -> bool:
    """Call *action* once, at the end of the cell that runs; return False if none runs here.

    Threads: any; a cell runs on the main thread only.
    """
    if not is_kernel() or not threads.is_main():
        return False
    events = ipython_shell().events

    def run(*_: object) -> None:
        events.unregister("post_run_cell", run)
        action()

    events.register("post_run_cell", run)
    return True

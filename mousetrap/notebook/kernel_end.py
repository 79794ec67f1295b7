"""What ``notebook/`` does when its process ends in order: restart and shutdown of a kernel, `exit`.

IPython has no event for them, but Python's `atexit` runs. The consumers stop first, so that a
display's last state has their final counts. A process that is killed runs none of this.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum


class EndStep(IntEnum):
    """The steps of the end, in their order."""

    HOLD_DISPLAYS = 1
    STOP_CONSUMERS = 2
    SHOW_LAST_STATES = 3


_actions: dict[EndStep, Callable[[], None]] = {}
_process = 0  # the id of the process that has registered them


def at_end(step: EndStep, action: Callable[[], None]) -> None:
    """Call *action* as this *step* of the end of this process; its errors are dropped.

    A forked child does not call it: what its parent registered is the parent's.
    """
    global _process
    if _process != os.getpid():
        if not _process:  # a forked child inherits the registration
            atexit.register(_end)
        _actions.clear()
        _process = os.getpid()
    _actions[step] = action


def _end() -> None:
    if _process == os.getpid():
        for step in sorted(_actions):
            # When Python ends, ipykernel closes the socket for stderr, and then a log line raises.
            # The other steps run all the same. There is no output left to report an error on.
            with suppress(Exception):
                _actions[step]()

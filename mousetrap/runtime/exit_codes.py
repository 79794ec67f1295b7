"""How a worker process ended, told by its exit code: what it means, and what to do about it.

Pure decisions; nothing here starts a process.
"""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import Literal


class ExitCode(IntEnum):
    """What a script, or who looks after a process, can tell from ``$?``."""

    OK = 0
    FAILED = 1  # a check did not pass, a message did not arrive, a worker cannot go on
    USAGE = 2  # a bad argument, parameter or setting
    NO_BROKER = 3  # nobody answers, or none could be brought up
    REFUSED = 4  # user, password, vhost or permission
    TOPOLOGY = 5  # a queue exists with other arguments
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM


ExitCause = Literal["misconfigured", "no broker", "died"]


def classify(code: int, *, has_worked: bool, has_failed: bool) -> ExitCause:
    """Say why a worker process that nobody told to stop ended with exit code *code*.

    *misconfigured*: the next one would end in the same way. Codes are believed only where they can
    come from us: a handler may leave by ``os._exit(2)``. A wrong argument shows before the process
    *has_worked*; a refusal also later, and then its last report says that it *has_failed*.
    """
    if code == ExitCode.USAGE and not has_worked:
        return "misconfigured"
    if code in (ExitCode.REFUSED, ExitCode.TOPOLOGY) and (has_failed or not has_worked):
        return "misconfigured"
    return "no broker" if code == ExitCode.NO_BROKER and not has_worked else "died"


def describe(code: int) -> str:
    """Return ``ended with exit code -11 (SIGSEGV)``; codes as `subprocess` counts them."""
    how = f"ended with exit code {code}"
    if code >= 0:
        return how
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        return f"{how} (signal {-code})"
    # The kernel's way to end who uses up the memory leaves no other trace.
    hint = ": by somebody, or for want of memory" if name == "SIGKILL" else ""
    return f"{how} ({name}{hint})"

"""Exit codes: those that mousetrap's commands use, and what the one of a worker process means.

Decisions only; nothing here starts a process.
"""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import Literal


class ExitCode(IntEnum):
    """The exit codes of mousetrap's commands, for scripts and process supervisors."""

    OK = 0
    FAILED = 1  # a check did not pass, a message did not arrive, a worker cannot go on
    USAGE = 2  # a bad argument, parameter or setting
    NO_BROKER = 3  # no broker answers, or none could be started
    REFUSED = 4  # user, password, vhost or permission
    TOPOLOGY = 5  # a queue exists with other arguments
    INTERRUPTED = 130  # Ctrl-C
    TERMINATED = 143  # SIGTERM


ExitCause = Literal["misconfigured", "no broker", "died"]


def classify(code: int, *, has_worked: bool, has_failed: bool) -> ExitCause:
    """Return why a worker process that was not asked to stop ended with exit code *code*.

    *misconfigured*: the next process would end in the same way. A code counts only when it can come
    from mousetrap, because a handler may call ``os._exit(2)``: a bad argument shows before the
    process *has_worked*. A refusal can also come later; the last report of the process then says
    that it *has_failed*.
    """
    if code == ExitCode.USAGE and not has_worked:
        return "misconfigured"
    if code in (ExitCode.REFUSED, ExitCode.TOPOLOGY) and (has_failed or not has_worked):
        return "misconfigured"
    return "no broker" if code == ExitCode.NO_BROKER and not has_worked else "died"


def describe(code: int) -> str:
    """Return ``ended with exit code -11 (SIGSEGV)``; *code* is as `subprocess` counts it."""
    text = f"ended with exit code {code}"
    if code >= 0:
        return text
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        return f"{text} (signal {-code})"
    # The operating system's out-of-memory handling sends SIGKILL and leaves no other trace.
    hint = ": sent by a person or program, or out of memory" if name == "SIGKILL" else ""
    return f"{text} ({name}{hint})"

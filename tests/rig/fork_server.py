"""Starts commands in milliseconds: it has imported everything, and forks.

A program of its own, started by `rig.worker_pool.WorkerPool`. Each line on stdin is a request and
each line on stdout an answer, both in JSON: a request to start gets a pid, and each process that
ends is reported with its exit code. With ``RIG_IMPORT_ALL`` in the environment it imports the whole
package, so that no command does. The processes run ``mousetrap`` by its own entry point.

All processes end when stdin does: the workers hold one end of a pipe, and only this process holds
the other, which closes however this process ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import pkgutil
import signal
import sys
import time

import mousetrap.cli.work  # the slow import, once for all processes
import mousetrap.sink
import mousetrap.worker.worker
from mousetrap.cli import main

if os.environ.get("RIG_IMPORT_ALL"):
    import pydantic  # noqa: F401 -- of the tutorial's functions

    for each in pkgutil.walk_packages(mousetrap.__path__, "mousetrap."):
        with contextlib.suppress(ImportError, SystemExit):  # needs an extra, or is a program
            importlib.import_module(each.name)

parent_pipe, held_end = os.pipe()


def answer(to: int = 1, **facts: object) -> None:
    os.write(to, json.dumps(facts).encode() + b"\n")


def on_child(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        answer(ended=pid, code=os.waitstatus_to_exitcode(status))


def asleep() -> float:
    """Return a clock that stands still while this thread runs or waits for a processor (Linux)."""
    with contextlib.suppress(OSError):
        running, runnable, _ = pathlib.Path("/proc/thread-self/schedstat").read_text().split()
        return time.monotonic() - (int(running) + int(runnable)) / 1e9
    return time.monotonic()


def become_command(request: dict) -> None:
    """Run the command in this process, and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(held_end)
    os.dup2(parent_pipe, 0)
    answers = os.dup(1)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    sys.argv = ["mousetrap", *request["command"]]
    code: object = 70
    started = asleep()
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        answer(answers, waited=asleep() - started, pid=os.getpid())
        os._exit(code if isinstance(code, int) else 1)


signal.signal(signal.SIGCHLD, on_child)
for line in sys.stdin:
    request = json.loads(line)
    # blocked: the pid is reported before the end of its process
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        become_command(request)
    answer(started=pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

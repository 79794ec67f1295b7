"""Starts worker processes in milliseconds: it has imported everything, and forks.

A program of its own, started by `rig.worker_pool.WorkerPool`. Each line on stdin is a request and
each line on stdout an answer, both in JSON: a request to start gets a pid, and each process that
ends is reported with its exit code. The processes run ``mousetrap work`` by its own entry point.

All processes end when stdin does: the workers hold one end of a pipe, and only this process holds
the other, which closes however this process ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import mousetrap.cli.work  # the slow import, once for all processes
import mousetrap.sink
import mousetrap.worker.worker  # noqa: F401 -- imported before the fork
from mousetrap.cli import main

parent_pipe, held_end = os.pipe()


def answer(**facts: object) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def on_child(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        answer(ended=pid, code=os.waitstatus_to_exitcode(status))


def become_worker(request: dict) -> None:
    """Run ``mousetrap work`` in this process, and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(held_end)
    os.dup2(parent_pipe, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    sys.argv = ["mousetrap", "work", "rig.work_stage:work", "--with-parent", *request["options"]]
    code: object = 70
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


signal.signal(signal.SIGCHLD, on_child)
for line in sys.stdin:
    request = json.loads(line)
    # blocked: the pid is reported before the end of its process
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        become_worker(request)
    answer(started=pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

"""Starts worker processes in milliseconds: it has imported everything and forks.

A program of its own, kept by `rig.crew.Crew`. Each line on stdin is an order, each line on stdout
an answer, both JSON: what to run gives a pid, and each process that ends is told with its code.
What is run is ``mousetrap work``, by its own door. All ends with stdin: the lifeline, of which the
workers hold the one end and only this process the other, closes however it ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import mousetrap.cli.work  # the heavy part, once for all
import mousetrap.sink
import mousetrap.worker.worker  # noqa: F401
from mousetrap.cli import main

lifeline, held = os.pipe()


def tell(**facts: object) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def on_child(*_: object) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        tell(ended=pid, code=os.waitstatus_to_exitcode(status))


def become_worker(order: dict) -> None:
    """Be ``mousetrap work`` from here on."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(held)
    os.dup2(lifeline, 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])
    sys.argv = ["mousetrap", "work", "rig.flow:work", "--with-parent", *order["options"]]
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
    order = json.loads(line)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # the pid is told before the end
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        become_worker(order)
    tell(started=pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

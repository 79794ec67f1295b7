"""Other processes: a worker in one, and whether one has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import psutil

PROGRAM = """
import sys
from mousetrap import Worker
def elsewhere(_: object) -> None: ...
with Worker("work", elsewhere):
    print("up", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(settings, program=PROGRAM):
    """Run *program*, by default a worker, in another process while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | settings.to_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.wait(10)


def is_gone(pid):
    """Return whether the process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

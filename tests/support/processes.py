"""A worker in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

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

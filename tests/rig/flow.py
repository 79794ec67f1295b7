"""What the workers of the rig run: a stage whose messages say what is to happen.

A message is its own id; ``fail-...`` raises each time it is handled, ``exit`` and ``crash`` end the
process. ``RIG_KILL`` in the environment names the point of the handler at which the process kills
itself, ``RIG_HANDLING`` how many seconds a message takes, ``RIG_GATE`` a file that is waited for,
``RIG_SINK`` a sink that keeps each id.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import mousetrap

KILL = os.environ.get("RIG_KILL", "")
HANDLING = float(os.environ.get("RIG_HANDLING", "0"))
GATE = os.environ.get("RIG_GATE", "")
SINK = os.environ.get("RIG_SINK", "")
DELAYS = (0.05,)  # seconds

sink = mousetrap.Sink(SINK) if SINK else None


def die_at(point: str) -> None:
    if point == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


@mousetrap.stage(reads="work", writes="out", retry_delays=DELAYS)
def work(id: str) -> str:
    die_at("handler begins")
    if GATE:
        Path(GATE + ".begun").touch()
        deadline = time.monotonic() + 120
        while not Path(GATE).exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # work that lasts until it is let go
        Path(GATE + ".finished").touch()
    if id == "exit":
        os._exit(0)
    if id == "crash":
        ctypes.string_at(0)  # a segmentation fault
    if HANDLING:
        time.sleep(HANDLING)  # the work
    if sink is not None:
        sink.store(id)
    if id.startswith("fail"):
        raise ValueError("no luck")
    die_at("handler ends")
    return id

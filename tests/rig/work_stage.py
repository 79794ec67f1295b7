"""The stage that the workers of the rig run: its messages say what is to happen.

The body of a message is its id. ``fail-...`` raises at each attempt; ``exit`` and ``crash`` end the
process. Environment variables: ``RIG_KILL`` names the point of the handler at which the process
kills itself, ``RIG_SECONDS`` is how many seconds a message takes, ``RIG_GATE`` a file that the
handler waits for, and ``RIG_SINK`` a sink that stores each id. With ``RIG_TARGETS`` the workers run
the stage `fan_out`, which sends each id to two queues and an exchange.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import mousetrap

KILL = os.environ.get("RIG_KILL", "")
WORK_SECONDS = float(os.environ.get("RIG_SECONDS", "0"))
GATE = os.environ.get("RIG_GATE", "")
SINK = os.environ.get("RIG_SINK", "")
DELAYS = (0.05,)  # seconds
GATE_TIMEOUT = 120.0  # seconds

sink = mousetrap.Sink(SINK) if SINK else None


def kill_at(point: str) -> None:
    if point == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


@mousetrap.stage(reads="work", writes="out", retry_delays=DELAYS)
def work(id: str) -> str:
    kill_at("handler begins")
    if GATE:
        Path(GATE + ".begun").touch()
        deadline = time.monotonic() + GATE_TIMEOUT
        while not Path(GATE).exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # the work, which lasts until the test creates the file
        Path(GATE + ".finished").touch()
    if id == "exit":
        os._exit(0)
    if id == "crash":
        ctypes.string_at(0)  # a segmentation fault
    if WORK_SECONDS:
        time.sleep(WORK_SECONDS)  # the work
    if sink is not None:
        sink.store(id)
    if id.startswith("fail"):
        raise ValueError("no luck")
    kill_at("handler ends")
    return id


_plain = work.function
copies = mousetrap.Exchange("copies", "topic")
COPIES = mousetrap.Queue("copied", (), bindings=[copies["id.*"]])
TARGETS = ("out", "copied", "routed")  # the queues that get each id


@mousetrap.stage(
    reads="work",
    writes=["out", copies["id.{}".format]],
    routes=["routed"],
    retry_delays=DELAYS,
    name="work",
)
def fan_out(id: str) -> Iterator[str | mousetrap.Send]:
    yield _plain(id)
    yield mousetrap.Send(id, to="routed")


if os.environ.get("RIG_TARGETS"):
    work = fan_out

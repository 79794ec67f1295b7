"""The stage that the workers of the rig run: its messages say what is to happen.

The body of a message is its id. ``fail-...`` raises at each attempt; ``exit`` and ``crash`` end the
process; what `FIRST` names happens at the first attempt only. Environment variables: ``RIG_KILL``
names the point of the handler at which the process kills itself, ``RIG_SECONDS`` is how many
seconds a message takes, ``RIG_GATE`` a file that the handler waits for (``.begun`` beside it has a
line for each begin: the process and the losses of the message so far), and ``RIG_SINK`` a sink
that stores each id. ``RIG_SURVIVOR_TIMEOUT`` is how many seconds an answer is waited for before a
loss is counted. With ``RIG_TARGETS`` the workers run the stage `fan_out`, which sends each id
to two queues and an exchange; with ``RIG_BATCH`` the stage `table`, which handles batches.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mousetrap
from mousetrap.model.message import current_message
from mousetrap.worker import loss_queries

KILL = os.environ.get("RIG_KILL", "")
WORK_SECONDS = float(os.environ.get("RIG_SECONDS", "0"))
GATE = os.environ.get("RIG_GATE", "")
SINK = os.environ.get("RIG_SINK", "")
DELAYS = (0.05,)  # seconds
GATE_TIMEOUT = 120.0  # seconds

HANGS_FOR = 8.0  # seconds, longer than the time limit of workers that have one
LONG = 4.0  # seconds, longer than the grace period of workers that are stopped

sink = mousetrap.Sink(SINK) if SINK else None

loss_queries.SURVIVOR_TIMEOUT = float(
    os.environ.get("RIG_SURVIVOR_TIMEOUT", loss_queries.SURVIVOR_TIMEOUT)
)


class Hostile(ValueError):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


def fail_with(error: Exception) -> None:
    raise error


FIRST: dict[
    str, Callable[[], object]
] = {  # by the beginning of the id: what the first attempt does
    "once": lambda: fail_with(ValueError("no luck")),
    "wide": lambda: fail_with(ValueError("漢" * 42_000)),
    "hostile": lambda: fail_with(Hostile()),
    "hang": lambda: time.sleep(HANGS_FOR),
    "long": lambda: time.sleep(LONG),
}


def kill_at(point: str) -> None:
    if point == KILL:
        os.kill(os.getpid(), signal.SIGKILL)


@mousetrap.stage(reads="work", writes="out", retry_delays=DELAYS)
def work(id: str) -> str:
    kill_at("handler begins")
    if GATE:
        with open(GATE + ".begun", "a") as begun:  # one line in one write
            begun.write(f"{os.getpid()} {current_message.get().losses}\n")
        deadline = time.monotonic() + GATE_TIMEOUT
        while not Path(GATE).exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # the work, which lasts until the test creates the file
        Path(GATE + ".finished").touch()
    if id == "exit":
        os._exit(0)
    if id == "crash":
        ctypes.string_at(0)  # a segmentation fault
    first = FIRST.get(id.partition("-")[0])
    if first is not None and current_message.get().attempt == 1:
        first()
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


BATCH = mousetrap.Batch(4, within=0.2)


@mousetrap.stage(reads="work", writes="out", retry_delays=DELAYS, name="work", batch=BATCH)
def table(ids: list[str]) -> list[str]:
    kill_at("handler begins")
    if any(id.startswith("crash") for id in ids):
        os.kill(os.getpid(), signal.SIGKILL)
    if any(id.startswith("bad") for id in ids):  # one bad row: no other may fail for it
        raise ValueError("no luck")
    if sink is not None:
        sink.store_each(ids)
    kill_at("handler ends")
    failed = {n: ValueError("no luck") for n, id in enumerate(ids) if id.startswith("fail")}
    raise mousetrap.FailedItems(failed, ids)


if os.environ.get("RIG_TARGETS"):
    work = fan_out
if os.environ.get("RIG_BATCH"):
    work = table

"""The stages and jobs of which `make_recorded` records the messages, for each version the same.

It runs with older versions of the package, too, so it uses what all of them have, and the rest only
if it is there. As a program it sends the jobs and handles them, one after the other:
``python -m rig.recorded_stages``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import mousetrap
from mousetrap.job_queue import declare
from mousetrap.model.message import Message, current_message

DELAYS = (0.05,)  # seconds
COUNTS = {"plain": 6, "sends": 3, "retry": 6, "dead": 4}  # jobs of each kind
HAS_JOINS = "Join" in mousetrap.__all__


@mousetrap.stage(reads="work", writes="out", retry_delays=DELAYS)
def work(job: dict[str, Any]) -> Iterator[int]:
    kind, n = job["kind"], job["n"]
    if kind == "crash":
        os._exit(3)
    if kind == "dead" or (kind == "retry" and current_message.get().attempt == 1):
        raise ValueError("no luck")
    if kind == "sends":
        mousetrap.send("side", n)
    yield from (n, n + 1)


@mousetrap.stage(reads="out", writes="results", retry_delays=DELAYS)
def double(n: int) -> int:
    return 2 * n


def jobs() -> list[Message]:
    """Return the jobs; their ids are the same each time."""
    return [
        Message({"kind": kind, "n": 10 * n}, id=f"{kind}-{n}")
        for kind, count in COUNTS.items()
        for n in range(count)
    ]


if HAS_JOINS:

    @mousetrap.stage(reads="albums", writes="photos", retry_delays=DELAYS)
    def split(count: int) -> Iterator[int]:
        yield from range(count)

    @mousetrap.stage(reads="photos", writes="thumbs", retry_delays=DELAYS)
    def shrink(n: int) -> Iterator[int]:
        if n == 1 and current_message.get().attempt == 1:
            raise ValueError("no luck")
        if n == 2:
            raise mousetrap.Reject("unlucky")
        yield from {3: [], 4: [n, n + 0.5]}.get(n, [n])

    @mousetrap.stage(
        reads="thumbs",
        joins=mousetrap.Join("split", missing="pass"),
        writes="pages",
        retry_delays=DELAYS,
    )
    def paste(parts: list[float | mousetrap.Missing]) -> list[str]:
        return [each.reason if isinstance(each, mousetrap.Missing) else str(each) for each in parts]


PAGE = ["0.0", "1.0", "Reject: unlucky", "4.0", "4.5"]  # of an album of `PHOTOS`
PHOTOS = 5


def send_and_handle() -> None:
    """Handle each job alone, so that each message with outcomes has those of one attempt."""
    done = dead = 0
    with work.worker() as first, double.worker():
        for job in [*jobs(), Message(body=b"no JSON", id="bad-0")]:
            mousetrap.send("work", job)
            is_dead = job.id.startswith(("dead", "bad"))
            done, dead = done + (not is_dead), dead + is_dead
            first.wait_until(done=done, dead=dead, timeout=20)
        mousetrap.dead("work").replay("dead-0")
        first.wait_until(dead=dead + 1, timeout=20)


def lose_workers() -> None:
    """Let a message crash its workers until it is a dead letter."""
    mousetrap.send("work", Message({"kind": "crash", "n": 0}, id="crash-0"))
    command = [sys.executable, "-m", "mousetrap", "work", "rig.recorded_stages:work"]
    for _ in range(20):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            process.wait(25)
        except subprocess.TimeoutExpired:  # nothing crashes it any more
            process.terminate()
            process.wait(20)
            return
    raise AssertionError("the message is not a dead letter")


def join_and_call() -> None:
    """Handle an album, and a call."""
    declare("pages")
    with split.worker(), shrink.worker(concurrency=1), paste.worker() as last, work.worker():
        mousetrap.send("albums", Message(PHOTOS, id="album-0"))
        last.wait_until(done=1, timeout=20)
        mousetrap.call("work", {"kind": "plain", "n": 7}, timeout=10)
        mousetrap.send("work", {"kind": "plain", "n": 8}, priority=3, expires=60)
        mousetrap.send("work", {"kind": "plain", "n": 9}, delay=0.1)


if __name__ == "__main__":
    declare("work", "out", "side", "results")
    send_and_handle()
    lose_workers()
    if HAS_JOINS:
        join_and_call()

"""Stages of a flow with several targets: lines are parsed, archived, scored, and routed."""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap import Send, stage

QUICK = (0.02, 0.05)  # seconds


@stage(reads="raw", writes=["visits", "archive"], retry_delays=QUICK)
def parse(line: str) -> Iterator[int]:
    yield from map(int, line.split())


@stage(reads="visits", writes="scored", routes=["errors", "late"], retry_delays=QUICK)
def score(n: int) -> Iterator[int | Send]:
    """Score 0 goes nowhere it may; even numbers to `scored`, odd ones to `errors`."""
    if n == 0:
        yield Send(n, to="nowhere")
    yield Send(n, to="errors", headers={"odd": True}) if n % 2 else n * 10


@stage(reads="archive", retry_delays=QUICK)
def store(n: int) -> None: ...

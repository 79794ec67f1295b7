"""Stages of a small flow: one that doubles, one that rejects a number, one that always fails."""

from __future__ import annotations

from mousetrap import Reject, stage

QUICK = (0.05, 0.1)  # seconds


@stage(reads="numbers", writes="doubled")
def double(n: int) -> int:
    return 2 * n


@stage(reads="doubled", writes="shown")
def show(n: int) -> str:
    if n == 26:
        raise Reject("unlucky")
    return str(n)


@stage(reads="numbers", retry_delays=(30.0,))
def stubborn(n: int) -> None:
    raise ConnectionError(f"no answer at {n}")

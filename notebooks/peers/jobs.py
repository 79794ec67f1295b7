"""Handlers that wait and handlers that compute, for workers of any kind."""

from __future__ import annotations

import asyncio
import time

from mousetrap import stage

WAIT = 0.05  # seconds


async def wait_async(number: int) -> None:
    """Wait as for an answer from the network, on the loop."""
    await asyncio.sleep(WAIT)


def wait_on_thread(number: int) -> None:
    """Wait as for an answer from the network, on a thread."""
    time.sleep(WAIT)


@stage(reads="burns", writes="burnt", prefetch=1)
def burn(seconds: float) -> float:
    """Compute for so many seconds of processor time; return the clock at the end."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))
    return time.time()


@stage(reads="relayed", writes="arrived")
def relay(text: str) -> str:
    """Do nothing, so the library and the broker take all the time."""
    return text

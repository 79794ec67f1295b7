"""The figures of one worker at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """What a worker has done so far; counts are messages since it started."""

    state: str  # connecting, open, blocked, failed, closed
    received: int  # deliveries, repeated ones included
    done: int  # handled, outputs confirmed
    retried: int  # failed and sent to a retry queue, confirmed
    dead: int  # failed and sent to the dead queue, confirmed
    in_progress: int  # begun, and the broker has not confirmed an outcome yet
    prefetched: int  # delivered by the broker and not begun
    reconnects: int
    alive: bool  # started, neither closed nor unable to go on
    connected: bool  # both connections are open, perhaps blocked by an alarm
    consuming: bool  # the broker delivers messages, and they are handled
    problem: str  # what it is waiting for, or the last thing that went wrong; "" when all is well

"""What this process had in hand and outlived: none of it kills.

The broker marks whatever was given out before, and does not say how that ended. A channel that was
lost, a worker that was stopped and begun anew, as when a cell is run again: those who were there
know that it was not the message, and need not count it (see `poison_messages.after_loss`).
"""

from __future__ import annotations

import os
from collections.abc import Collection

from mousetrap.runtime import threads

MAX_REMEMBERED_IDS = (
    10_000  # messages, or all of the latest note; older ones are counted as lost again
)

_lock = threads.Lock()
_had: dict[tuple[str, str], bool] = {}


def remember(queue: str, ids: Collection[tuple[str, bool]]) -> None:
    """Note *ids* of *queue* (as on the wire), each with whether it was held for too long.

    Threads: any, as `recall`.
    """
    with _lock:
        for id, has_ack_timed_out in ids:
            _had.pop((queue, id), None)  # so that the newest are last
            _had[queue, id] = has_ack_timed_out
        for key in list(_had)[: -max(MAX_REMEMBERED_IDS, len(ids))]:
            del _had[key]


def recall(queue: str, id: str) -> bool | None:
    """Say, once, whether message *id* was held for too long here; None: it was not here."""
    with _lock:
        return _had.pop((queue, id), None)


def _begin_anew() -> None:
    """In a forked child: what its parent outlived may kill it, and nobody is left to unlock."""
    global _lock
    _lock = threads.Lock()
    _had.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)

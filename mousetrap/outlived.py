"""What this process had in hand and outlived: none of it kills.

The broker marks whatever was given out before, and does not say how that ended. A channel that was
lost, a worker that was stopped and begun anew, as when a cell is run again: those who were there
know that it was not the message, and need not count it (see `retry.after_loss`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

REMEMBERED = 10_000  # messages; the oldest are forgotten, and then counted as if nobody knew

_lock = threading.Lock()
_had: dict[tuple[str, str], bool] = {}


def remember(queue: str, ids: Iterable[tuple[str, bool]], at_least: int = 0) -> None:
    """Note *ids* of *queue* (as on the wire), each with whether it was held for too long.

    *at_least* so many are kept, whatever others note.
    """
    global _most
    with _lock:
        _most = max(_most, at_least)
        for id, is_overdue in ids:
            _had.pop((queue, id), None)  # so that the newest are last
            _had[queue, id] = is_overdue
        for key in list(_had)[:-_most]:
            del _had[key]


def recall(queue: str, id: str) -> bool | None:
    """Say, once, whether message *id* was held for too long here; None: it was not here."""
    with _lock:
        return _had.pop((queue, id), None)


_most = REMEMBERED
if hasattr(os, "register_at_fork"):  # what the parent outlived may kill the child
    os.register_at_fork(after_in_child=_had.clear)

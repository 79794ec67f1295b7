"""The messages that this process held and survived: their redelivery is not counted as a loss.

The broker marks a message that was delivered before, and does not say how that delivery ended. When
only a channel was lost, or a worker was stopped and started again (a cell was run again), the same
process knows that the message did not crash it. It does not count that redelivery towards the limit
of lost workers (see `poison_messages.after_loss`).
"""

from __future__ import annotations

import os
from collections.abc import Collection

from mousetrap.runtime import threads

# Older ids are forgotten, but never those of the latest call of `remember`. A redelivery of a
# forgotten message counts as a loss.
MAX_REMEMBERED_IDS = 10_000

_lock = threads.Lock()
_held: dict[tuple[str, str], bool] = {}  # (queue, id): has its ack timed out?


def remember(queue: str, ids: Collection[tuple[str, bool]]) -> None:
    """Remember *ids* of *queue* (on the wire), each with whether its ack has timed out.

    Threads: any, as `recall`.
    """
    with _lock:
        for id, has_ack_timed_out in ids:
            _held.pop((queue, id), None)  # so that the newest are last
            _held[queue, id] = has_ack_timed_out
        for key in list(_held)[: -max(MAX_REMEMBERED_IDS, len(ids))]:
            del _held[key]


def recall(queue: str, id: str) -> bool | None:
    """Forget message *id*; return whether its ack timed out here, None if it was not held here."""
    with _lock:
        return _held.pop((queue, id), None)


def _forget_all() -> None:
    """Start empty in a forked child: a message that the parent survived may crash the child.

    The lock is replaced, because the thread that held it does not exist in the child.
    """
    global _lock
    _lock = threads.Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

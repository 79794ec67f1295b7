"""The messages that this process held and survived: their redelivery is not counted as a loss.

The broker marks a message that was delivered before, and does not say how that delivery ended. When
only a connection or a channel was lost, or a worker was stopped and started again (a cell was run
again), this process knows that the message did not crash it. If the message comes here again, that
is not counted towards the limit of lost workers (see `poison_messages.after_loss`). If it comes to
another process, that one asks (see `mousetrap.worker.loss_queries`), and what is known here is
handed over: from then on a crash is the other one's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mousetrap.runtime import threads

# Older ids are forgotten, but never those of the latest call of `remember`. A redelivery of a
# forgotten message counts as a loss.
MAX_REMEMBERED_IDS = 10_000


@dataclass
class Held:
    """A message as this process held it."""

    id: str
    losses: int  # that it had then
    has_ack_timed_out: bool = False
    heir: str = ""  # the process to which it was handed over


_lock = threads.Lock()
_held: dict[tuple[str, str], Held] = {}  # by queue and id


def remember(queue: str, messages: Collection[Held]) -> None:
    """Remember *messages* of *queue* (its name on the wire).

    Threads: any, as for all functions here.
    """
    with _lock:
        for each in messages:
            _held.pop((queue, each.id), None)  # so that the newest are last
            _held[queue, each.id] = each
        for key in list(_held)[: -max(MAX_REMEMBERED_IDS, len(messages))]:
            del _held[key]


def recall(queue: str, id: str) -> bool | None:
    """Forget message *id*; return whether its ack timed out here, None if it was not held here.

    None also if it was handed over: what became of it is not known here.
    """
    with _lock:
        held = _held.pop((queue, id), None)
    return None if held is None or held.heir else held.has_ack_timed_out


def hand_over(queue: str, messages: Iterable[tuple[str, int]], process: str) -> list[Held]:
    """Return what this process held of *messages* (ids, and their losses now).

    *process* has them now. If it asks again, it gets the same answer, because the first one may be
    lost; another process gets none. Nor is there an answer if a loss was counted meanwhile: then
    the copy was delivered since, to a process that is not known here.
    """
    found = []
    with _lock:
        for id, losses in messages:
            held = _held.get((queue, id))
            if held is not None and held.losses == losses and held.heir in ("", process):
                held.heir = process
                found.append(held)
    return found


def _forget_all() -> None:
    """Start empty in a forked child: a message that the parent survived may crash the child.

    The lock is replaced, because the thread that held it does not exist in the child.
    """
    global _lock
    _lock = threads.Lock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

"""The events of a run of two stages, as they come from the wire."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mousetrap.model.ledger import Ledger
from mousetrap.model.message import child_id
from mousetrap.model.outcome import Outcome, outputs_to, pack

READS = {"start_fetch": "fetch", "start_process": "process"}
AT_A_TIME = 100  # outcomes in one body; a worker packs as many as are ready


def bodies(jobs: int, retried: float = 0.0) -> Iterator[tuple[list[str], float, bytes, bytes]]:
    """Yield the ids of 100 jobs, when they were sent, and the outcomes of both stages.

    *retried* is the share of attempts that fail once.
    """
    chance = random.Random(17)  # seeded: the same events each time
    at = 1_700_000_000.0
    for _ in range(0, jobs, AT_A_TIME):
        ids = [f"{chance.getrandbits(128):032x}" for _ in range(AT_A_TIME)]
        first = [("fetch", "start_fetch", id, "", None) for id in ids]
        second = [("process", "start_process", child_id(id, "fetch", 0), id, id) for id in ids]
        yield (
            ids,
            at,
            _packed(first, "start_process", at, chance, retried),
            _packed(second, "summaries", at + 0.02, chance, retried),
        )
        at += 0.04


def feed(ledger: Ledger, jobs: int, retried: float = 0.0) -> None:
    """Let *ledger* know of a run with so many *jobs*, all of which are done."""
    for ids, at, first, second in bodies(jobs, retried):
        for id in ids:
            ledger.sent(id, "start_fetch", at)
            ledger.confirmed(id)
        ledger.add_packed(first, at + 0.03)
        ledger.add_packed(second, at + 0.05)


def _packed(messages, writes, at, chance, retried) -> bytes:
    outcomes = []
    for stage, queue, id, job, parent in messages:
        attempt, begun = 1, at + chance.random() / 100
        if chance.random() < retried:
            outcomes.append(Outcome(
                id, "retried", stage, queue, "here:1", begun, 0.001, 1, job, parent,
                reason="ValueError: no luck", traceback="Traceback\n" * 50, delay=0.001,
            ))  # fmt: skip
            attempt, begun = 2, begun + 0.002
        outcomes.append(Outcome(
            id, "done", stage, queue, "here:1", begun, chance.random() / 500, attempt, job, parent,
            outputs_to(writes, 1),
        ))  # fmt: skip
    return pack(outcomes)

"""The ledger as tables: what happened to each message, and where each open one waits.

Nothing here talks to a broker. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mousetrap.display.table import Table
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.outcome import Outcome


def messages(
    ledger: Ledger, reads: Collection[str], name: str, printed: Mapping[str, str] | None = None
) -> Table:
    """Return a row for each message: its path, times in seconds, attempts, outcome and reason.

    A message without an outcome is *open* if its queue is one of *reads* (plain names), else it is
    a *result*. With *printed* (message id -> text) there is a column for what its handler printed.
    """
    entries = ledger.entries()
    known = {entry.id: entry for entry in entries}
    first = ledger.first_queued_at()
    columns: tuple[str, ...] = (
        "message", "job", "path", "sent", "wait", "handling", "attempts", "outcome", "reason"
    )  # fmt: skip
    rows = [_row(ledger, entry, known, first, reads) for entry in entries]
    if printed:
        columns = (*columns, "printed")
        rows = [(*row, printed.get(e.id)) for row, e in zip(rows, entries, strict=True)]
    return Table(columns, rows, f"{len(entries):,} messages of {name}")


def open_messages(ledger: Ledger, now: float) -> Table:
    """Return a row for each message that is not settled at time *now*: where it is, how long."""
    return Table(
        ("message", "job", "stopped in", "attempt", "for s", "last failure"),
        [_open_row(ledger, entry, now) for entry in ledger.open_entries()],
    )


def late_retries(
    ledger: Ledger, now: float, late: float
) -> dict[tuple[str, float], tuple[int, float]]:
    """Count, by queue and delay, the retries that are more than *late* seconds past their delay.

    Each value is their number and by how many seconds the oldest is past it, at time *now*.
    """
    found: dict[tuple[str, float], tuple[int, float]] = {}
    for entry in ledger.open_entries():
        outcome = entry.outcome
        if outcome is None or outcome.kind != "retried":
            continue
        past = now - ledger.time(outcome, outcome.ended) - outcome.delay
        if past > late:
            number, most = found.get((entry.queue, outcome.delay), (0, 0.0))
            found[entry.queue, outcome.delay] = number + 1, max(most, past)
    return found


def delayed(
    ledger: Ledger, now: float, late: float
) -> dict[tuple[str, float], tuple[int, float, float]]:
    """Count the delayed messages without an outcome, by queue and delay; due ones if *late*.

    Each value is their number, and when the first and the last of them is due, in seconds since
    1970. One that was due less than *late* seconds before *now* is left out.
    """
    found: dict[tuple[str, float], tuple[int, float, float]] = {}
    for entry in ledger.open_entries():
        if not entry.delay or entry.outcomes or (due := ledger.due_at(entry)) is None:
            continue
        if due > now or due + late < now:
            number, first, last = found.get((entry.queue, entry.delay), (0, due, due))
            found[entry.queue, entry.delay] = number + 1, min(first, due), max(last, due)
    return found


def last_failure(ledger: Ledger) -> Outcome | None:
    """Return the latest failure of a message that is not settled; None if there is none."""
    failures = [
        outcome for entry in ledger.open_entries() for outcome in entry.outcomes if outcome.reason
    ]
    return max(failures, key=lambda outcome: outcome.begun, default=None)


def first_dead(ledger: Ledger) -> Outcome:
    """Return the outcome of the message that was dead-lettered first.

    Raises:
        ValueError: no message is dead.
    """
    outcomes = [outcome for entry in ledger.entries() if (outcome := entry.outcome) is not None]
    return min(
        (outcome for outcome in outcomes if outcome.kind == "dead"),
        key=lambda outcome: outcome.ended,
    )


def _row(
    ledger: Ledger,
    entry: LedgerEntry,
    known: Mapping[str, LedgerEntry],
    first: float,
    reads: Collection[str],
) -> tuple[Any, ...]:
    outcome, queued_at = entry.outcome, ledger.queued_at(entry)
    path, step, seen = [outcome.stage if outcome else entry.queue], entry, {entry.id}
    # any client can set the header of the parent: a message may seem to be its own ancestor
    while step.parent is not None and step.parent in known and step.parent not in seen:
        step = known[step.parent]
        seen.add(step.id)
        path.append(step.outcome.stage if step.outcome else step.queue)
    end = outcome.kind if outcome else ("open" if entry.queue in reads else "result")
    return (
        entry.id[:8],
        (entry.job or entry.id)[:8],
        " → ".join(reversed(path)),
        None if queued_at is None else queued_at - first,
        next((wait for _, wait in ledger.waits(entry)), None),
        None if outcome is None else outcome.seconds,
        max((each.attempt for each in entry.outcomes), default=0),
        end,
        (outcome.reason or None) if outcome else None,
    )


def _open_row(ledger: Ledger, entry: LedgerEntry, now: float) -> tuple[Any, ...]:
    place, attempt, since, reason = entry.queue, 1, ledger.due_at(entry), None
    if entry.delay:
        place = f"{entry.queue}, after {entry.delay:g} s"
    if (outcome := entry.outcome) is not None and outcome.kind == "retried":
        place, attempt = f"{entry.queue}, after {outcome.delay:g} s", outcome.attempt + 1
        since, reason = ledger.time(outcome, outcome.ended) + outcome.delay, outcome.reason
    waited = None if since is None else max(0.0, now - since)
    return entry.id[:8], (entry.job or entry.id)[:8], place, attempt, waited, reason

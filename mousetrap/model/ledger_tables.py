"""The ledger as tables: what became of each message, and where each open one stopped.

Nothing here talks to a broker. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mousetrap.display.table import Table
from mousetrap.model.ledger import Entry, Ledger
from mousetrap.model.outcome import Fate


def messages(
    ledger: Ledger, reads: Collection[str], name: str, printed: Mapping[str, str] | None = None
) -> Table:
    """One row for each message: its path, times in seconds, attempts, outcome and reason.

    And what was *printed* for it (by its id), if anything was for any.
    """
    entries = ledger.entries()
    known = {entry.id: entry for entry in entries}
    first = min((at for each in entries if (at := ledger.ready(each)) is not None), default=0.0)
    columns: tuple[str, ...] = (
        "message", "job", "path", "sent", "wait", "handling", "attempts", "outcome", "reason"
    )  # fmt: skip
    rows = [_row(ledger, entry, known, first, reads) for entry in entries]
    if printed:
        columns = (*columns, "printed")
        rows = [(*row, printed.get(e.id)) for row, e in zip(rows, entries, strict=True)]
    return Table(columns, rows, f"{len(entries):,} messages of {name}")


def open_messages(ledger: Ledger, now: float) -> Table:
    """One row for each message without a final fate: where it stopped, and how long ago."""
    return Table(
        ("message", "job", "stopped in", "attempt", "for s", "last failure"),
        [_stop(ledger, entry, now) for entry in ledger.open_entries()],
    )


def last_failure(ledger: Ledger) -> Fate | None:
    """The latest failure among the messages that are still open."""
    failures = [fate for entry in ledger.open_entries() for fate in entry.fates if fate.reason]
    return max(failures, key=lambda fate: fate.begun, default=None)


def first_death(ledger: Ledger) -> Fate:
    """The fate of the message that died first; there must be one."""
    fates = [fate for entry in ledger.entries() if (fate := entry.fate) is not None]
    return min((fate for fate in fates if fate.outcome == "dead"), key=lambda fate: fate.ended)


def _row(
    ledger: Ledger, entry: Entry, known: Mapping[str, Entry], first: float, reads: Collection[str]
) -> tuple[Any, ...]:
    fate, ready = entry.fate, ledger.ready(entry)
    path, step = [fate.stage if fate else entry.queue], entry
    while step.parent is not None and step.parent in known:
        step = known[step.parent]
        path.append(step.fate.stage if step.fate else step.queue)
    outcome = fate.outcome if fate else ("open" if entry.queue in reads else "result")
    return (
        entry.id[:8],
        (entry.job or entry.id)[:8],
        " → ".join(reversed(path)),
        None if ready is None else ready - first,
        next((wait for _, wait in ledger.waits(entry)), None),
        None if fate is None else fate.seconds,
        max((each.attempt for each in entry.fates), default=0),
        outcome,
        (fate.reason or None) if fate else None,
    )


def _stop(ledger: Ledger, entry: Entry, now: float) -> tuple[Any, ...]:
    place, attempt, since, reason = entry.queue, 1, ledger.ready(entry), None
    if (fate := entry.fate) is not None and fate.outcome == "retried":
        place, attempt = f"{entry.queue}, after {fate.delay:g} s", fate.attempt + 1
        since, reason = ledger.time(fate, fate.ended) + fate.delay, fate.reason
    waited = None if since is None else max(0.0, now - since)
    return entry.id[:8], (entry.job or entry.id)[:8], place, attempt, waited, reason

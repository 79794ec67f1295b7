"""The ledger as tables: what happened to each message, and where each open one waits.

Nothing here talks to a broker. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mousetrap.display.table import Table
from mousetrap.errors import SettingsError
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.outcome import Outcome
from mousetrap.model.summary import duration

OUTCOMES = ("dead", "open", "retried", "done", "result")  # of a message; the first need attention
ORDERS = ("attention", "slowest", "sent")


def messages(
    ledger: Ledger,
    reads: Mapping[str, str],
    name: str,
    printed: Mapping[str, str] | None = None,
    *,
    outcome: str | None = None,
    stage: str | None = None,
    order: str = "attention",
    page: int = 1,
) -> Table:
    """Return a row for each message: its path, times in seconds, attempts, outcome and reason.

    A message without an outcome is *open* if its queue is one of *reads* (the plain name of a
    queue, with the stage that reads it), else it is a *result*. With *printed* (message id -> text)
    there is a column for what its handler printed. *outcome* and *stage* keep only such messages.
    *page* is the one that is shown, from 1.

    Raises:
        SettingsError: there is no such outcome, stage or order; the text says which there are.
    """
    for given, known in ((outcome, OUTCOMES), (stage, reads.values()), (order, ORDERS)):
        if given not in known and not (given is None and known is not ORDERS):
            raise SettingsError(f"there is no {given!r} here: use one of {', '.join(known)}")
    entries = ledger.entries()
    known_entries = {entry.id: entry for entry in entries}
    first = ledger.first_queued_at()
    columns: tuple[str, ...] = (
        "message", "job", "path", "sent", "wait", "handling", "attempts", "outcome", "reason"
    )  # fmt: skip
    rows = [
        (*_row(ledger, entry, known_entries, first, reads), (printed or {}).get(entry.id))
        for entry in entries if stage is None or reads.get(entry.queue) == stage
    ]  # fmt: skip
    rows = [row for row in rows if outcome is None or row[_OUTCOME] == outcome]
    if order == "slowest":
        rows.sort(key=lambda row: -_seconds(row))
    elif order == "attention":
        rows.sort(key=lambda row: (OUTCOMES.index(row[_OUTCOME]), -row[_ATTEMPTS], -_seconds(row)))
    columns = (*columns, "printed") if printed else columns
    chosen = [text for text in (outcome, stage and f"in {stage}") if text]
    title = _title(rows, name) + f" ({', '.join(chosen)})" * bool(chosen)
    return Table(
        columns, [row[: len(columns)] for row in rows], title, page=page,
        more="more: page=…, outcome='dead', stage='…', order='slowest', or .to_pandas() for all",
        units={"sent": "s", "wait": "s", "handling": "s"},
    )  # fmt: skip


_WAIT, _HANDLING, _ATTEMPTS, _OUTCOME = 4, 5, 6, 7  # columns of a row


def _seconds(row: Sequence[Any]) -> float:
    """Return how long a message waited and was handled."""
    return (row[_WAIT] or 0.0) + (row[_HANDLING] or 0.0)


def _title(rows: Sequence[Sequence[Any]], name: str) -> str:
    """Return the totals: ``1,994 messages of 700 jobs in run-7f: 53 dead, slowest 1.47 s``."""
    jobs = len({row[1] for row in rows})
    title = f"{_counted(len(rows), 'message')} of {_counted(jobs, 'job')} in {name}"
    counts = {each: sum(row[_OUTCOME] == each for row in rows) for each in ("dead", "open")}
    facts = [f"{number:,} {word}" for word, number in counts.items() if number]
    if retries := sum(max(0, row[_ATTEMPTS] - 1) for row in rows):
        facts.append(f"{retries:,} retries" if retries > 1 else "1 retry")
    if slowest := max(map(_seconds, rows), default=0.0):
        facts.append(f"slowest {duration(slowest)}")
    return f"{title}: {', '.join(facts)}" if facts else title


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def own_sends(entries: Sequence[LedgerEntry]) -> int:
    """Return how many messages handlers sent themselves, each counted once."""
    outputs = (each for entry in entries for one in entry.outcomes for each in one.outputs)
    return len({each.id for each in outputs if each.is_own})


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

"""The ledger as tables: what happened to each message, and where each open one waits.

Nothing here talks to a broker. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mousetrap.display.formats import age, counted, duration
from mousetrap.display.safe_text import safe
from mousetrap.display.table import MAX_CELL_CHARS, MAX_TABLE_ROWS, Table
from mousetrap.errors import SettingsError
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.ledger_order import ORDERS, OUTCOMES, MessageOrder, outcome_of
from mousetrap.model.outcome import Outcome

MAX_KEPT_ROWS = 10_000  # of a table; of a longer one, a row shows what is known when it is shown
MAX_GROUPS = 10  # lines of `open_groups`
MIN_SHOWN_WAIT = 0.5  # seconds; a shorter wait would be shown as 0 s


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
    call: str = "run.messages",
) -> Table:
    """Return a row for each message: stage, times in seconds, attempts, outcome and reason.

    The stage has those before it: ``fetch → process``. A message without an outcome is *open* if
    its queue is one of *reads* (the plain name of a queue, with the stage that reads it), else it
    is a *result*. With *printed* (message id -> text)
    there is a column for what its handler printed. *outcome* and *stage* keep only such messages.
    *page* is the one that is shown, from 1; *call* is the name of the method that shows others.

    Raises:
        SettingsError: there is no such outcome, stage or order; the text says which there are.
    """
    for given, known in ((outcome, OUTCOMES), (stage, reads.values()), (order, ORDERS)):
        if given not in known and not (given is None and known is not ORDERS):
            raise SettingsError(f"there is no {given!r} here: use one of {', '.join(known)}")
    columns: tuple[str, ...] = (
        "message", "job", "stage", "sent", "wait", "handling", "attempts", "outcome", "reason"
    )  # fmt: skip
    columns = (*columns, "printed") if printed else columns
    chosen = [text for text in (outcome, stage and f"in {stage}") if text]
    with ledger.figures() as figures:
        found = MessageOrder(figures, reads, outcome, stage, order)
        title = found.totals(name) + f" ({', '.join(chosen)})" * bool(chosen)
        rows: Sequence[tuple[Any, ...]] = _MessageRows(
            ledger, found, figures.first_queued_at(), reads, printed
        )
        if len(rows) <= MAX_KEPT_ROWS:
            rows = list(rows)
    return Table(
        columns, rows, title, page=page,
        more=_more(call, {"outcome": outcome, "stage": stage}, order, page, len(rows)),
        shows=dict.fromkeys(("sent", "wait", "handling"), duration), wrapped="reason",
        repeats={"job": "message"},
    )  # fmt: skip


def _more(call: str, chosen: Mapping[str, str | None], order: str, page: int, number: int) -> str:
    """Return the calls that show those of *number* messages which *page* does not show."""
    following = page + 1 if page * MAX_TABLE_ROWS < number else 1
    given = [f"{name}={value!r}" for name, value in chosen.items() if value is not None]
    ordered = [f"order={order!r}"] if order != ORDERS[0] else []
    calls = [f"{call}({', '.join([*given, *ordered, f'page={following}'])})"]
    if not ordered:
        calls.append(f"{call}({', '.join([*given, 'order=' + repr('slowest')])})")
    return " · ".join([*calls, f"{call}({', '.join([*given, *ordered])}).to_pandas()"])


def open_messages(ledger: Ledger, now: float) -> Table:
    """Return a row for each message that is not settled at time *now*: where it is, how long.

    The title says of how many jobs they are.
    """
    jobs, rows = set(), []
    for entry in ledger.each_open():
        jobs.add(entry.of_job)
        rows.append(_open_row(ledger, entry, now))
    return Table(
        ("message", "job", "stopped in", "attempt", "for s", "last failure"),
        rows,
        f"no final outcome of {counted(len(rows), 'message')} of {counted(len(jobs), 'job')}",
    )


def open_groups(table: Table) -> list[str]:
    """Return a line for each place in which messages of *table*, of `open_messages`, wait.

    Those with the same attempt are one line: ``11 in slow, 2 s each``.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in table:
        groups.setdefault((row["stopped in"], row["attempt"]), []).append(row)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = [_group_line(place, attempt, rows) for (place, attempt), rows in largest]
    if more := lines[MAX_GROUPS:]:
        lines[MAX_GROUPS:] = [f"and {counted(len(more), 'more place')}"]
    return lines


def _group_line(place: str, attempt: int, rows: Sequence[Mapping[str, Any]]) -> str:
    line = f"{len(rows):,} in {place}"
    waited = [row["for s"] for row in rows if row["for s"] is not None]
    if waited and max(waited) >= MIN_SHOWN_WAIT:
        shortest, longest = age(min(waited)), age(max(waited))
        span = longest if shortest == longest else f"{shortest} to {longest}"
        if ", after " in place:  # the time since the end of its delay
            line += f", due {span} ago"
        else:
            line += f", {span}" + " each" * (len(rows) > 1 and shortest == longest)
    if attempt > 1:
        line += f", attempt {attempt}"
    reasons = Counter(row["last failure"] for row in rows if row["last failure"])
    if reasons:
        reason, _ = reasons.most_common(1)[0]
        line += f"; last failure: {safe(reason, MAX_CELL_CHARS)}"
        if len(reasons) > 1:
            line += f" ({len(reasons) - 1:,} more texts)"
    return line


def late_retries(
    ledger: Ledger, now: float, late: float
) -> dict[tuple[str, float], tuple[int, float]]:
    """Count, by queue and delay, the retries that are more than *late* seconds past their delay.

    Each value is their number and by how many seconds the oldest is past it, at time *now*.
    """
    found: dict[tuple[str, float], tuple[int, float]] = {}
    for entry in ledger.each_open():
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
    for entry in ledger.each_open():
        if not entry.delay or entry.outcomes or (due := ledger.due_at(entry)) is None:
            continue
        if due > now or due + late < now:
            number, first, last = found.get((entry.queue, entry.delay), (0, due, due))
            found[entry.queue, entry.delay] = number + 1, min(first, due), max(last, due)
    return found


def last_failure(ledger: Ledger) -> Outcome | None:
    """Return the latest failure of a message that is not settled; None if there is none."""
    failures = [
        outcome for entry in ledger.each_open() for outcome in entry.outcomes if outcome.reason
    ]
    return max(failures, key=lambda outcome: outcome.begun, default=None)


def first_dead(ledger: Ledger) -> Outcome:
    """Return the outcome of the message that was dead-lettered first.

    Raises:
        ValueError: no message is dead.
    """
    outcomes = [entry.outcome for entry in ledger.dead_entries() if entry.outcome is not None]
    return min(outcomes, key=lambda outcome: outcome.ended)


class _MessageRows(Sequence[tuple[Any, ...]]):
    """The rows of the table `messages`, each made when it is looked at."""

    def __init__(
        self,
        ledger: Ledger,
        order: MessageOrder,
        first: float,
        reads: Collection[str],
        printed: Mapping[str, str] | None,
    ) -> None:
        self._ledger = ledger
        self._order = order
        self._first = first  # when the first message of the run was put into its queue
        self._reads = reads
        self._printed = printed

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        wanted = range(len(self))[index]
        if isinstance(wanted, int):
            return self._row(*self._ledger.each_of([self._order.first(wanted + 1)[wanted]]))
        rows = self._order.first(max(wanted, default=-1) + 1)
        return [self._row(each) for each in self._ledger.each_of([rows[n] for n in wanted])]

    def _row(self, entry: LedgerEntry) -> tuple[Any, ...]:
        ledger, outcome, queued_at = self._ledger, entry.outcome, self._ledger.queued_at(entry)
        path, step, seen = [outcome.stage if outcome else entry.queue], entry, {entry.id}
        # any client can set the header of the parent: a message may seem to be its own ancestor
        while step.parent is not None and step.parent not in seen:
            if (found := ledger.entry(step.parent)) is None:
                break
            step = found
            seen.add(step.id)
            path.append(step.outcome.stage if step.outcome else step.queue)
        row = (
            entry.id[:8],
            entry.of_job[:8],
            " → ".join(reversed(path)),
            None if queued_at is None else queued_at - self._first,
            next((wait for _, wait in ledger.waits(entry)), None),
            None if outcome is None else outcome.seconds,
            max((each.attempt for each in entry.outcomes), default=0),
            outcome_of(entry, self._reads),
            (outcome.reason or None) if outcome else None,
        )
        return (*row, self._printed.get(entry.id)) if self._printed else row


def _open_row(ledger: Ledger, entry: LedgerEntry, now: float) -> tuple[Any, ...]:
    place, attempt, since, reason = entry.queue, 1, ledger.due_at(entry), None
    if entry.delay:
        place = f"{entry.queue}, after {entry.delay:g} s"
    if (outcome := entry.outcome) is not None and outcome.kind == "retried":
        place, attempt = f"{entry.queue}, after {outcome.delay:g} s", outcome.attempt + 1
        since, reason = ledger.time(outcome, outcome.ended) + outcome.delay, outcome.reason
    waited = None if since is None else max(0.0, now - since)
    return entry.id[:8], entry.of_job[:8], place, attempt, waited, reason

"""Draws what faults caused: the rate of messages, the number of open jobs, and each fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from math import inf
from typing import Protocol

from mousetrap.display.design_tokens import ACCENT_MARK, DEAD, DEAD_MARK, MUTED
from mousetrap.display.formats import counted, duration
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.runs.plot_canvas import (
    LABEL_HEIGHT,
    PIXELS_PER_INCH,
    POINTS_PER_INCH,
    TEXT,
    count_ticks,
    named,
    new_figure,
    number_ticks,
    text_width,
    thinned,
    unit_of_time,
    write_heading,
)

RATE_BINS = 80  # intervals of time in which messages are counted
MAX_FAULTS_LISTED = 12  # faults with a number; a table has the others
RECOVERY_HEIGHT = 560  # pixels
ABOVE_RATES = 1.35  # of the rates, in heights of the highest bar: numbers stand above the bars


@dataclass(frozen=True)
class FaultRow:
    """One injected fault as `recovery` draws it."""

    name: str  # "cut"
    triggered_at: float | None  # seconds since 1970; None: it was not triggered
    healed_after: float | None  # seconds; None: it was not healed


class HasFaultRows(Protocol):
    """An account of injected faults, such as `mousetrap.Faults`."""

    def rows(self) -> list[FaultRow]:
        """Return one row for each fault."""


def finding(faults: Sequence[FaultRow], jobs: JobCounts) -> str:
    """Return in a sentence what the *faults* did: ``"4 faults, all healed, longest 160 ms"``."""
    triggered = [each for each in faults if each.triggered_at is not None]
    times = [each.healed_after for each in triggered if each.healed_after is not None]
    parts = [counted(len(triggered), "fault") if triggered else "No fault was triggered"]
    if triggered:
        rest = len(triggered) - len(times)
        parts.append("healed" if len(triggered) == 1 else "all healed")
        if rest:
            parts[-1] = f"{len(times):,} healed, {rest:,} not healed"
        if times and max(times) > 0:
            parts.append(f"longest {duration(max(times))}" if len(times) > 1
                         else f"after {duration(max(times))}")  # fmt: skip
    idle = len(faults) - len(triggered)
    what = ", ".join(parts) + (f"; {idle:,} not triggered" if idle and triggered else "")
    return (
        f"{what}; {counted(jobs.under_way, 'job')} under way"
        if jobs.under_way
        else f"{what}; 0 lost"
    )


def recovery(ledger: Ledger, faults: Sequence[FaultRow]) -> None:
    """Draw the rate at which messages were done, the number of open jobs, and the *faults*.

    A fault is a line with its number, and the time until it was healed a band. A fault that was
    not triggered is not drawn. Both pictures have the same time axis.
    """
    with ledger.figures() as figures:
        first, jobs = figures.first_queued_at(), figures.jobs()
        found, ends_of_jobs = figures.moments(), figures.ends_of_jobs()
    ends = sorted([end for _, moments in found.stages for end in moments] + [*found.dead()])
    marks = _marks(faults, first)
    healed = [at + (each.healed_after or 0.0) for at, each in marks]
    last = max([1e-3, *ends[-1:], *found.sent[-1:], *healed])
    unit, unit_name = unit_of_time(last)

    listed = _listed([each for _, each in marks])
    right = max([text_width(text) for text in listed], default=0.0) + 24
    _, (rate, backlog) = new_figure(RECOVERY_HEIGHT, [(60, 270), (356, 530)], 64, right)
    width = last / RATE_BINS
    counts = [0] * RATE_BINS
    for end in ends:
        counts[min(RATE_BINS - 1, int(end / width))] += 1
    edges = [width * n / unit for n in range(RATE_BINS + 1)]
    rates = [count / width for count in counts]
    rate.stairs(rates, edges, fill=True, color=ACCENT_MARK, alpha=0.8)
    count_ticks(rate, ABOVE_RATES * max(rates))
    write_heading(rate, finding(faults, jobs),
                  f"messages done per second, {len(ends):,} in all")  # fmt: skip

    changes = sorted([*_changes(found.sent, 1), *_changes(ends_of_jobs, -1)])
    open_jobs = list(accumulate((change for _, change in changes), initial=0))
    moments = [0.0, *(at / unit for at, _ in changes)]
    backlog.step(moments, open_jobs, where="post", color=ACCENT_MARK, linewidth=1.8)
    count_ticks(backlog, 1.05 * max(open_jobs))
    below = f"of {counted(jobs.total, 'job')}; {unit_name} since the first was sent"
    write_heading(backlog, "Jobs under way", below)
    for axes in (rate, backlog):
        axes.set_xlim(min([0.0, *(at / unit for at, _ in marks)]), last / unit)
        number_ticks(axes)
        for number, (at, _) in enumerate(marks):  # many lines would hide the picture
            height = 0.0 if number < MAX_FAULTS_LISTED else 0.95
            axes.axvline(at / unit, height, color=DEAD_MARK, linewidth=1.2)
        for at, end in _united(zip((at for at, _ in marks), healed, strict=True)):
            axes.axvspan(at / unit, end / unit, color=DEAD_MARK, alpha=0.18, linewidth=0)
    points = POINTS_PER_INCH / PIXELS_PER_INCH
    for number, (at, _) in enumerate(marks[:MAX_FAULTS_LISTED], start=1):
        height = -LABEL_HEIGHT * points * (1 + (number - 1) % 3)  # numbers of simultaneous faults
        is_last = rate.transLimits.transform((at / unit, 0))[0] > 0.95  # the list is on its right
        rate.annotate(f"{number}", (at / unit, 1.0), (-3 if is_last else 3, height),
                      ("data", "axes fraction"), "offset points", color=DEAD.light, fontsize=TEXT,
                      ha="right" if is_last else "left")  # fmt: skip
    for row, text in enumerate(listed):
        offset = -LABEL_HEIGHT * points * (row + 1)
        rate.annotate(text, (1, 1), (12 * points, offset), "axes fraction", "offset points",
                      color=MUTED.light, fontsize=TEXT, annotation_clip=False,
                      parse_math=False, gid="fault")  # fmt: skip


def _marks(faults: Sequence[FaultRow], first: float) -> list[tuple[float, FaultRow]]:
    """Return the seconds from *first* to each triggered fault; those to list come before others.

    These are the ones that were not healed, and those that took longest; each part is in order of
    time.
    """
    marks = [(each.triggered_at - first, each) for each in faults if each.triggered_at is not None]
    marks.sort(key=lambda mark: -(inf if mark[1].healed_after is None else mark[1].healed_after))
    by_time = partial(sorted, key=lambda mark: mark[0])
    return [*by_time(marks[:MAX_FAULTS_LISTED]), *by_time(marks[MAX_FAULTS_LISTED:])]


def _listed(faults: Sequence[FaultRow]) -> list[str]:
    """Return a line for each fault beside the picture, and one for those without a line."""
    lines = []
    for number, each in enumerate(faults[:MAX_FAULTS_LISTED], start=1):
        if each.healed_after is None:
            how = "not healed"
        else:
            how = f"healed after {duration(each.healed_after)}" if each.healed_after else "healed"
        lines.append(f"{number}  {named(each.name)}, {how}")
    more = len(faults) - MAX_FAULTS_LISTED
    return [*lines, f"{more:,} more in the table of faults"] if more > 0 else lines


def _united(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the times of *spans* without the empty ones; those that overlap are one."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > begin:
            found.append((begin, end))
    return found


def _changes(moments: Sequence[float], sign: int) -> list[tuple[float, int]]:
    """Return at some of *moments* by how much a count changed since the one before."""
    times, counts = thinned(moments)
    steps = (after - before for before, after in pairwise([0, *counts]))
    return [(at, sign * step) for at, step in zip(times, steps, strict=True)]

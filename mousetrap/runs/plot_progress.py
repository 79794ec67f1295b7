"""Draws how many messages each stage had done at each moment: a cumulative flow diagram.

The vertical distance between two lines is the number of messages that wait between the two stages,
the horizontal distance how long they wait. What waits for a stage is shaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mousetrap.display.design_tokens import DEAD_MARK, DEAD_SIGN, MUTED
from mousetrap.display.formats import counted, duration
from mousetrap.flows.flow import Step
from mousetrap.model.ledger_figures import Moments
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.runs.plot_canvas import (
    LABEL_HEIGHT,
    TEXT,
    Label,
    count_ticks,
    named,
    number_ticks,
    size_of,
    styles,
    text_width,
    thinned,
    unit_of_time,
    write_heading,
    write_labels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADED_COLUMNS = 300  # in which the shaded parts are computed
NARROWEST = 1.25 * LABEL_HEIGHT  # pixels of a shaded part that a word fits into


@dataclass(frozen=True)
class Curve:
    """How many messages had come to a point by each of *moments*, which ascend."""

    name: str
    moments: Sequence[float]  # seconds after the first job was sent
    color: str
    dashes: Any
    label: str


@dataclass(frozen=True)
class Waiting:
    """What waits for a stage: the curve of what came to it, and that of what it has settled."""

    stage: str
    came: Sequence[float]
    settled: Sequence[float]
    color: str


def finding(jobs: JobCounts, seconds: float, half: float | None) -> str:
    """Return in a sentence what became of the *jobs* of a run; *half* is the median of their times.

    For example ``"All 1,500 jobs done in 12.1 s; half within 590 ms"``.
    """
    if not jobs.total:
        return "No job was sent"
    time = duration(seconds)
    if jobs.under_way:
        rest = [f"{jobs.dead:,} dead"] * bool(jobs.dead) + [f"{jobs.under_way:,} under way"]
        of = f"{jobs.done:,} of {counted(jobs.total, 'job')}"
        return f"{of} done after {time}; {'; '.join(rest)}"
    each = "The job was" if jobs.total == 1 else f"All {counted(jobs.total, 'job')}"
    within = f"; half within {duration(half)}" if half is not None and jobs.done > 1 else ""
    if not jobs.dead:
        return f"{each} done in {time}{within}"
    if not jobs.done:
        return f"{each} dead after {time}"
    return f"{each} accounted for in {time}: {jobs.done:,} done, {jobs.dead:,} dead{within}"


def curves_of(found: Moments, done: Sequence[float], dead: Sequence[float]) -> list[Curve]:
    """Return the curves of a run: jobs sent, messages done by each stage, and jobs dead.

    *done* and *dead* are when jobs were. If no stage has done as many messages as there are done
    jobs, there is a curve of these, too: what is done and what is dead add up to what was sent.
    """
    curves = [Curve("sent", found.sent, MUTED.light, (0, (1, 2)), f"{len(found.sent):,} sent")]
    for (name, moments), (color, dashes) in zip(found.stages, styles(), strict=False):
        curves.append(Curve(name, moments, color, dashes, f"{len(moments):,} {named(name)}"))
    if done and all(len(moments) != len(done) for _, moments in found.stages):
        label = f"{counted(len(done), 'job')} done"
        curves.append(Curve("done", done, MUTED.light, "-", label))
    if dead:
        messages = sum(map(len, found.deaths.values()))
        label = f"{DEAD_SIGN} {len(dead):,} dead"
        if messages != len(dead):
            label = f"{DEAD_SIGN} {counted(len(dead), 'job')} dead"
        curves.append(Curve("dead", dead, DEAD_MARK, (0, (6, 2)), label))
    return curves


def waiting_of(found: Moments, steps: Sequence[Step], curves: Sequence[Curve]) -> list[Waiting]:
    """Return what waits for each stage that gets its messages from a single curve."""
    by_name = {each.name: each for each in curves}
    entries = {each.reads for each in steps} - {name for each in steps for name in each.writes}
    waiting = []
    for step in steps:
        if step.name not in by_name:
            continue
        writers = [each.name for each in steps if step.reads in each.writes]
        if not writers and len(entries) == 1:
            writers = ["sent"]
        if len(writers) != 1 or writers[0] not in by_name:
            continue
        came, own = by_name[writers[0]].moments, by_name[step.name]
        settled = sorted([*own.moments, *found.deaths.get(step.name, ())])
        if len(settled) <= len(came):  # a stage that makes several messages of one has no such gap
            waiting.append(Waiting(step.name, came, settled, own.color))
    return waiting


def draw(axes: Axes, heading: str, curves: Sequence[Curve], waiting: Sequence[Waiting]) -> None:
    """Draw *curves*, each with its label at its end, and shade what is *waiting*."""
    last = max([each.moments[-1] for each in curves if each.moments], default=0.0) or 1.0
    unit, unit_name = unit_of_time(last)
    for each in curves:
        times, counts = thinned(each.moments)
        steps = [0.0, *(at / unit for at in times), last / unit]
        axes.step(steps, [0, *counts, len(each.moments)], where="post", color=each.color,
                  linestyle=each.dashes, linewidth=1.8, label=each.name)  # fmt: skip
    axes.set_xlim(0, last / unit)
    count_ticks(axes, max([len(each.moments) for each in curves], default=0))
    number_ticks(axes)
    below = f"messages handled so far by each stage; {unit_name} since the first job was sent"
    write_heading(axes, heading, below)
    _shade(axes, waiting, last, unit)
    write_labels(axes, [Label(each.label, len(each.moments), each.color) for each in curves])


def _shade(axes: Axes, waiting: Sequence[Waiting], last: float, unit: float) -> None:
    """Shade what is waiting; the largest shaded part, if it has room, says for which stage."""
    import numpy

    grid = numpy.linspace(0, last, SHADED_COLUMNS)
    width, height = size_of(axes)
    scale = height / axes.get_ylim()[1]
    best: tuple[float, float, float, Waiting] | None = None
    for each in waiting:
        upper = numpy.searchsorted(each.came, grid, "right")
        lower = numpy.minimum(numpy.searchsorted(each.settled, grid, "right"), upper)
        axes.fill_between(grid / unit, lower, upper, color=each.color, alpha=0.16, linewidth=0)
        text = text_width(f"waiting for {named(each.stage)}")
        columns = int((text + 12) / width * SHADED_COLUMNS) + 1
        for at in range(0, SHADED_COLUMNS - columns, 4):
            low, high = lower[at : at + columns].max(), upper[at : at + columns].min()
            if (room := (high - low) * scale) > max(NARROWEST, best[0] if best else 0.0):
                best = (room, grid[at + columns // 2] / unit, (low + high) / 2, each)
    if best is not None:
        _, x, y, each = best
        axes.text(x, y, f"waiting for {named(each.stage)}", ha="center", va="center",
                  fontsize=TEXT, color=MUTED.light, parse_math=False)  # fmt: skip

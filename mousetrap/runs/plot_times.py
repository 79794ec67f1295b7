"""Draws how long jobs took: a histogram, with the time within which half of them were done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mousetrap.display.design_tokens import ACCENT_MARK, MUTED
from mousetrap.display.formats import counted, duration
from mousetrap.runs.plot_canvas import (
    TEXT,
    count_ticks,
    number_ticks,
    unit_of_time,
    write_heading,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTOGRAM_BARS = 50
LOGARITHMIC_FROM = 10  # times as long as the median: the 99th percentile
ABOVE_BARS = 1.45  # of the y axis, in heights of the highest bar: words stand above the bars
FEW_JOBS = 100  # jobs; of fewer, the 99th percentile is the last one

# Seconds at which a logarithmic axis may have ticks; each is a short text in its unit
DECADES = (*(10.0**n for n in range(-6, 2)), 60.0, 600.0, 3600.0, 36_000.0, 360_000.0)


def draw(seconds: Sequence[float], axes: Axes) -> None:
    """Draw a histogram of *seconds*, one for each job."""
    import numpy

    if not len(seconds):
        axes.text(0.5, 0.5, "no job was done", ha="center", color=MUTED.light, fontsize=TEXT,
                  transform=axes.transAxes)  # fmt: skip
        axes.set(xticks=[], yticks=[])
        write_heading(axes, "How long jobs took")
        return
    times = numpy.sort(numpy.asarray(seconds, dtype=float))
    half, most, longest = _rank(times, 50), _rank(times, 99), float(times[-1])
    is_logarithmic = most > LOGARITHMIC_FROM * half > 0
    if is_logarithmic:
        unit, unit_name = 1.0, ""
        lowest = max(float(times[0]), half / 1000)
        edges = numpy.geomspace(lowest, longest, HISTOGRAM_BARS + 1)
        times = numpy.clip(times, lowest, longest)
    else:
        unit, unit_name = unit_of_time(longest)
        edges = numpy.linspace(0, (longest or 1.0) / unit, HISTOGRAM_BARS + 1)
    counts, _ = numpy.histogram(times / unit, edges)
    axes.stairs(counts, edges, fill=True, color=ACCENT_MARK)
    highest = int(counts.max())
    count_ticks(axes, highest)
    axes.set_yticks([0, highest])
    axes.set_ylim(0, highest * ABOVE_BARS)
    if is_logarithmic:
        _logarithmic_ticks(axes, edges)
    else:
        axes.set_xlim(0, edges[-1])
        number_ticks(axes)
    scale = "the time (on a logarithmic axis)" if is_logarithmic else unit_name
    write_heading(axes, f"How long {counted(len(times), 'job')} took",
                  f"jobs, by {scale} from sending one to its last result")  # fmt: skip
    marks = [(half, f"half within {duration(half)}")] if len(times) > 1 else []
    share = "99 % within" if len(times) >= FEW_JOBS else "all within"
    marks.append((most, f"{share} {duration(most)}"))
    _mark(axes, [(at / unit, text) for at, text in marks])


def _rank(times: Any, percent: int) -> float:
    """Return a percentile of the sorted *times* as `mousetrap.model.summary` computes it."""
    return float(times[max(0, -(-len(times) * percent // 100) - 1)])


def _mark(axes: Axes, marks: Sequence[tuple[float, str]]) -> None:
    """Draw a line at each of *marks*, with its text beside it, above the bars."""
    transform = axes.transScale + axes.transLimits  # to parts of the axes
    for row, (at, text) in enumerate(marks):
        axes.axvline(at, color=MUTED.light, linewidth=1.4)
        is_right = transform.transform((at, 1))[0] > 0.75
        axes.annotate(
            text, (at, 1 - 0.14 * (row % 2)), (-4 if is_right else 4, -2),
            ("data", "axes fraction"), "offset points", ha="right" if is_right else "left",
            va="top", color=MUTED.light, fontsize=TEXT, parse_math=False,
        )  # fmt: skip


def _logarithmic_ticks(axes: Axes, edges: Any) -> None:
    low, high = float(edges[0]), float(edges[-1])
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [each for each in DECADES if low <= each <= high]
    if len(ticks) < 3:
        ticks = sorted({low, high, *ticks})
    axes.set_xticks(ticks, [duration(each) for each in ticks])
    axes.minorticks_off()

"""Draws the pictures of the notebooks: places on a map, how long jobs took, what faults caused.

Each function draws on *axes*, by default on a new figure, and returns None, so that a cell that
ends with a call shows the picture and nothing else. matplotlib comes with the extra ``notebook``;
it is imported when something is drawn. Prototyped in ``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict

from mousetrap.display.design_tokens import (
    ACCENT_MARK,
    DEAD_MARK,
    MUTED_MARK,
    RETRIED_MARK,
    SERIES_MARKS,
)
from mousetrap.display.formats import counted
from mousetrap.model.ledger import Ledger
from mousetrap.model.summary import percentiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_STEPS = 2000  # of a line, which is some 700 pixels wide
BINS = 80  # intervals of time in which messages are counted

Place: TypeAlias = tuple[float | str, float | str, str, str, str]
"""Latitude, longitude, name, country, timezone, as `mousetrap.fetch_data` returns them."""


class PlacesSummary(TypedDict):
    """The part of `mousetrap.process_data.Summary` that `places` draws."""

    most_northerly: list[float | str]  # latitude, longitude, name, country, timezone
    centroid: list[float]  # latitude, longitude


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


def places(places: Sequence[Place], summary: PlacesSummary, axes: Axes | None = None) -> None:
    """Draw *places* by latitude and longitude; mark the most northerly one and the centroid."""
    axes = axes or _axes((9, 5))
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xlabel="longitude", ylabel="latitude")
    axes.set_xticks(range(-180, 181, 60), [_degrees(lon, "EW", 0) for lon in range(-180, 181, 60)])
    axes.set_yticks(range(-90, 91, 30), [_degrees(lat, "NS", 0) for lat in range(-90, 91, 30)])
    axes.set_aspect("equal")
    axes.axhline(0, color=MUTED_MARK, linewidth=1.2, zorder=1)  # the equator

    points = [(float(lat), float(lon)) for lat, lon, *_ in places]
    lats, lons = zip(*points, strict=True) if points else ((), ())
    axes.scatter(
        lons,
        lats,
        s=40,
        color=ACCENT_MARK,
        alpha=0.8,
        zorder=3,
        label=f"{len(points)} places",
    )
    north, east, name, country, _ = summary["most_northerly"]
    axes.scatter(float(east), float(north), s=130, marker="^", color=DEAD_MARK, zorder=4,
                 label=f"most northerly: {name}, {country}")  # fmt: skip
    lat, lon = summary["centroid"]
    axes.scatter(lon, lat, s=130, marker="P", color=RETRIED_MARK, edgecolor="white", zorder=4,
                 label=f"centroid: {_degrees(lat, 'NS')}, {_degrees(lon, 'EW')}")  # fmt: skip
    axes.set_title(f"The most northerly of {len(points)} places is {name}")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15),
        ncols=3,
        frameon=False,
        labelcolor=MUTED_MARK,
    )


def latencies(seconds: Sequence[float], axes: Axes | None = None) -> None:
    """Draw the share of jobs that were done within a time; mark the median and the 99th percentile.

    *seconds* has the latency of each job.
    """
    axes = axes or _axes((9, 3.8))
    axes.set(xlabel="seconds from sending a job to its result", ylabel="jobs done (%)")
    axes.set_title(f"How long {counted(len(seconds), 'job')} took")
    if not seconds:
        axes.text(
            0.5,
            0.5,
            "no job was done",
            ha="center",
            color=MUTED_MARK,
            transform=axes.transAxes,
        )
        return
    ranked = sorted(seconds)
    times, ranks = thinned(ranked)
    share = [100 * rank / len(ranked) for rank in (0, *ranks)]
    axes.step([ranked[0], *times], share, where="post", color=ACCENT_MARK, linewidth=2)
    found = percentiles(ranked)
    for name, height, color in (("p50", 50, RETRIED_MARK), ("p99", 99, DEAD_MARK)):
        value = found[name]
        axes.axvline(value, color=color, linestyle="--", linewidth=1.2)
        axes.plot(value, height, "o", color=color, label=f"{name} = {value:.2f} s")
    axes.set(xlim=(0, 1.03 * ranked[-1]), ylim=(0, 104))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor=MUTED_MARK)


def run(ledger: Ledger) -> None:
    """Draw how many messages each stage had done at each moment, and how long the jobs took.

    The upper picture is a cumulative flow diagram: the vertical distance between two lines is the
    number of messages between the two stages, the horizontal distance the time they took.
    """
    _, (flow, axes_of_times) = _figure((9, 6.2), 2)
    with ledger.figures() as figures:
        found = figures.moments()
        seconds = figures.latencies()
    sent, stages, deaths = found.sent, found.stages, found.deaths
    flow.set(xlabel="seconds since the first job was sent", ylabel="messages so far")
    flow.set_title("Messages done by each stage")
    lines = [("sent", sent, MUTED_MARK)]
    lines += [(*stage, color) for stage, color in zip(stages, cycle(SERIES_MARKS), strict=False)]
    ends = [deaths, *(moments for _, moments, _ in lines)]
    last = max((moments[-1] for moments in ends if moments), default=1.0)
    for name, moments, color in lines:
        times, counts = thinned(moments)
        steps = [*times, last] if moments else []
        counts = [*counts, len(moments)] if moments else []
        flow.step(steps, counts, where="post", color=color, linewidth=2, label=name)
    if deaths:
        marks, _ = thinned(deaths)
        flow.plot(marks, [0] * len(marks), "x", color=DEAD_MARK, clip_on=False,
                  label=f"{len(deaths):,} dead")  # fmt: skip
    flow.set(xlim=(0, last * 1.02 or 1), ylim=(0, None))
    flow.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor=MUTED_MARK)
    latencies(seconds, axes_of_times)


def recovery(ledger: Ledger, faults: Sequence[FaultRow]) -> None:
    """Draw the rate at which messages were done, the number of open jobs, and the *faults*.

    A fault is a red line with its number, and the time until it was healed a red band. A fault that
    was not triggered is not drawn. Both pictures have the same time axis.
    """
    _, (rate, backlog) = _figure((9, 5.6), 2)
    with ledger.figures() as figures:
        first = figures.first_queued_at()
        found, ends_of_jobs = figures.moments(), figures.ends_of_jobs()
    sent = found.sent
    ends = sorted([end for _, moments in found.stages for end in moments] + [*found.deaths])
    marks = [(each.triggered_at - first, each) for each in faults if each.triggered_at is not None]
    healed = [at + (each.healed_after or 0.0) for at, each in marks]
    last = max([1e-3, *ends[-1:], *sent[-1:], *healed])
    width = last / BINS
    counts = [0] * BINS
    for end in ends:
        counts[min(BINS - 1, int(end / width))] += 1
    edges = [width * n for n in range(BINS + 1)]
    rate.stairs([count / width for count in counts], edges, fill=True, color=ACCENT_MARK, alpha=0.7)
    rate.set(ylabel="messages done per second", ylim=(0, None))
    rate.set_title(f"{counted(len(ends), 'message')}; faults: {len(marks)}")

    changes = sorted([*_changes(sent, 1), *_changes(ends_of_jobs, -1)])
    open_jobs = list(accumulate((change for _, change in changes), initial=0))
    moments = [0.0, *(at for at, _ in changes)]
    backlog.step(moments, open_jobs, where="post", color=ACCENT_MARK, linewidth=2)
    backlog.set(xlabel="seconds since the first job was sent", ylabel="open jobs")
    backlog.set(ylim=(0, None))
    for axes in (rate, backlog):
        axes.set(xlim=(min([0.0, *(at for at, _ in marks)]), last * 1.02))
        for (at, _), end in zip(marks, healed, strict=True):
            axes.axvline(at, color=DEAD_MARK, linewidth=1.2)
            if end > at:
                axes.axvspan(at, end, color=DEAD_MARK, alpha=0.15, linewidth=0)
    for number, (at, each) in enumerate(marks, start=1):
        seconds = "not healed" if each.healed_after is None else f"{each.healed_after:.1f} s"
        rate.plot([], [], color=DEAD_MARK, label=f"{number}  {each.name}, {seconds}")
        height = -10 * (1 + (number - 1) % 3)  # points; numbers of simultaneous faults stay legible
        rate.annotate(f"{number}", (at, 1.0), (2, height), xycoords=("data", "axes fraction"),
                      textcoords="offset points", color=DEAD_MARK)  # fmt: skip
    if marks:
        rate.legend(
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            labelcolor=MUTED_MARK,
            handlelength=0.8,
        )


def thinned(moments: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return at most `MAX_STEPS` of *moments*, with the number of moments up to each.

    The first and the last are among them. More steps than pixels change nothing but the time.
    """
    step = max(1, -(-len(moments) // MAX_STEPS))
    ranks = [*range(1, len(moments), step), *([len(moments)] if moments else [])]
    return [moments[rank - 1] for rank in ranks], ranks


def _changes(moments: Sequence[float], sign: int) -> list[tuple[float, int]]:
    """Return at some of *moments* by how much a count changed since the one before."""
    times, counts = thinned(moments)
    steps = (after - before for before, after in pairwise([0, *counts]))
    return [(at, sign * step) for at, step in zip(times, steps, strict=True)]


def _axes(size: tuple[float, float]) -> Axes:
    return _figure(size, 1)[1][0]


def _figure(size: tuple[float, float], rows: int) -> tuple[Figure, list[Axes]]:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "matplotlib, which draws the picture, is not installed: "
            "pip install 'mousetrap-mq[notebook]'"
        ) from None
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    colors: Any = dict.fromkeys(names, MUTED_MARK)
    with pyplot.rc_context(colors):
        figure, grid = pyplot.subplots(rows, figsize=size, layout="constrained", squeeze=False)
    figure.patch.set_alpha(0)
    found: list[Axes] = list(grid[:, 0])
    for axes in found:
        axes.patch.set_alpha(0)
        axes.grid(color=MUTED_MARK, alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found


def _degrees(value: float, directions: str, digits: int = 1) -> str:
    return f"{abs(value):.{digits}f}° {directions[value < 0] if value else ''}".strip()

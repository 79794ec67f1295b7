"""The pictures of the notebooks: places on the globe, and how long jobs took.

Each function draws on *axes*, by default on a new figure, and returns nothing: so a cell that ends
with it shows the picture and only that. matplotlib comes with the extra ``notebook`` and is
imported when something is drawn. Prototyped in ``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mousetrap.fetch_data import Place
from mousetrap.ledger import percentiles
from mousetrap.process_data import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, ORANGE, GREY = "#2b6cb0", "#c53030", "#dd6b20", "#a0aec0"


def places(places: Sequence[Place], summary: Summary, axes: Axes | None = None) -> None:
    """Draw *places* by latitude and longitude; mark the most northerly one and the centroid."""
    axes = axes or _axes((9, 5))
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xlabel="longitude", ylabel="latitude")
    axes.set_xticks(range(-180, 181, 60), [_degrees(lon, "EW", 0) for lon in range(-180, 181, 60)])
    axes.set_yticks(range(-90, 91, 30), [_degrees(lat, "NS", 0) for lat in range(-90, 91, 30)])
    axes.set_aspect("equal")
    axes.axhline(0, color=GREY, linewidth=1.2, zorder=1)  # the equator

    points = [(float(lat), float(lon)) for lat, lon, *_ in places]
    lats, lons = zip(*points, strict=True) if points else ((), ())
    axes.scatter(lons, lats, s=40, color=BLUE, alpha=0.8, zorder=3, label=f"{len(points)} places")
    north, east, name, country, _ = summary.most_northerly
    axes.scatter(float(east), float(north), s=130, marker="^", color=RED, zorder=4,
                 label=f"most northerly: {name}, {country}")  # fmt: skip
    lat, lon = summary.centroid
    axes.scatter(lon, lat, s=130, marker="P", color=ORANGE, edgecolor="white", zorder=4,
                 label=f"centroid: {_degrees(lat, 'NS')}, {_degrees(lon, 'EW')}")  # fmt: skip
    axes.set_title(f"The most northerly of {len(points)} places is {name}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)


def latencies(seconds: Sequence[float], axes: Axes | None = None) -> None:
    """Draw which share of jobs was done within how many *seconds*; mark median and p99."""
    axes = axes or _axes((9, 3.8))
    axes.set(xlabel="seconds from sending a job to its result", ylabel="jobs done (%)")
    axes.set_title(f"How long {len(seconds):,} jobs took")
    if not seconds:
        axes.text(0.5, 0.5, "no job was done", ha="center", transform=axes.transAxes)
        return
    ranked = sorted(seconds)
    share = [100 * rank / len(ranked) for rank in range(len(ranked) + 1)]
    axes.step([ranked[0], *ranked], share, where="post", color=BLUE, linewidth=2)
    found = percentiles(ranked)
    for name, height, color in (("p50", 50, ORANGE), ("p99", 99, RED)):
        value = found[name]
        axes.axvline(value, color=color, linestyle="--", linewidth=1.2)
        axes.plot(value, height, "o", color=color, label=f"{name} = {value:.2f} s")
    axes.set(xlim=(0, 1.03 * ranked[-1]), ylim=(0, 104))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _axes(size: tuple[float, float]) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "matplotlib is not installed, which draws: pip install 'mousetrap[notebook]'"
        ) from None
    axes: Axes = pyplot.subplots(figsize=size, layout="constrained")[1]
    axes.grid(color="#e2e8f0")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _degrees(value: float, directions: str, digits: int = 1) -> str:
    return f"{abs(value):.{digits}f}° {directions[value < 0] if value else ''}".strip()

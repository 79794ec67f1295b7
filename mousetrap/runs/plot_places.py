"""Draws places on a map with coastlines, for the tutorial.

The coastlines are in ``coastlines.txt``, whose first lines have their source.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from mousetrap.display.design_tokens import ACCENT_MARK, DEAD_MARK, MUTED, MUTED_MARK, RETRIED_MARK
from mousetrap.runs.plot_canvas import TEXT, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place: TypeAlias = tuple[float | str, float | str, str, str, str]
"""Latitude, longitude, name, country, timezone, as `mousetrap.fetch_data` returns them."""


class PlacesSummary(TypedDict):
    """The part of `mousetrap.process_data.Summary` that `places` draws."""

    most_northerly: list[float | str]  # latitude, longitude, name, country, timezone
    centroid: list[float]  # latitude, longitude


def places(places: Sequence[Place], summary: PlacesSummary, axes: Axes | None = None) -> None:
    """Draw *places* by latitude and longitude; mark the most northerly one and the centroid."""
    if axes is None:
        _, [axes] = new_figure(500, [(40, 410)], 60, 40)
    else:
        dress(axes)
    axes.set(xlim=(-180, 180), ylim=(-90, 90))
    axes.grid(axis="x", color=MUTED.light, alpha=0.3, linewidth=0.8)
    axes.set_xticks(range(-180, 181, 60), [_degrees(lon, "EW", 0) for lon in range(-180, 181, 60)])
    axes.set_yticks(range(-90, 91, 30), [_degrees(lat, "NS", 0) for lat in range(-90, 91, 30)])
    axes.set_aspect("equal")
    axes.axhline(0, color=MUTED.light, linewidth=1.2, zorder=1)  # the equator
    for line in _coastlines():
        lons, lats = zip(*line, strict=True)
        axes.plot(lons, lats, color=MUTED_MARK, linewidth=0.7, zorder=2, antialiased=False)

    points = [(float(lat), float(lon)) for lat, lon, *_ in places]
    lats, lons = zip(*points, strict=True) if points else ((), ())
    axes.scatter(lons, lats, s=40, color=ACCENT_MARK, alpha=0.8, zorder=3,
                 label=f"{len(points)} places")  # fmt: skip
    north, east, name, country, _ = summary["most_northerly"]
    axes.scatter(float(east), float(north), s=130, marker="^", color=DEAD_MARK, zorder=4,
                 label=f"most northerly: {name}, {country}")  # fmt: skip
    lat, lon = summary["centroid"]
    axes.scatter(lon, lat, s=130, marker="P", color=RETRIED_MARK, edgecolor="white", zorder=4,
                 label=f"centroid: {_degrees(lat, 'NS')}, {_degrees(lon, 'EW')}")  # fmt: skip
    axes.set_title(f"The most northerly of {len(points)} places is {name}", color=MUTED.light,
                   parse_math=False)  # fmt: skip
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False,
                labelcolor=MUTED.light, fontsize=TEXT)  # fmt: skip


@cache
def _coastlines() -> list[list[tuple[float, float]]]:
    """Return the coastlines of the Earth, each as points of longitude and latitude in degrees."""
    text = Path(__file__).with_name("coastlines.txt").read_text(encoding="ascii")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [[_point(pair) for pair in line] for line in lines]


def _point(pair: str) -> tuple[float, float]:
    lon, _, lat = pair.partition(",")
    return float(lon), float(lat)


def _degrees(value: float, directions: str, digits: int = 1) -> str:
    return f"{abs(value):.{digits}f}° {directions[value < 0] if value else ''}".strip()

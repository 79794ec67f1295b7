"""Summarise places: the most northerly one, and their centroid on the sphere.

This module knows nothing of queues; `mousetrap.run_processing_worker` binds it to them. Prototyped
in ``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypedDict

from mousetrap.fetch_data import Place

_NO_DIRECTION = 1e-9  # mean vectors shorter than this (6 mm on the Earth) are rounding errors


class Summary(TypedDict):
    """What `process_data` returns: plain data, equal to what its JSON decodes to.

    ``{"places": 1, "most_northerly": [35.07, 1.05, "Frenda", "DZ", "Africa/Algiers"], "centroid":
    [35.07, 1.05]}``. `centroid` is ``[lat, lon]`` in degrees, lat in -90..90 and lon in -180..180.
    """

    places: int
    most_northerly: list[float | str]
    centroid: list[float]


def process_data(places: Sequence[Place]) -> Summary:
    """Return how many places there are, the most northerly one and their centroid.

    Coordinates can be floats or numeric strings, as Faker returns them; the summary has floats. The
    order of *places* does not matter: of equally northerly places it takes the one that sorts
    first.

    Raises:
        ValueError: there are no places; a place is not ``[lat, lon, name, country, timezone]`` or
            not on the globe (the text has its index); or the places have no centroid because they
            balance each other, like the two poles.
    """
    if not places:
        raise ValueError("no places to summarise: fetch at least one before processing")
    located = [_located(index, place) for index, place in enumerate(places)]
    northerly = min(located, key=lambda place: (-place[0], *place[1:]))
    return Summary(
        places=len(located),
        most_northerly=list(northerly),
        centroid=list(_centroid([(place[0], place[1]) for place in located])),
    )


def _centroid(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the direction of the mean of the points' unit vectors, as (lat, lon) in degrees.

    With ``n = (cos lat cos lon, cos lat sin lon, sin lat)`` and ``(x, y, z)`` the mean of all n:
    ``lat = atan2(z, hypot(x, y))`` and ``lon = atan2(y, x)``. The mean of the degrees would be
    wrong: between longitudes 179 and -179 it is 0, on the other side of the Earth. Source: K. Gade,
    "A Non-singular Horizontal Position Representation", Journal of Navigation 63 (2010), 395-417,
    and example 7 ("mean position") of its companion page,
    https://www.ffi.no/en/research/n-vector.
    """
    vectors = [_unit_vector(math.radians(lat), math.radians(lon)) for lat, lon in points]
    # fsum is exact, so the order of the points does not change the last digit
    x, y, z = (math.fsum(axis) / len(vectors) for axis in zip(*vectors, strict=True))
    if math.hypot(x, y, z) < _NO_DIRECTION:
        raise ValueError(
            f"the {len(vectors)} places balance each other (antipodes): no point is their "
            "centroid; add a place or take one away"
        )
    lat = math.degrees(math.atan2(z, math.hypot(x, y)))
    # At a pole every longitude is correct; without this, rounding errors would choose one.
    lon = 0.0 if math.hypot(x, y) < 1e-15 else math.degrees(math.atan2(y, x))
    return lat, lon


def _unit_vector(phi: float, lam: float) -> tuple[float, float, float]:
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def _located(index: int, place: Any) -> tuple[float, float, str, str, str]:
    if not isinstance(place, (list, tuple)) or len(place) != 5:
        raise ValueError(f"place {index} is not [lat, lon, name, country, timezone]")
    lat, lon, *words = place
    name, country, timezone = (str(word) for word in words)
    return (
        _degrees(index, "latitude", lat, 90),
        _degrees(index, "longitude", lon, 180),
        name,
        country,
        timezone,
    )


def _degrees(index: int, what: str, value: object, limit: int) -> float:
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if not -limit <= number <= limit:  # NaN fails this as well
        raise ValueError(
            f"place {index}: {what} is {str(value)[:40]!r}, not a number in {-limit}..{limit}"
        )
    return number

"""The summary of places: the most northerly one, and the centroid on the sphere."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mousetrap.fetch_data import fetch_data
from mousetrap.model import message
from mousetrap.process_data import Summary, process_data

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)
points = st.lists(st.tuples(latitudes, longitudes), min_size=1, max_size=20)


def test_process_data_summarises_what_fetch_data_fetched():
    """The output of the first stage is the input of the second, also when sent as JSON."""
    places = fetch_data(1)

    summary = process_data(places)

    assert summary["places"] == 10
    assert summary["most_northerly"] == list(max(places, key=lambda place: place[0]))
    assert message.decode(message.encode(summary), Summary) == summary


def test_process_data_returns_plain_data():
    """A dict of lists, text and numbers: what JSON and document databases keep as it is."""
    summary = process_data(fetch_data(1))

    assert type(summary) is dict
    assert json.loads(json.dumps(summary)) == summary
    assert len(summary["centroid"]) == 2


def test_process_data_accepts_the_strings_of_faker():
    """The tutorial's own producer sends coordinates as strings; the summary has floats."""
    as_strings = process_data([["60.5", "25", "A", "FI", "T"], ["-1", "25.0", "B", "KE", "T"]])

    assert as_strings == process_data([place(60.5, 25, "A", "FI"), place(-1, 25, "B", "KE")])
    assert as_strings["most_northerly"] == [60.5, 25.0, "A", "FI", "T"]


def test_process_data_finds_the_middle_across_the_antimeridian():
    """Fiji and Samoa meet near 180 degrees, not in Africa."""
    lat, lon = centroid((0, 179), (0, -179))

    assert lat == pytest.approx(0)
    assert abs(lon) == pytest.approx(180)


def test_process_data_finds_the_middle_near_the_pole():
    """Places around the pole have the pole as their centroid, though their latitudes are 80."""
    lat, _ = centroid((80, 0), (80, 90), (80, 180), (80, -90))

    assert lat == pytest.approx(90)


def test_process_data_gives_the_pole_the_longitude_zero():
    """At the pole every longitude is correct; rounding errors do not choose one."""
    assert centroid((90, 123)) == [pytest.approx(90), 0]


def test_process_data_agrees_with_a_worked_example():
    """The centroid of (0, 0) and (0, 90) is (0, 45); with the pole it is the cube's corner."""
    assert centroid((0, 0), (0, 90)) == pytest.approx([0, 45])
    assert centroid((0, 0), (0, 90), (90, 0)) == pytest.approx(
        [math.degrees(math.atan(1 / math.sqrt(2))), 45]
    )


@given(latitudes, longitudes, st.integers(1, 5))
def test_process_data_returns_a_single_place_as_its_own_centroid(lat, lon, copies):
    """A place is its own centroid, also if it is repeated."""
    assert distance(centroid(*[(lat, lon)] * copies), (lat, lon)) < 1e-6


@given(points, st.randoms(use_true_random=False))
def test_process_data_does_not_depend_on_the_order(points, random):
    """Places may arrive in any order; the summary is the same to the last digit."""
    places = [place(lat, lon, f"p{n}") for n, (lat, lon) in enumerate(points)]
    shuffled = random.sample(places, len(places))
    assume(has_centroid(places))

    assert process_data(shuffled) == process_data(places)


@given(points, st.floats(-180, 180))
def test_process_data_turns_with_the_earth(points, angle):
    """Turning all places by some degrees of longitude turns the centroid by as many."""
    turned = [(lat, (lon + angle + 180) % 360 - 180) for lat, lon in points]
    assume(has_centroid([place(*point) for point in points], 1e-3))

    lat, lon = centroid(*points)

    assert distance(centroid(*turned), (lat, lon + angle)) < 1e-4


@given(points)
def test_process_data_stays_on_the_globe(points):
    """A centroid has a latitude in -90..90 and a longitude in -180..180."""
    assume(has_centroid([place(*point) for point in points]))

    lat, lon = centroid(*points)

    assert -90 <= lat <= 90
    assert -180 <= lon <= 180


def test_process_data_refuses_no_places():
    """An empty list is a clear error, not a division by zero."""
    with pytest.raises(ValueError, match="no places to summarise"):
        process_data([])


@pytest.mark.parametrize("balanced", [[(90, 0), (-90, 0)], [(0, 0), (0, 120), (0, -120)]])
def test_process_data_refuses_places_that_balance_each_other(balanced):
    """Antipodes have no centroid; any point would be wrong."""
    with pytest.raises(ValueError, match="balance each other"):
        centroid(*balanced)


@pytest.mark.parametrize(
    "latitude", [90.001, -91, math.nan, math.inf, "north", "", None, True, [1], 10**400]
)
def test_process_data_refuses_an_invalid_latitude(latitude):
    """The error has the index of the place and the valid range."""
    with pytest.raises(ValueError, match=r"place 1: latitude is .* not a number in -90\.\.90"):
        process_data([place(1, 1), place(latitude, 1)])


def test_process_data_refuses_an_invalid_longitude():
    """Longitudes beyond 180 degrees are an error in the data."""
    with pytest.raises(ValueError, match=r"place 0: longitude is '181'.* -180\.\.180"):
        process_data([place(1, 181)])


@pytest.mark.parametrize("bad", [[1.0, 2.0], "place", {"lat": 1}, None, [1.0] * 6])
def test_process_data_refuses_what_is_not_a_place(bad):
    """A place has five parts."""
    with pytest.raises(ValueError, match="place 0 is not"):
        process_data([bad])


def place(lat, lon, name="somewhere", country="XX"):
    return (lat, lon, name, country, "T")


def centroid(*points):
    return process_data([place(*point) for point in points])["centroid"]


def has_centroid(places, length=1e-6):
    axes = zip(*map(vector, places), strict=True)
    return math.hypot(*map(sum, axes)) / len(places) > length


def vector(point):
    phi, lam = math.radians(point[0]), math.radians(point[1])
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


def distance(one, other):
    """Return the length of the chord between two points of the unit sphere."""
    return math.dist(vector(one), vector(other))

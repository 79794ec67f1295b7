"""The simulated external API: the same seed gives the same places and the same failures."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time

import pytest

from mousetrap.fetch_data import ExternalApiError, Place, fetch_data
from mousetrap.model import message


def test_fetch_data_returns_the_tutorials_places():
    """Each place is lat, lon, name, country and timezone; the first two are floats on the globe."""
    places = fetch_data(1)

    assert len(places) == 10
    for lat, lon, *words in places:
        assert isinstance(lat, float)
        assert isinstance(lon, float)
        assert abs(lat) <= 90
        assert abs(lon) <= 180
        assert [type(word) for word in words] == [str, str, str]


def test_fetch_data_gives_the_same_places_for_the_same_seed():
    """The same job has the same data, and another job has other data."""
    assert fetch_data(7) == fetch_data(7)
    assert fetch_data(7) != fetch_data(8)


def test_fetch_data_gives_the_same_places_in_another_process():
    """The places depend on the seed only, not on hash randomisation or other process state."""
    program = "from mousetrap.fetch_data import fetch_data; print(fetch_data(7, places=2))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.strip() == repr(fetch_data(7, places=2))


def test_fetch_data_gives_the_same_places_in_any_thread():
    """Threads that fetch at the same time do not disturb each other's seeds."""
    expected = {seed: fetch_data(seed, places=50) for seed in range(4)}
    found: dict[int, list[list[Place]]] = {seed: [] for seed in expected}
    together = threading.Barrier(len(expected))

    def fetch_often(seed: int) -> None:
        together.wait(timeout=10)
        found[seed] = [fetch_data(seed, places=50) for _ in range(20)]

    threads = [threading.Thread(target=fetch_often, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert all(len(found[seed]) == 20 for seed in expected)
    assert all(places == expected[seed] for seed in expected for places in found[seed])


def test_fetch_data_varies_without_a_seed():
    """The tutorial's call without arguments fetches other places each time."""
    assert fetch_data(places=30) != fetch_data(places=30)


def test_fetch_data_can_be_sent_as_json():
    """Places can be sent as plain JSON, and validated by the receiver."""
    places = fetch_data(3)

    arrived = message.decode(message.encode(places), list[Place])

    assert arrived == places


def test_fetch_data_can_fetch_nothing():
    """Zero places is a valid, empty answer."""
    assert fetch_data(1, places=0) == []


def test_fetch_data_waits_for_the_latency():
    """The simulated API answers after *latency* seconds at the earliest."""
    started = time.monotonic()
    fetch_data(1, latency=0.05)

    assert time.monotonic() - started >= 0.05


def test_fetch_data_fails_at_the_given_rate():
    """A rate of 0.3 fails about three jobs in ten; 0 fails none and 1 fails all."""
    failures = sum(fails(seed, 0.3) for seed in range(1000))

    assert 250 < failures < 350
    assert not any(fails(seed, 0.0) for seed in range(100))
    assert all(fails(seed, 1.0) for seed in range(100))


def test_fetch_data_has_the_same_failures_in_every_run():
    """Whether an attempt of a seeded job fails depends on seed and attempt only."""
    first = [fails(seed, 0.5) for seed in range(100)]

    assert [fails(seed, 0.5) for seed in range(100)] == first


def test_fetch_data_can_succeed_when_retried():
    """A job that failed once does not fail at every attempt."""
    unlucky = [seed for seed in range(200) if fails(seed, 0.5)]

    retried = [fails(seed, 0.5, attempt=2) for seed in unlucky]

    assert any(retried)
    assert not all(retried)


def test_fetch_data_gives_the_same_places_when_retried():
    """The failures of a job do not change its data."""
    seed = next(seed for seed in range(100) if fails(seed, 0.5) and not fails(seed, 0.5, 2))

    assert fetch_data(seed, failure_rate=0.5, attempt=2) == fetch_data(seed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("places", -1),
        ("latency", -0.1),
        ("latency", math.nan),
        ("failure_rate", -0.1),
        ("failure_rate", 1.1),
        ("failure_rate", math.nan),
    ],
)
def test_fetch_data_refuses_values_out_of_range(name, value):
    """The error names the parameter, its value and what is allowed."""
    with pytest.raises(ValueError, match=rf"{name} is {value!r}: it must lie in 0\.\.\d+"):
        fetch_data(1, **{name: value})


def fails(seed: int, rate: float, attempt: int = 1) -> bool:
    try:
        fetch_data(seed, places=0, failure_rate=rate, attempt=attempt)
    except ExternalApiError:
        return True
    return False

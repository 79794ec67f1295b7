"""Fetch places from a simulated external API: random places on land, made by Faker.

This module knows nothing of queues; `mousetrap.run_fetch_worker` binds it to them. Prototyped in
``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mousetrap.runtime import clock, randomness, threads

if TYPE_CHECKING:
    from faker import Faker

Coordinate: TypeAlias = float | str
"""Degrees. `fetch_data` returns floats; the tutorial's own producer sends Faker's strings."""

Place: TypeAlias = tuple[Coordinate, Coordinate, str, str, str]
"""``(lat, lon, name, country, timezone)``: ``(35.07, 1.05, "Frenda", "DZ", "Africa/Algiers")``."""

_local = threads.local()


class ExternalApiError(RuntimeError):
    """The simulated API did not answer; the next attempt may succeed."""


def fetch_data(
    seed: int | None = None,
    *,
    places: int = 10,
    latency: float = 0.0,
    failure_rate: float = 0.0,
    attempt: int = 1,
) -> list[Place]:
    """Return as many random places on land as *places* says; the same seed gives the same places.

    ``fetch_data(7, places=1)`` returns one ``(lat, lon, name, country, timezone)``, with the
    coordinates as floats. The call waits *latency* seconds first, as an API would, and then fails
    with probability *failure_rate* (0..1). With a seed, whether it fails depends on *seed* and
    *attempt* only: a retry may succeed, and the same job has the same result in every run.

    Raises:
        ExternalApiError: this attempt fails.
        ValueError: a parameter is out of range; the text has its value and what is allowed.

    Threads: any; each has its own Faker.
    """
    _check("places", places, 0, 1_000_000)
    _check("latency", latency, 0, 3600)
    _check("failure_rate", failure_rate, 0, 1)
    if latency:
        clock.sleep(latency)
    # The seed is a text: the standard library hashes it with SHA-512, the same in every process.
    draw = randomness.random() if seed is None else randomness.seeded(f"{seed}/{attempt}").random()
    if draw < failure_rate:
        raise ExternalApiError(
            f"the simulated API failed for seed {seed}, attempt {attempt} "
            f"(failure_rate {failure_rate:g}); try again"
        )
    faker = _faker()
    faker.seed_instance(seed)
    return [
        (float(lat), float(lon), name, country, timezone)
        for lat, lon, name, country, timezone in (faker.location_on_land() for _ in range(places))
    ]


def _faker() -> Faker:
    # One per thread: a Faker has one random generator, and two threads that seed the same one would
    # get each other's places. Imported here because the import takes 0.1 s.
    if not hasattr(_local, "faker"):
        from faker import Faker

        _local.faker = Faker("en_US")
    faker: Faker = _local.faker
    return faker


def _check(name: str, value: float, low: int, high: int) -> None:
    if not low <= value <= high:  # NaN fails this as well
        raise ValueError(f"{name} is {value!r}: it must lie in {low}..{high}")

"""Pretend to read an external API: places on land, as the tutorial's author had them from Faker.

Only data in, data out; the queues it is bound to are in `mousetrap.run_fetch_worker`. Prototyped
in ``notebooks/00_start_here.ipynb``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mousetrap.runtime import clock, randomness, threads

if TYPE_CHECKING:
    from faker import Faker

Coordinate: TypeAlias = float | str
"""Degrees; a number here, but Faker's own strings in what a plain tutorial producer sends."""

Place: TypeAlias = tuple[Coordinate, Coordinate, str, str, str]
"""``(lat, lon, name, country, timezone)``: ``(35.07, 1.05, "Frenda", "DZ", "Africa/Algiers")``."""

_local = threads.local()


class ExternalApiError(RuntimeError):
    """The simulated API did not answer; asking again (the next attempt) may help."""


def fetch_data(
    seed: int | None = None,
    *,
    places: int = 10,
    latency: float = 0.0,
    failure_rate: float = 0.0,
    attempt: int = 1,
) -> list[Place]:
    """Return *places* random places on land, the same ones whenever *seed* is the same.

    ``fetch_data(7, places=1)`` gives one ``(lat, lon, name, country, timezone)`` with the
    coordinates as floats; JSON makes a list of it. Waits *latency* seconds first, as an API would,
    and then fails with probability *failure_rate* (0..1). With a seed that draw depends on
    (*seed*, *attempt*) alone: a retry draws anew, and the same job fares alike in every run.

    Raises:
        ExternalApiError: this attempt is one of those that fail.
        ValueError: a parameter is out of range; names it, its value and what is allowed.

    Threads: any; each has its own Faker.
    """
    _check("places", places, 0, 1_000_000)
    _check("latency", latency, 0, 3600)
    _check("failure_rate", failure_rate, 0, 1)
    if latency:
        clock.sleep(latency)
    # Seeding by text: the standard library hashes it with SHA-512, alike in every process.
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
    # One per thread: a Faker has one random generator, and two threads that seed it would get
    # each other's places. Imported late, for it takes 0.1 s that an import should not cost.
    if not hasattr(_local, "faker"):
        from faker import Faker

        _local.faker = Faker("en_US")
    faker: Faker = _local.faker
    return faker


def _check(name: str, value: float, low: int, high: int) -> None:
    if not low <= value <= high:  # NaN fails this as well
        raise ValueError(f"{name} is {value!r}: it must lie in {low}..{high}")

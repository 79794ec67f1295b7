"""Stages of flows that join: what a stage makes of one message comes together again."""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap import Join, Missing, Reject, Send, stage
from mousetrap.model.message import current_message

QUICK = (0.02, 0.05)  # seconds
BAD = 14  # a part that dies


@stage(reads="files", writes="images", retry_delays=QUICK)
def split(numbers: list[int]) -> Iterator[int]:
    yield from numbers


@stage(reads="images", writes="thumbs", routes=["archive"], retry_delays=QUICK, concurrency=4)
def resize(n: int) -> Iterator[int | Send]:
    """Drop each fifth number, make two of each fifth one, retry another, archive another."""
    if n == BAD:
        raise Reject("unlucky")
    if n % 5 == 2 and current_message.get().attempt == 1:
        raise ValueError("at the first attempt")
    if n % 5 == 3:
        yield Send(n, to="archive")
    yield from {0: (), 1: (n, n + 0.5)}.get(n % 5, (n,))


def resized(numbers):
    """Return the parts that come of *numbers*, in order."""
    kept = [n for n in numbers if n % 5 and n != BAD]
    return [each for n in kept for each in ((n, n + 0.5) if n % 5 == 1 else (n,))]


@stage(reads="thumbs", joins="split", writes="albums", retry_delays=QUICK)
def album(parts: list[float]) -> list[float]:
    return parts


@stage(reads="thumbs", joins=Join("split", missing="pass"), writes="albums", name="tolerant")
def tolerant(parts: list[float | Missing]) -> list[str]:
    return [f"{e.queue}: {e.reason}" if isinstance(e, Missing) else str(e) for e in parts]


FLOW = [split, resize, album]

"""Sparklines: a row of numbers drawn as small as a word, as bars in text or a line in a picture."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def bars(values: Sequence[float], width: int = 20) -> str:
    """Return *values* as at most *width* bars; neighbours are added up if there are more values.

    Without any value above 0 the bars are all at their lowest.
    """
    groups = _grouped(values, width)
    top = max(groups, default=0)
    if not top:
        return BARS[0] * len(groups)
    # Only zero is the lowest bar, so that a single message is visible.
    return "".join(BARS[-(-round(value * 1000) * 7 // round(top * 1000))] for value in groups)


def points(
    values: Sequence[float], x: float, y: float, width: float, height: float
) -> list[tuple[float, float]]:
    """Return the points of a line through *values* that fills a box whose corner is at *x*, *y*."""
    if not values:
        return []
    top = max(values) or 1
    step = width / max(1, len(values) - 1)
    return [(x + n * step, y + height * (1 - value / top)) for n, value in enumerate(values)]


def _grouped(values: Sequence[float], width: int) -> list[float]:
    size = -(-len(values) // width) or 1
    return [sum(values[n : n + size]) for n in range(0, len(values), size)]

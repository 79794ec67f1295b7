"""Sparklines: a row of numbers drawn as small as a word, as bars in text."""

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


def _grouped(values: Sequence[float], width: int) -> list[float]:
    size = -(-len(values) // width) or 1
    return [sum(values[n : n + size]) for n in range(0, len(values), size)]

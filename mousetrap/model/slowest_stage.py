"""The slowest stage of a run: where a message spends clearly longer than in any other stage.

The time that a message spends in a stage is its wait in the queue and the handling, without the
delays of retries. Once messages are settled it is known: the medians of both are added. While they
are under way it follows from their number and the rate at which they are settled. Nothing here
talks to a broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from mousetrap.display.formats import duration
from mousetrap.display.safe_text import safe

CLEARLY = 1.5  # times as long as in the next stage; a guess: less is seen as noise
FEWEST = 3  # messages; of fewer under way, a time would be chance
NONE_IS = "No stage is clearly the slowest"


class SlowestStage(NamedTuple):
    """A stage, and the seconds that a message spends in it; infinite if none leaves it."""

    name: str
    seconds: float


def slowest_of(seconds: Mapping[str, float]) -> SlowestStage | None:
    """Return the stage with the longest of these times; None if no stage is clearly the slowest.

    *seconds* has the time that a message spends in each stage.
    """
    if len(seconds) < 2:
        return None
    (name, longest), (_, next_longest), *_ = sorted(seconds.items(), key=lambda each: -each[1])
    is_clear = longest > 0 and next_longest < inf and longest >= CLEARLY * next_longest
    return SlowestStage(name, longest) if is_clear else None


def seconds_under_way(under_way: int, per_second: float) -> float:
    """Return the time that a message spends in a stage, by Little's law.

    *under_way* messages wait there or are handled, and *per_second* are settled.
    """
    if under_way < FEWEST:
        return 0.0
    return under_way / per_second if per_second > 0 else inf


def seconds_measured(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the time that a message spent in each of *stages*, by the medians of its summary.

    Each is a `StageSummary` as plain values; one that has handled nothing is left out.
    """
    return {
        name: each["wait"].get("p50", 0.0) + each["handling"]["p50"]
        for name, each in stages.items()
        if "p50" in each["handling"]
    }


def sentence(seconds: Mapping[str, float]) -> str:
    """Return which stage is the slowest, in words; "" if there are no two to compare."""
    if len(seconds) < 2:
        return ""
    found = slowest_of(seconds)
    if found is None:
        return NONE_IS
    if found.seconds == inf:
        return f"Slowest stage: {safe(found.name, 60)}, which settles no message now"
    time = f"{duration(found.seconds)} per message (wait and handling)"
    return f"Slowest stage: {safe(found.name, 60)}, {time}"

"""What a check of a flow found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "hint"]


@dataclass(frozen=True)
class FlowFinding:
    """Something about a flow that is wrong, or may be, and what to do about it.

    An *error* is certain: the flow is refused. A *warning* is shown when the flow is made. A *hint*
    is right in many flows, so only ``mousetrap describe`` shows it.
    """

    level: Level
    text: str

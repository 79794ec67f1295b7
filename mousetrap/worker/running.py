"""The workers of this process that were started, as a panel shows them."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

started: WeakSet[Any] = WeakSet()  # of `Worker`


def running() -> list[Any]:
    """Return the workers of this process that were started and have not ended."""
    return [each for each in list(started) if each.statistics().state not in ("failed", "closed")]

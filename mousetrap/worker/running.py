"""The workers of this process that were started, as a panel shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from mousetrap.worker.worker import Worker

started: WeakSet[Worker] = WeakSet()


def running() -> list[Worker]:
    """Return the workers of this process that were started and have not ended."""
    return [each for each in list(started) if each.statistics().state not in ("failed", "closed")]

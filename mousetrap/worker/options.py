"""What a worker can be started with: one check, where a stage is defined and where a worker is."""

from __future__ import annotations

import math
import numbers
from typing import Any

from mousetrap.errors import SettingsError
from mousetrap.model.batch import MAX_PREFETCH, Batch


def check_options(
    concurrency: int, prefetch: int | None, timeout: Any = None, batch: Any = None
) -> None:
    """Raise an error if a worker cannot have one of these options.

    Raises:
        ValueError: *concurrency* or *prefetch* is out of range.
        SettingsError: *timeout* is neither None nor a number of seconds above 0, *batch* neither
            None nor a `Batch`, or such batches cannot fill.
    """
    if concurrency < 1 or (prefetch is not None and not 1 <= prefetch <= MAX_PREFETCH):
        raise ValueError("concurrency must be at least 1 and prefetch lie in 1..65535")
    if timeout is not None and not _is_time_limit(timeout):
        raise SettingsError(
            f"timeout {repr(timeout)[:40]}: it must be a number of seconds above 0, like 30; leave "
            f"it out for no limit"
        )
    if batch is None:
        return
    if not isinstance(batch, Batch):
        raise SettingsError(
            f"batch {repr(batch)[:40]}: give a Batch, as in batch=Batch(100, within=2.0)"
        )
    batch.check_prefetch(prefetch, concurrency)


def least_prefetch(concurrency: int, batch: Batch | None) -> int:
    """Return how many unacked messages a worker needs at least, if nobody says how many."""
    return concurrency + 1 if batch is None else batch.prefetch(concurrency)


def _is_time_limit(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return 0 < float(value) < math.inf  # NaN fails this as well
    except OverflowError:  # an integer that is no float
        return False

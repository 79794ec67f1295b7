"""What a worker can be started with: one check, where a stage is defined and where a worker is."""

from __future__ import annotations

MAX_PREFETCH = 65_535  # messages: AMQP sends the prefetch in 16 bits


def check_options(concurrency: int, prefetch: int | None) -> None:
    """Raise a ValueError if a worker cannot have this *concurrency* or this *prefetch*."""
    if concurrency < 1 or (prefetch is not None and not 1 <= prefetch <= MAX_PREFETCH):
        raise ValueError("concurrency must be at least 1 and prefetch lie in 1..65535")

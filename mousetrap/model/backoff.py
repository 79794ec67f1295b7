"""How long to wait after a failure before the next try. Nothing here sleeps."""

from __future__ import annotations

from mousetrap.runtime import randomness


def backoff(failures: int, *, first: float = 0.1, cap: float = 5.0) -> float:
    """Return the seconds to wait after *failures* failures in a row: exponential, with jitter.

    ``uniform(ceiling / 2, ceiling)`` with ``ceiling = min(cap, first * 2**(failures - 1))``;
    *first* and *cap* are seconds. The lower bound keeps a caller from trying a broker that is down
    in a tight loop; the jitter keeps a hundred workers from reconnecting at the same instant (AWS
    Architecture Blog, "Exponential Backoff And Jitter", 2015).
    """
    ceiling = min(cap, first * 2.0 ** (min(max(failures, 1), 30) - 1))
    return randomness.uniform(ceiling / 2, ceiling)

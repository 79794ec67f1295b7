"""What becomes of a message whose handling failed: a pure decision, no clock, no broker.

Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mousetrap.errors import Reject, UndecodableMessage
from mousetrap.topology import Queue


@dataclass(frozen=True)
class RetryAfter:
    """Wait *delay* seconds in the retry queue of that delay, then come back."""

    delay: float


@dataclass(frozen=True)
class Bury:
    """Go to the dead queue, with this reason."""

    reason: str


def decide(attempt: int, error: BaseException, queue: Queue) -> RetryAfter | Bury:
    """Say what becomes of a message whose *attempt*-th handling (from 1) raised *error*.

    Attempt n waits ``queue.retry_delays[n - 1]`` seconds. When the delays are used up, or trying
    again cannot help (`Reject`, `UndecodableMessage`), the message is buried.
    """
    hopeless = isinstance(error, (Reject, UndecodableMessage))
    if hopeless or attempt > len(queue.retry_delays):
        return Bury(reason=_reason(error))
    return RetryAfter(queue.retry_delays[attempt - 1])


def _reason(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"[:1000]
    except Exception:  # noqa: BLE001 -- somebody's __str__ raises; that must not stop a burial
        text = f"{type(error).__name__}: (it cannot say what it is)"
    # a lone surrogate, from a file name that is not UTF-8, would not go into a header
    return text.encode("utf-8", "replace").decode()


def backoff(failures: int, *, first: float = 0.1, cap: float = 5.0) -> float:
    """Return seconds to wait before try number *failures* + 1: full jitter on a doubling ceiling.

    ``uniform(ceiling / 2, ceiling)`` with ``ceiling = min(cap, first * 2**(failures - 1))``. The
    lower half is kept out so that a broker that is down is not asked in a tight loop; the jitter
    keeps a hundred workers from coming back in the same instant (AWS Architecture Blog,
    "Exponential Backoff And Jitter", 2015).
    """
    ceiling = min(cap, first * 2.0 ** (min(max(failures, 1), 30) - 1))
    return random.uniform(ceiling / 2, ceiling)

"""What becomes of a message whose handling failed: a pure decision, no broker.

Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import random
import time
import traceback
from dataclasses import dataclass

from mousetrap.errors import Reject, UndecodableMessage
from mousetrap.message import (
    DIED,
    DROPPED,
    ORIGIN,
    REASON,
    TRACEBACK,
    Message,
    without_death,
)
from mousetrap.topology import Queue

# All headers of a message must fit one frame, which is 128 KiB unless the broker says otherwise.
MAX_HEADERS = 64_000  # characters of other clients' headers that a failure takes along
MAX_TRACEBACK = 8_000  # characters


@dataclass(frozen=True)
class RetryAfter:
    """Wait *delay* seconds in the retry queue of that delay, then come back."""

    delay: float


@dataclass(frozen=True)
class Bury:
    """Go to the dead queue, with this reason."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """What is to be published in place of a message whose handling failed, and where."""

    copy: Message
    target: str  # plain name of the retry queue or the dead queue
    delay: float | None  # seconds until it comes again; None: never
    reason: str
    traceback: str


def decide(attempt: int, error: BaseException, queue: Queue) -> RetryAfter | Bury:
    """Say what becomes of a message whose *attempt*-th handling (from 1) raised *error*.

    Attempt n waits ``queue.retry_delays[n - 1]`` seconds. When the delays are used up, or trying
    again cannot help (`Reject`, `UndecodableMessage`), the message is buried.
    """
    hopeless = isinstance(error, (Reject, UndecodableMessage))
    if hopeless or attempt > len(queue.retry_delays):
        return Bury(reason=reason_of(error))
    return RetryAfter(queue.retry_delays[attempt - 1])


def after(message: Message, error: BaseException, queue: Queue) -> Failure:
    """Carry out `decide` for *message* of *queue*, whose handler raised *error*."""
    decision = decide(message.attempt, error, queue)
    headers = without_death(message.headers)
    if len(repr(headers)) > MAX_HEADERS:  # too large a frame ends the connection, every time
        headers = {DROPPED: "the other headers: with ours they would not fit one frame"}
    reason, trace = reason_of(error), trace_of(error)
    if isinstance(decision, RetryAfter):
        copy = message.again(message.attempt + 1, headers)
        return Failure(copy, queue.retry_queue(decision.delay), decision.delay, reason, trace)
    headers |= {REASON: reason, ORIGIN: queue.name, TRACEBACK: trace, DIED: int(time.time())}
    return Failure(message.again(message.attempt, headers), queue.dead, None, reason, trace)


def reason_of(error: BaseException) -> str:
    """Return what to tell of *error*, in at most 1,000 characters that fit into a header."""
    try:
        text = f"{type(error).__name__}: {error}"[:1000]
    except Exception:  # noqa: BLE001 -- somebody's __str__ raises; that must not stop a burial
        text = f"{type(error).__name__}: (it cannot say what it is)"
    # a lone surrogate, from a file name that is not UTF-8, would not go into a header
    return text.encode("utf-8", "replace").decode()


def trace_of(error: BaseException) -> str:
    """The traceback from the handler inwards; the worker's own frames say nothing new."""
    frame = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, frame))
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate cannot travel in a header
    return text if len(text) <= MAX_TRACEBACK else "...\n" + text[-MAX_TRACEBACK:]


def backoff(failures: int, *, first: float = 0.1, cap: float = 5.0) -> float:
    """Return seconds to wait before try number *failures* + 1: full jitter on a doubling ceiling.

    ``uniform(ceiling / 2, ceiling)`` with ``ceiling = min(cap, first * 2**(failures - 1))``. The
    lower half is kept out so that a broker that is down is not asked in a tight loop; the jitter
    keeps a hundred workers from coming back in the same instant (AWS Architecture Blog,
    "Exponential Backoff And Jitter", 2015).
    """
    ceiling = min(cap, first * 2.0 ** (min(max(failures, 1), 30) - 1))
    return random.uniform(ceiling / 2, ceiling)

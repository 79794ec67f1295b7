"""What becomes of a message whose handling failed: a pure decision, no broker.

Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from mousetrap.errors import AckTimedOut, Reject, UndecodableMessage, WorkerLost
from mousetrap.model.message import (
    DIED,
    DROPPED,
    LOSSES,
    ORIGIN,
    REASON,
    TIMEOUTS,
    TRACEBACK,
    Message,
    without_death,
)
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock, randomness

ALONE_FROM = 2  # lost workers after which a message is handled beside no other suspect
MAX_LOSSES = 6  # lost workers after which it is buried; see `after_loss`
MAX_ACK_TIMEOUTS = 3  # times that it was held for too long; see `after_ack_timeout`
# All headers of a message must fit one frame, which is 128 KiB unless the broker says otherwise.
MAX_HEADERS = 64_000  # characters of other clients' headers that a failure takes along
MAX_TRACEBACK = 8_000  # characters


@dataclass(frozen=True)
class RetryAfter:
    """Wait *delay* seconds in the retry queue of that delay, then come back."""

    delay: float


@dataclass(frozen=True)
class DeadLetter:
    """Go to the dead queue, with this reason."""

    reason: str


@dataclass(frozen=True)
class Move:
    """What is to be published in place of a message that may have killed its worker, and where."""

    copy: Message
    target: str  # plain name


@dataclass(frozen=True)
class Failure:
    """What is to be published in place of a message whose handling failed, and where."""

    copy: Message
    target: str  # plain name of the retry queue or the dead queue
    delay: float | None  # seconds until it comes again; None: never
    reason: str
    traceback: str


def decide(attempt: int, error: BaseException, queue: Queue) -> RetryAfter | DeadLetter:
    """Say what becomes of a message whose *attempt*-th handling (from 1) raised *error*.

    Attempt n waits ``queue.retry_delays[n - 1]`` seconds. When the delays are used up, or trying
    again cannot help (`Reject`, `UndecodableMessage`, `WorkerLost`, `AckTimedOut`), the message is
    buried.
    """
    hopeless = isinstance(error, (Reject, UndecodableMessage, WorkerLost, AckTimedOut))
    if hopeless or attempt > len(queue.retry_delays):
        return DeadLetter(reason=reason_of(error))
    return RetryAfter(queue.retry_delays[attempt - 1])


def after(message: Message, error: BaseException, queue: Queue) -> Failure:
    """Carry out `decide` for *message* of *queue*, whose handler raised *error*."""
    decision = decide(message.attempt, error, queue)
    headers = _kept(message)
    reason, trace = reason_of(error), trace_of(error)
    if isinstance(decision, RetryAfter):
        copy = message.again(message.attempt + 1, headers)
        return Failure(copy, queue.retry_queue(decision.delay), decision.delay, reason, trace)
    headers |= {REASON: reason, ORIGIN: queue.name, TRACEBACK: trace, DIED: int(clock.time())}
    return Failure(message.again(message.attempt, headers), queue.dead, None, reason, trace)


def after_loss(message: Message, queue: Queue) -> Move | WorkerLost:
    """Say what becomes of *message*, whose worker was lost: move it, or bury it for this error.

    The broker tells only that somebody had it before, not who, and not whether it was begun. So
    losses are counted in a header of ours, and the message is published anew with each. The first
    may have any cause: it goes back to its queue. From `ALONE_FROM` on it goes to the queue of
    suspects, of which no worker holds more than one: no suspect waits behind another. At
    `MAX_LOSSES` it is buried. A killer alone can add no more than `ALONE_FROM` to the count of
    another suspect, because it becomes one itself; so it takes two killers to have a bystander
    buried. What a process gave back and outlived is not counted (see `outlived`), nor is a suspect
    that only waited in a worker that stopped in good order (see `unharmed`).
    """
    losses = message.losses + 1
    if losses >= MAX_LOSSES:
        return WorkerLost(
            f"{losses} workers were lost while they had this message: it may be what kills them "
            f"(a crash, os._exit, too much memory)"
        )
    target = queue.quarantine if losses >= ALONE_FROM else queue.name
    return Move(_counted(message, losses, message.timeouts), target)


def after_ack_timeout(message: Message, queue: Queue) -> Move | AckTimedOut:
    """Say what becomes of *message*, which its worker had in hand for longer than the broker waits.

    The worker lives and knows which it was. It is tried again among the suspects, where it has no
    neighbours that wait behind it; at `MAX_ACK_TIMEOUTS` it is buried.
    """
    timeouts = message.timeouts + 1
    if timeouts >= MAX_ACK_TIMEOUTS:
        return AckTimedOut(
            f"{timeouts} times its handling took longer than the broker waits for an ack "
            f"(consumer_timeout): it hangs, or it needs a higher limit"
        )
    return Move(_counted(message, message.losses, timeouts), queue.quarantine)


def unharmed(message: Message, queue: Queue) -> Move:
    """Say where *message* goes that did its worker no harm: back where it was, counted as it was.

    It is published anew, so that the broker's count of its deliveries, or its mark, begins anew.
    """
    target = queue.quarantine if is_alone(message) else queue.name
    return Move(_counted(message, message.losses, message.timeouts), target)


def is_alone(message: Message) -> bool:
    """Say whether *message* belongs among the suspects."""
    return message.losses >= ALONE_FROM or message.timeouts > 0


def _counted(message: Message, losses: int, timeouts: int) -> Message:
    counts = {LOSSES: losses, TIMEOUTS: timeouts}
    headers = _kept(message) | {name: count for name, count in counts.items() if count}
    return message.again(message.attempt, headers)


def _kept(message: Message) -> dict[str, Any]:
    """The headers that a copy of *message* takes along."""
    headers = without_death(message.headers)
    if unsent := sorted(name for name, value in headers.items() if not _can_be_sent(value)):
        for name in unsent:
            del headers[name]
        headers[DROPPED] = f"what AMQP has no word for: {', '.join(unsent)}"[:1000]
    if len(repr(headers)) > MAX_HEADERS:  # too large a frame ends the connection, every time
        return {DROPPED: "the other headers: with ours they would not fit one frame"}
    return headers


def _can_be_sent(value: Any) -> bool:
    """Say whether *value* can be written: an unsigned integer of 64 bits can only be read."""
    if isinstance(value, dict):
        return all(map(_can_be_sent, value.values()))
    if isinstance(value, list):
        return all(map(_can_be_sent, value))
    return not isinstance(value, int) or value.bit_length() <= 63


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
    return randomness.uniform(ceiling / 2, ceiling)

"""What happens to a message whose handler raised: it is retried later, or dead-lettered.

Decisions only; nothing here talks to a broker. `mousetrap.model.poison_messages` decides about
messages that crash their worker. Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from mousetrap.errors import AckTimedOut, Reject, UndecodableMessage, WorkerLost
from mousetrap.model.message import (
    DEAD_SINCE,
    DROPPED,
    ORIGIN,
    REASON,
    TRACEBACK,
    Message,
    without_failure_headers,
)
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock

# All headers of a message must fit one frame, which is 128 KiB unless the broker is set otherwise.
MAX_FOREIGN_HEADERS = 64_000  # characters (of the `repr`) of other headers that a copy keeps
MAX_TRACEBACK = 8_000  # characters
MAX_REASON = 1_000  # characters


@dataclass(frozen=True)
class RetryAfter:
    """The decision to retry: the message waits *delay* seconds in a retry queue."""

    delay: float


@dataclass(frozen=True)
class DeadLetter:
    """The decision not to retry: the message goes to the dead queue, for this reason."""

    reason: str


@dataclass(frozen=True)
class Replacement:
    """The copy to publish in place of a message whose handler raised, and where to publish it."""

    copy: Message
    target: str  # plain name of the retry queue or the dead queue
    delay: float | None  # seconds until the retry; None: dead-lettered
    reason: str
    traceback: str


def decide(attempt: int, error: BaseException, queue: Queue) -> RetryAfter | DeadLetter:
    """Decide what happens to a message whose *attempt*-th handling (from 1) raised *error*.

    After attempt n the message waits ``queue.retry_delays[n - 1]`` seconds. When the delays are
    used up, or when a retry cannot help (`Reject`, `UndecodableMessage`, `WorkerLost`,
    `AckTimedOut`), the message is dead-lettered.
    """
    is_final = isinstance(error, (Reject, UndecodableMessage, WorkerLost, AckTimedOut))
    if is_final or attempt > len(queue.retry_delays):
        return DeadLetter(reason=reason_of(error))
    return RetryAfter(queue.retry_delays[attempt - 1])


def after_failure(message: Message, error: BaseException, queue: Queue) -> Replacement:
    """Return what replaces *message* of *queue*, whose handler raised *error*; see `decide`."""
    decision = decide(message.attempt, error, queue)
    headers = kept_headers(message)
    reason, trace = reason_of(error), traceback_of(error)
    if isinstance(decision, RetryAfter):
        copy = message.copy(message.attempt + 1, headers)
        return Replacement(copy, queue.retry_queue(decision.delay), decision.delay, reason, trace)
    headers |= {REASON: reason, ORIGIN: queue.name, TRACEBACK: trace, DEAD_SINCE: int(clock.time())}
    return Replacement(message.copy(message.attempt, headers), queue.dead, None, reason, trace)


def kept_headers(message: Message) -> dict[str, Any]:
    """Return the headers of *message* that a copy of it keeps.

    Headers that cannot be sent are dropped and named in ``mousetrap-dropped``. If the headers
    together are too large, all are dropped, and ``mousetrap-dropped`` says so.
    """
    headers = without_failure_headers(message.headers)
    if unsent := sorted(name for name, value in headers.items() if not _can_be_sent(value)):
        for name in unsent:
            del headers[name]
        headers[DROPPED] = f"values that AMQP cannot encode: {', '.join(unsent)}"[:MAX_REASON]
    if len(repr(headers)) > MAX_FOREIGN_HEADERS:  # a frame that is too large ends the connection
        return {DROPPED: "all other headers: together with ours they would not fit one frame"}
    return headers


def reason_of(error: BaseException) -> str:
    """Return *error* as ``ValueError: no luck``: at most `MAX_REASON` characters, valid UTF-8."""
    try:
        text = f"{type(error).__name__}: {error}"[:MAX_REASON]
    except Exception:  # noqa: BLE001 -- a __str__ that raises must not stop the dead-lettering
        text = f"{type(error).__name__}: (its __str__ raised an error)"
    return _sendable(text)


def traceback_of(error: BaseException) -> str:
    """Return the traceback without the worker's frame: its last `MAX_TRACEBACK` characters."""
    frame = error.__traceback__.tb_next if error.__traceback__ else None
    text = _sendable("".join(traceback.format_exception(type(error), error, frame)))
    return text if len(text) <= MAX_TRACEBACK else "...\n" + text[-MAX_TRACEBACK:]


def _sendable(text: str) -> str:
    # A header is UTF-8; a lone surrogate, from a file name in another encoding, is not.
    return text.encode("utf-8", "replace").decode()


def _can_be_sent(value: Any) -> bool:
    """Say whether pika can encode *value*: it decodes unsigned 64-bit integers, encodes none."""
    if isinstance(value, dict):
        return all(map(_can_be_sent, value.values()))
    if isinstance(value, list):
        return all(map(_can_be_sent, value))
    return not isinstance(value, int) or value.bit_length() <= 63

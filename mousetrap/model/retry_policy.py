"""What happens to a message whose handler raised: it is retried later, or dead-lettered.

Decisions only; nothing here talks to a broker. `mousetrap.model.poison_messages` decides about
messages that crash their worker. Prototyped in ``notebooks/05_failures.ipynb``.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from types import FrameType

from mousetrap.display.safe_text import class_name, text_of
from mousetrap.errors import AckTimedOut, Expired, Reject, UndecodableMessage, WorkerLost
from mousetrap.model.headers import (
    DEAD_SINCE,
    EXPIRES,
    ORIGIN,
    REASON,
    TRACEBACK,
    cut,
    kept_headers,
)
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock

FINAL = (Reject, UndecodableMessage, WorkerLost, AckTimedOut, Expired)  # errors without a retry
MAX_TRACEBACK = 12_000  # bytes of UTF-8, as everything that must fit one frame (see `headers`)
MAX_REASON = 2_000  # bytes of UTF-8
_CALLERS = ("mousetrap.worker.", "asyncio.")  # modules that call handlers; their frames say nothing


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
    `AckTimedOut`, `Expired`), the message is dead-lettered.
    """
    # by its type: `isinstance` would also ask for its ``__class__``, which may raise
    is_final = issubclass(type(error), FINAL)
    if is_final or attempt > len(queue.retry_delays):
        return DeadLetter(reason=reason_of(error))
    return RetryAfter(queue.retry_delays[attempt - 1])


def after_failure(message: Message, error: BaseException, queue: Queue) -> Replacement:
    """Return what replaces *message* of *queue*, whose handler raised *error*; see `decide`."""
    decision = decide(message.attempt, error, queue)
    headers = kept_headers(message.headers)
    reason, trace = reason_of(error), traceback_of(error)
    if isinstance(decision, RetryAfter):
        copy = message.copy(message.attempt + 1, headers)
        return Replacement(copy, queue.retry_queue(decision.delay), decision.delay, reason, trace)
    headers.pop(EXPIRES, None)  # a dead letter that a person replays is to be handled
    headers |= {REASON: reason, ORIGIN: queue.name, TRACEBACK: trace, DEAD_SINCE: int(clock.time())}
    return Replacement(message.copy(message.attempt, headers), queue.dead, None, reason, trace)


def reason_of(error: BaseException) -> str:
    """Return *error* as ``ValueError: no luck``: at most `MAX_REASON` bytes, valid UTF-8."""
    return cut(f"{class_name(error)}: {text_of(error)}", MAX_REASON)


def traceback_of(error: BaseException) -> str:
    """Return the traceback without the worker's frames, in at most `MAX_TRACEBACK` bytes.

    A longer one loses its middle: it begins with frames, where the error's text is what is long.
    """
    try:
        frame = error.__traceback__.tb_next if error.__traceback__ else None
        while frame is not None and _is_of_caller(frame.tb_frame):
            frame = frame.tb_next
        text = "".join(traceback.format_exception(type(error), error, frame))
    except BaseException as failure:  # noqa: BLE001 -- an attribute of it may raise anything
        text = f"{reason_of(error)}\n(its traceback cannot be shown: {class_name(failure)})\n"
    whole = cut(text, MAX_TRACEBACK)
    if len(whole) == len(text):
        return whole
    begin = cut(text, MAX_TRACEBACK // 3)
    return f"{begin}\n...\n{cut(text, MAX_TRACEBACK - len(begin.encode()) - 5, keep_end=True)}"


def _is_of_caller(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(_CALLERS)

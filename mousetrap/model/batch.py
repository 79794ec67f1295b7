"""Batches: how many messages one call of a handler gets, and how long it waits for them.

Nothing here talks to a broker; `mousetrap.worker.batching` collects the messages.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mousetrap.errors import SettingsError
from mousetrap.model.message import Message, current_message

MAX_PREFETCH = 65_535  # messages: AMQP sends the prefetch in 16 bits
# seconds: by default RabbitMQ waits 30 minutes for an ack, and a shorter time-out must do as well
MAX_WITHIN = 60.0
MAX_BATCH_BYTES = 16_000_000  # a guess: SQL statements and requests of this size are accepted


@dataclass(frozen=True)
class Batch:
    """Up to *size* messages for one call, or what has come *within* seconds of the first one.

    While the handler is busy, the next batch goes on filling, also after that time. A call gets no
    further message once it has *max_bytes* of content, so that memory is bounded.

    Raises:
        SettingsError: a value cannot work.
    """

    size: int
    within: float = 1.0  # seconds
    max_bytes: int = MAX_BATCH_BYTES

    def __post_init__(self) -> None:
        if not _is_whole(self.size) or not 1 <= self.size <= MAX_PREFETCH:
            raise SettingsError(
                f"batch size {_shown(self.size)}: it must be a whole number in 1..{MAX_PREFETCH}"
            )
        if not _is_number(self.within) or not 0 <= self.within <= MAX_WITHIN:
            raise SettingsError(
                f"a batch within {_shown(self.within)} s: it must be a number of seconds in "
                f"0..{MAX_WITHIN:g}, because the messages that wait are not acked, and the broker "
                f"waits only so long for acks"
            )
        if not _is_whole(self.max_bytes) or self.max_bytes < 1:
            raise SettingsError(
                f"max_bytes {_shown(self.max_bytes)}: it must be a whole number of bytes above 0"
            )

    def check_prefetch(self, prefetch: int | None, concurrency: int) -> None:
        """Raise an error if batches cannot fill with this *prefetch*, or with any.

        Raises:
            SettingsError: the text says which prefetch they need.
        """
        needed = self.size * concurrency
        what = f"{concurrency} x a batch of {self.size}" if concurrency > 1 else str(self)
        if needed > MAX_PREFETCH:
            raise SettingsError(
                f"{what} is {needed} unacked messages, and a broker delivers at most "
                f"{MAX_PREFETCH}: give a smaller size or concurrency"
            )
        if prefetch is not None and prefetch < needed:
            raise SettingsError(
                f"prefetch {prefetch}: {what} needs at least {needed}, or it never fills; leave "
                f"the prefetch out"
            )

    def prefetch(self, concurrency: int) -> int:
        """Return the prefetch with which the next batches fill while the others are handled."""
        return min(2 * self.size * concurrency, MAX_PREFETCH)

    def __str__(self) -> str:
        return f"a batch of {self.size}"


class HandledTogether:
    """A context in which *messages* are the batch that is handled in this thread or coroutine."""

    __slots__ = ("_token", "messages", "outer")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.outer = current_message.get(None)

    def __enter__(self) -> None:
        self._token = _current.set(self)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


_current: ContextVar[HandledTogether] = ContextVar("mousetrap.batch")


def current_batch() -> Sequence[Message] | None:
    """Return the messages that are handled together here; None outside the handler of a batch.

    None, too, in code that handles a single message inside of it, such as a call of
    `Stage.handle`.
    """
    batch = _current.get(None)
    return batch.messages if batch and current_message.get(None) is batch.outer else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer that is no float
        return False


def _shown(value: Any) -> str:
    return repr(value)[:40]

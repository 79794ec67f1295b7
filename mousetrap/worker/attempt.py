"""One message in a worker's hands: since when, and the fate that comes of it."""

from __future__ import annotations

import functools
import os
import socket

from mousetrap.amqp.consumer import Delivery
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome, OutcomeKind, Output
from mousetrap.runtime import clock
from mousetrap.worker.handler import Handler


class Attempt:
    """*message* was taken in hand by *handler* when this was made; times are on both clocks."""

    __slots__ = ("begun", "delivery", "handler", "message", "started")

    def __init__(self, delivery: Delivery, message: Message, handler: Handler) -> None:
        self.delivery = delivery
        self.message = message
        self.handler = handler  # to its end, whatever takes over in the meantime
        self.begun = clock.time()  # to be told
        self.started = clock.monotonic()  # to measure by

    def outcome(
        self,
        kind: OutcomeKind,
        queue: str,
        outputs: tuple[Output, ...] = (),
        reason: str = "",
        traceback: str = "",
        delay: float = 0.0,
        body: bytes | None = None,
    ) -> Outcome:
        """Return the outcome of this attempt, which ends now; arguments are `Outcome`'s fields."""
        message = self.message
        return Outcome(  # by position: one is made for every message, and names cost as much again
            message.id,
            kind,
            self.handler.name,
            queue,
            worker_name(os.getpid()),
            self.begun,
            clock.monotonic() - self.started,
            message.attempt,
            "" if message.job == message.id else message.job,
            message.parent,
            outputs,
            reason,
            traceback,
            delay,
            body,
        )


@functools.cache
def worker_name(pid: int) -> str:
    """Return ``host:pid``, by which people find a process."""
    return f"{socket.gethostname()}:{pid}"

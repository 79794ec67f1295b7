"""One message in a worker's hands: since when, and the fate that comes of it."""

from __future__ import annotations

import functools
import os
import socket
import time
from typing import Any

from mousetrap.consumer import Delivery
from mousetrap.fate import Fate, Outcome
from mousetrap.handler import Handler
from mousetrap.message import Message


class Handling:
    """*message* was taken in hand by *handler* when this was made; times are on both clocks."""

    __slots__ = ("begun", "delivery", "handler", "message", "started")

    def __init__(self, delivery: Delivery, message: Message, handler: Handler) -> None:
        self.delivery = delivery
        self.message = message
        self.handler = handler  # to its end, whatever takes over in the meantime
        self.begun = time.time()  # to be told
        self.started = time.monotonic()  # to measure by

    def fate(self, outcome: Outcome, **more: Any) -> Fate:
        """Return the fate of this handling, which ends now; *more* are the fields of `Fate`."""
        message = self.message
        return Fate(
            id=message.id,
            outcome=outcome,
            stage=self.handler.name,
            worker=worker_name(os.getpid()),
            begun=self.begun,
            seconds=time.monotonic() - self.started,
            attempt=message.attempt,
            job="" if message.job == message.id else message.job,
            parent=message.parent,
            **more,
        )


@functools.cache
def worker_name(pid: int) -> str:
    """Return ``host:pid``, by which people find a process."""
    return f"{socket.gethostname()}:{pid}"

"""What became of one handling of one message, as a fact that can be told to others.

A worker publishes its fates to the events exchange, many in one body, and acks a message only
after the broker has confirmed its fate. Whoever binds a queue there hears of every message; who
does not pays for a drop. Nothing here talks to a broker. Prototyped in
``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mousetrap.message import decode

Outcome = Literal["done", "retried", "dead"]


class Output(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message that a handling sent on: its id, its queue by plain name, perhaps its body."""

    id: str
    queue: str
    body: bytes | None = None


class Fate(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What became of one handling of message *id*; two handlings of it never compare equal.

    `done`: its outputs are confirmed. `retried`: it waits `delay` seconds and comes again as
    attempt + 1. `dead`: it is in the dead queue. `begun` is in seconds since 1970 on the clock of
    the worker (another machine's may go wrong), `seconds` how long the function took.
    """

    id: str
    outcome: Outcome
    stage: str
    queue: str  # that it was read from, by its plain name
    worker: str  # host:pid
    begun: float
    seconds: float
    attempt: int = 1
    job: str = ""  # empty: it is the job
    parent: str | None = None
    outputs: tuple[Output, ...] = ()
    reason: str = ""
    traceback: str = ""
    delay: float = 0.0
    body: bytes | None = None  # of the message itself, if it is a job's and bodies are kept

    @property
    def is_final(self) -> bool:
        """Nothing more is to be expected of this message."""
        return self.outcome != "retried"

    @property
    def ended(self) -> float:
        """When the function returned or raised; its outputs were sent just then."""
        return self.begun + self.seconds


def pack(fates: Sequence[Fate]) -> bytes:
    """Return *fates* as the body of one message."""
    return msgspec.json.encode(fates)


def unpack(body: bytes) -> list[Fate]:
    """Return the fates that `pack` put into *body*.

    Raises:
        UndecodableMessage: these are not fates.
    """
    fates: list[Fate] = decode(body, list[Fate])
    return fates

"""What workers ask each other and answer, as messages on the events exchange.

See `mousetrap.worker.consumer_discovery`. A worker of an older version ignores what it does not
know.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mousetrap.display.safe_text import safe


class ConsumerQuery(msgspec.Struct, frozen=True, tag="query"):
    """Asks for the workers that consume *queue* (its name on the wire)."""

    queue: str


class ConsumerInfo(msgspec.Struct, frozen=True, kw_only=True, tag="info"):
    """One worker, as it answers a query."""

    worker: str  # an id that no other worker has
    process: str  # an id that no other process has; pids repeat from container to container
    host: str
    pid: int
    program: str  # analysis.ipynb, mousetrap work, ...
    stage: str

    def __str__(self) -> str:
        return safe(f"{self.program} ({self.stage}) on {self.host}, pid {self.pid}", 200)


class HeldQuery(msgspec.Struct, frozen=True, tag="held?"):
    """Asks every worker of the namespace how many messages it holds; *number* is in the answer."""

    number: int


class HeldAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """How many messages a worker has received and not acked, as it answers a `HeldQuery`."""

    query: int
    worker: str  # an id that no other worker has
    address: str  # its exclusive queue, which exists as long as its connection
    queue: str  # the one that it consumes, by its name on the wire
    held: int
    received: int  # since it was started
    prefetch: int = 0  # how many it may hold at present; 0: a worker of an older version
    host: str
    pid: int
    program: str
    stage: str

    def __str__(self) -> str:
        return safe(f"{self.program} ({self.stage}) on {self.host}, pid {self.pid}", 200)


class SurvivorQuery(msgspec.Struct, frozen=True, tag="survived?"):
    """Asks which of *messages* of *queue*, each as it is now, a living process held before."""

    queue: str  # its name on the wire
    process: str  # an id that no other process has: the one that has them now
    messages: Sequence[tuple[str, int]]  # their ids, and how many losses each has now


class SurvivorAnswer(msgspec.Struct, frozen=True, tag="survived"):
    """Those that the answering process held when it lost its connection."""

    messages: Sequence[tuple[str, int, bool]]  # id, losses, and whether its ack has timed out

"""What is known about one message of a run. Nothing here talks to a broker."""

from __future__ import annotations

import msgspec

from mousetrap.model.outcome import Outcome

_RANK = {"retried": 0, "dead": 1, "done": 2}


class LedgerEntry(msgspec.Struct, gc=False):
    """Everything known about one message.

    `sent` and `ended` are seconds since 1970 on the ledger's clock. The times in the outcomes are
    on the clocks of the workers; `Ledger.time` converts them.
    """

    # Tuples, not lists: Python's garbage collector does not have to visit them.

    id: str
    queue: str = ""  # plain name of the queue that it was put into first
    job: str = ""
    parent: str | None = None
    sent: float | None = None  # when this run sent it
    delay: float = 0.0  # seconds after which it is first delivered
    is_confirmed: bool = False  # this run sent it, and the broker confirmed it
    origins: tuple[Outcome, ...] = ()  # the outcomes of the attempts that published it
    outcomes: tuple[Outcome, ...] = ()
    replays: int = 0  # how often it was taken out of its dead queue and sent again
    outcome: Outcome | None = None  # the decisive one: done if there is one, else dead, else latest
    finals: int = 0  # how often it was done or dead; above 1 if delivered twice or replayed
    ended: float | None = None  # when its first final outcome became known
    body: bytes | None = None

    @property
    def copies(self) -> int:
        """How often it was put into its queue, as far as is known."""
        return ((len(self.origins) + (self.sent is not None)) or 1) + self.replays

    @property
    def of_job(self) -> str:
        """The id of the job that it belongs to; its own, as long as that is not known."""
        return self.job or self.id

    @property
    def is_dead(self) -> bool:
        """It was dead-lettered and never done; a replay alone does not change that."""
        return self.outcome is not None and self.outcome.kind == "dead"


def precedence(outcome: Outcome) -> tuple[int, int, float]:
    """Return the key by which the decisive one of several outcomes is the greatest."""
    return _RANK[outcome.kind], outcome.attempt, outcome.begun

"""One fault that was planted: whether it happened, when, and how long it took to heal.

Prototyped in ``notebooks/06_bad_day.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mousetrap.display.table import Table
from mousetrap.errors import FaultError
from mousetrap.runtime import clock, threads

COLUMNS = ("fault", "what", "at", "landed", "healed after")


@dataclass(eq=False, repr=False)
class Fault:
    """A fault as it was asked for, and what came of it. Times are seconds since 1970.

    It *landed* when it happened; it is *healed* when as many consumers as it took have come back
    (connections, where it took no consumer). One that did not land proves nothing: `void` says why.

    Threads: any.
    """

    fault: str  # "cut"
    what: str  # "4 connections, 3 consumers"
    asked: float = field(default_factory=clock.time)
    triggered: float | None = None
    healed: float | None = None
    void: str = ""
    lost: int = 0  # how many it took
    of: str = "consumers"  # or "connections"
    begun: int = 0  # how many of those had begun when it landed
    _changed: threads.Condition = field(default_factory=threads.Condition)

    @property
    def seconds(self) -> float | None:
        """How long it took to heal; None if it has not, or has not happened."""
        if self.triggered is None or self.healed is None:
            return None
        return self.healed - self.triggered

    def wait(self, timeout: float = 10.0) -> Fault:
        """Return when it has landed.

        Raises:
            FaultError: it has not within *timeout* seconds, or it never will.
        """
        self._until(lambda: self.triggered is not None or bool(self.void), timeout)
        if self.triggered is None:
            why = self.void or f"nothing of the kind passed in {timeout:g} s: send more"
            raise FaultError(f"{self.fault} did not land: {why}")
        return self

    def land(self, lost: int, begun: Mapping[str, int], of: str = "consumers") -> None:
        """Note that it happens now and takes *lost* consumers (or what *of* says).

        *begun* says how many had begun so far. Nothing is to heal if it takes none.
        """
        with self._changed:
            self.triggered, self.lost, self.of, self.begun = (
                clock.time(),
                lost,
                of,
                begun.get(of, 0),
            )
            self.healed = None if lost else self.triggered
            self._changed.notify_all()

    def look(self, begun: Mapping[str, int]) -> None:
        """Note how many have begun by now."""
        with self._changed:
            is_hurt = self.triggered is not None and self.healed is None
            if is_hurt and begun.get(self.of, 0) >= self.begun + self.lost:
                self.healed = clock.time()
                self._changed.notify_all()

    def give_up(self, why: str) -> None:
        """Note that it will not happen any more, unless it has."""
        with self._changed:
            self.void = self.void or ("" if self.triggered else why)
            self._changed.notify_all()

    def __str__(self) -> str:
        return f"{self.fault} ({self.what})"

    def __repr__(self) -> str:
        return f"<{self}: {self.state}>"

    @property
    def state(self) -> str:
        """What came of it, in words."""
        if self.triggered is None:
            return f"void: {self.void}" if self.void else "to come"
        return f"healed in {self.seconds:.3f} s" if self.healed else "landed"

    def _until(self, reached: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(reached, max(0.0, timeout))


def table(injected: Sequence[Fault], began: float, title: str) -> Table:
    """Return *planted* as rows, their times in seconds since *began*."""
    rows = [
        (
            each.fault,
            each.what,
            round((each.triggered or each.asked) - began, 3),
            "yes" if each.triggered else each.state,
            each.seconds,
        )
        for each in injected
    ]
    return Table(COLUMNS, rows, title)

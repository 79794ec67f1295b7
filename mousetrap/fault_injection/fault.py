"""One injected fault: whether it was triggered, when, and how long the recovery took.

Prototyped in ``notebooks/06_bad_day.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mousetrap.display.formats import counted, duration
from mousetrap.display.table import Table
from mousetrap.errors import FaultError
from mousetrap.runtime import clock, threads

FAULT_COLUMNS = ("fault", "what", "at", "triggered", "healed after")


@dataclass(eq=False, repr=False)
class Fault:
    """A fault that was requested, and what became of it. Times are seconds since 1970.

    It is *triggered* when it happens. It is *healed* when as many consumers as it took away have
    started again (or connections, if it took no consumer). A fault that was not triggered proves
    nothing; `not_triggered` has the reason.

    Threads: any.
    """

    kind: str  # "cut"
    what: str  # "4 connections, 3 consumers"
    requested: float = field(default_factory=clock.time)
    triggered: float | None = None
    healed: float | None = None
    not_triggered: str = ""  # the reason; "" while it may still be triggered, or was
    lost: int = 0  # consumers or connections that it took away
    unit: str = "consumers"  # or "connections"
    opened_before: int = 0  # how many of those had been opened when it was triggered
    _changed: threads.Condition = field(default_factory=threads.Condition)

    @property
    def seconds(self) -> float | None:
        """The seconds from the fault to its recovery; None if one of them did not happen."""
        if self.triggered is None or self.healed is None:
            return None
        return self.healed - self.triggered

    def wait(self, timeout: float = 10.0) -> Fault:
        """Return when it was triggered.

        Raises:
            FaultError: it was not triggered within *timeout* seconds, or it cannot be any more.
        """
        self._wait_for(lambda: self.triggered is not None or bool(self.not_triggered), timeout)
        if self.triggered is None:
            reason = self.not_triggered or (
                f"nothing that it applies to passed in {timeout:g} s: send more"
            )
            raise FaultError(f"{self.kind} was not triggered: {reason}")
        return self

    def mark_triggered(self, lost: int, opened: Mapping[str, int], unit: str = "consumers") -> None:
        """Record that it happens now and takes away *lost* consumers or connections (*unit*).

        *opened* has how many of each have been opened so far. If none is lost, it is healed.
        """
        with self._changed:
            self.triggered, self.lost, self.unit = clock.time(), lost, unit
            self.opened_before = opened.get(unit, 0)
            self.healed = None if lost else self.triggered
            self._changed.notify_all()

    def update(self, opened: Mapping[str, int]) -> None:
        """Record that it is healed if, by *opened*, as many as were lost have been opened."""
        with self._changed:
            is_pending = self.triggered is not None and self.healed is None
            if is_pending and opened.get(self.unit, 0) >= self.opened_before + self.lost:
                self.healed = clock.time()
                self._changed.notify_all()

    def mark_not_triggered(self, reason: str) -> None:
        """Record that it cannot be triggered any more, unless it was."""
        with self._changed:
            self.not_triggered = self.not_triggered or ("" if self.triggered else reason)
            self._changed.notify_all()

    def __str__(self) -> str:
        return f"{self.kind} ({self.what})"

    def __repr__(self) -> str:
        return f"<{self}: {self.state}>"

    @property
    def state(self) -> str:
        """What became of it, in words."""
        if self.triggered is None:
            return f"not triggered: {self.not_triggered}" if self.not_triggered else "pending"
        return f"healed in {self.seconds:.3f} s" if self.healed else "triggered"

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, max(0.0, timeout))


def table(injected: Sequence[Fault], began: float, name: str) -> Table:
    """Return *injected* as rows by time: `at` in seconds since *began*, `healed after` in seconds.

    The title has their number, *name*, and how many of them were triggered and healed.
    """
    rows = [
        (
            each.kind,
            each.what,
            round((each.triggered or each.requested) - began, 3),
            "yes" if each.triggered else each.state,
            each.seconds,
        )
        for each in sorted(injected, key=lambda each: each.triggered or each.requested)
    ]
    return Table(
        FAULT_COLUMNS, rows, f"{counted(len(injected), 'fault')}{name}{_totals(injected)}",
        units={"at": "s"}, shows={"healed after": _healed_after},
    )  # fmt: skip


def _totals(injected: Sequence[Fault]) -> str:
    if not injected:
        return ""
    healed = [each.seconds for each in injected if each.seconds is not None]
    triggered = sum(each.triggered is not None for each in injected)
    longest = f", longest {duration(max(healed))}" if any(healed) else ""
    if len(healed) == len(injected):
        return f": {'all ' if len(healed) > 1 else ''}healed{longest}"
    return f": {triggered:,} triggered, {len(healed):,} healed{longest}"


def _healed_after(seconds: float) -> str:
    return duration(seconds) if seconds else "at once"

"""What a run shows: its summary, its messages, pictures, and a file that can be replayed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mousetrap.display.next_calls import name_of
from mousetrap.display.notices import print_notice
from mousetrap.flows.flow import Flow
from mousetrap.flows.recording import recorded, save_recorded
from mousetrap.model import ledger_tables
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.runs.diagram import Diagram
from mousetrap.runs.next_calls import next_calls
from mousetrap.runtime import forks

if TYPE_CHECKING:
    from mousetrap.display.table import Table
    from mousetrap.errors import QueuesLost
    from mousetrap.model.ledger import Ledger
    from mousetrap.model.summary import RunSummary
    from mousetrap.runs.plot import HasFaultRows
    from mousetrap.runs.workers import RunWorkers
    from mousetrap.settings import Settings

_view: Callable[[Any], str] | None = None  # returns the HTML of a run


class RunFigures(forks.OfOneProcess):
    """The part of `mousetrap.Run` that reads its ledger and changes nothing."""

    flow: Flow
    ledger: Ledger
    namespace: str
    settings: Settings
    queues_lost: QueuesLost | None
    _workers: RunWorkers
    _product: str  # the broker's name and version, as the broker gives them

    @property
    def state(self) -> str:
        """``new``, ``open`` or ``closed``."""
        raise NotImplementedError

    @property
    def broker(self) -> str:
        """What the broker calls itself, as ``RabbitMQ 4.3.6``; empty before the start."""
        return self._product

    def summary(self) -> RunSummary:
        """Return the counts and times of the run as they are known now."""
        found = self.ledger.summary()
        under_way = found.sent - found.done - found.dead
        jobs = JobCounts(found.sent, found.done, under_way, found.dead)
        return dataclasses.replace(found, broker=self._product, next=next_calls(self, jobs))

    def messages(
        self,
        outcome: str | None = None,
        stage: str | None = None,
        *,
        order: str = "attention",
        page: int = 1,
    ) -> Table:
        """Return one row for each message: stage, times in seconds, attempts, outcome and reason.

        The stage has those before it: ``fetch → process``.

        In a notebook, also the last line that its handler printed, if any. Twenty rows are shown:
        those of *page*, from 1; `to_pandas` has all. *outcome* (``"dead"``, ``"open"``,
        ``"retried"``, ``"done"``, ``"result"``) and *stage* keep only such messages. The *order* is
        ``"attention"`` (dead, open and retried ones first, then the slowest), ``"slowest"``, or
        ``"sent"``: as they were put into their queues.

        Raises:
            SettingsError: there is no such outcome, stage or order.
        """
        printed = {page.id: page.last_line for page in self._workers.output()}
        reads = {each.reads: each.name for each in self.flow.steps}
        return ledger_tables.messages(
            self.ledger, reads, self.namespace, printed,
            outcome=outcome, stage=stage, order=order, page=page,
            call=f"{name_of(self, 'run')}.messages",
        )  # fmt: skip

    def plot(self, faults: HasFaultRows | None = None) -> None:
        """Draw how many messages each stage had done over time, and how long the jobs took.

        With *faults* (`mousetrap.Faults`): draw the rate of messages instead, with each fault and
        the time until it was healed.
        """
        from mousetrap.runs import plot

        if faults is None:
            plot.run(self.ledger, self.flow.steps)
        else:
            plot.recovery(self.ledger, faults.rows())

    def diagram(self) -> Diagram:
        """Return a picture of the flow with the present counts."""
        waiting = Counter(entry.queue for entry in self.ledger.each_open())
        with self.ledger.figures() as figures:
            known = figures.by_queue()
        results = {name: known.get(name, 0) for name in self.flow.results}
        return Diagram(self.flow.steps, self.summary().stages, waiting | results)

    def save(self, path: str | Path) -> Path:
        """Write what happened to a ``.jsonl`` file; `Recording.load` reads it back.

        The messages are written one at a time: the memory needed does not grow with their number.
        While the run goes on, they are those known when this begins.

        Without ``run(..., keep_bodies=)`` the file has no bodies, so no test can replay it. A
        notice says so at once: later, when the test is written, the bodies are gone.

        Raises:
            OSError: the file cannot be written; it is as it was before.
        """
        saved = save_recorded(path, *recorded(self.ledger, self.flow.reads))
        if not self.settings.keep_bodies:
            print_notice(
                f"{path} has times and outcomes, and no bodies: a test can replay it only if the "
                f"run keeps them, with keep_bodies=100_000"
            )
        return saved

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        if _view is None:  # imported by name, and only now: most runs are never displayed
            import_module("mousetrap.notebook.panel")
        assert _view is not None
        return {"text/plain": repr(self), "text/html": _view(self)}


def register_view(view: Callable[[Any], str]) -> None:
    """Make *view* return the HTML that a notebook shows for a run; `mousetrap.notebook` does it."""
    global _view
    _view = view

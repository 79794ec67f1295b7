"""The panel that `mousetrap work` and `mousetrap check` show on a terminal while they work.

It has the words and numbers of the panel in a notebook. What is no terminal gets lines instead.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mousetrap.display.progress import ProgressDisplay
from mousetrap.flows.flow import Step
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.live import MEASURE_INTERVAL, REFRESH_INTERVAL
from mousetrap.notebook.rate import RateMeter
from mousetrap.notebook.stats_source import StageView, View
from mousetrap.runtime import clock, threads

if TYPE_CHECKING:
    from mousetrap.cli.work_report import DeadLetterKinds
    from mousetrap.notebook.panel_rich import TerminalPanel
    from mousetrap.worker.worker import Worker

MAX_ROWS = 12  # stages, so that a terminal of usual height has room for the lines above


def drawn(view: View) -> TerminalPanel:
    """Return *view* as it is now, for Rich."""
    from mousetrap.notebook.panel_rich import TerminalPanel  # not at the top: Rich takes its time

    return TerminalPanel(view, AsOf(clock.local_date_time(), ""), MAX_ROWS)


class WorkPanel:
    """The panel of the *worker* of this process, at the bottom of the terminal.

    What its handlers print and log stays above. The depths of queues are measured in a thread.

    Threads: that of the caller.
    """

    def __init__(self, worker: Worker, kinds: DeadLetterKinds) -> None:
        from mousetrap.notebook.panel import Panel

        self._panel, self._kinds = Panel(worker), kinds
        self._display = ProgressDisplay(takes_stdout=sys.stdout.isatty())
        self._next = f"mousetrap dead list {worker.queue.name}"
        self._due = 0.0
        self._stopped = threads.Event()
        threads.Thread(target=self._measure, name="mousetrap-panel", daemon=True).start()

    def poll(self) -> None:
        """Draw the panel again if its interval is over."""
        now = clock.monotonic()
        if now < self._due:
            return
        self._due = now + REFRESH_INTERVAL
        [view] = self._panel.poll()
        kinds = [f"dead: {self._kinds}"] if str(self._kinds) else []
        called = (self._next,) if view.next else ()
        view = dataclasses.replace(view, next=called, remarks=(*view.remarks, *kinds))
        self._display.show([], drawn(view))

    def close(self) -> None:
        """Remove it from the terminal; a second call does nothing."""
        self._stopped.set()
        self._display.close()

    def _measure(self) -> None:
        while not self._stopped.is_set():
            self._panel.measure()
            self._stopped.wait(MEASURE_INTERVAL)
        self._panel.close()


class CheckPanel:
    """Makes views of a run in a notebook from the counts that it writes for its check."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._meters: dict[str, RateMeter] = {}

    def view(self, stages: Mapping[str, Mapping[str, int]], open: int | None) -> View:
        """Return what is known of *stages* now, with *open* messages without an outcome."""
        now = clock.monotonic()
        found = [self._stage(name, counts.get, now) for name, counts in stages.items()]
        return View(self._name, "", "open", tuple(found), {}, "", jobs=_messages(found, open))

    def _stage(self, name: str, count: Callable[[str, int], int], now: float) -> StageView:
        done, retried, dead = (count(each, 0) for each in ("done", "retried", "dead"))
        meter = self._meters.setdefault(name, RateMeter())
        meter.add(done + retried + dead, now)
        history = meter.history(is_finished=False)
        return StageView(Step(name, ""), done, retried, dead, round(meter.rate, 1), history)


def _messages(stages: Sequence[StageView], open: int | None) -> JobCounts | None:
    if open is None:
        return None
    done, dead = sum(each.done for each in stages), sum(each.dead for each in stages)
    return JobCounts(done + open + dead, done, open, dead)

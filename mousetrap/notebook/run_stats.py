"""The statistics of a run, from its ledger and its workers."""

from __future__ import annotations

from collections.abc import Mapping

from mousetrap.amqp.queue_depth import Depth
from mousetrap.display.formats import age
from mousetrap.flows.flow import Step
from mousetrap.model.ledger_progress import JobCounts, OpenMessages, RunProgress
from mousetrap.model.slowest_stage import seconds_measured
from mousetrap.notebook.stats_source import (
    StageView,
    StatsSource,
    View,
    address,
    measured,
    reconnects,
    spent_now,
)
from mousetrap.runs.next_calls import next_calls
from mousetrap.runs.run import Run
from mousetrap.runtime import clock
from mousetrap.worker.statistics import Statistics

MAX_MEASURED = 100_000  # attempts of an open run; of more it takes too long again and again
SENDING = 5.0  # seconds without a new job, after which no more are expected

_NONE_OPEN = OpenMessages(0, None, 0, None)
_NO_COUNTS = dict.fromkeys(("done", "retried", "dead"), 0)


class RunStatsSource(StatsSource):
    """Statistics of a run. Its ledger has each open message, and since when the message waits.

    After the end of the run all figures come from its ledger, so a panel that is drawn later shows
    the same.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.settings = run.settings
        self._total, self._grew_at = 0, 0.0  # jobs; the last time there were more, monotonic clock
        self._last: tuple[object, View] | None = None  # of a run that has ended
        self._measured: dict[str, float] = {}  # seconds of a message, by stage
        self._spent_until = -1  # attempts that had ended when they were measured

    def queues(self) -> list[str]:
        """Return the work queues of stages whose workers run elsewhere: see `view`."""
        here = {worker.queue.name for worker in self.run.workers}
        return [queue.name for queue in self.run.queues if queue.name not in here]

    def record_depths(self, depths: Mapping[str, Depth | None], now: float) -> None:  # noqa: ARG002 -- the base class has it
        """Record *depths*."""
        self._depths = dict(depths)

    def view(self, now: float) -> View:
        """Return the statistics of the run.

        What waits is what is open and neither in progress nor waiting for a retry. If the workers
        run elsewhere, what is not in the queue is in progress.
        """
        progress = self.run.ledger.progress()
        counts = self.run.ledger.counts()
        if self.run.state == "closed":
            return self._ended(progress, counts)
        workers = {worker.queue.name: worker.statistics() for worker in self.run.workers}
        stages = tuple(
            self._stage(step, counts.get(step.name, _NO_COUNTS), workers.get(step.reads),
                        progress.open.get(step.reads, _NONE_OPEN), now)
            for step in self.run.flow.steps
        )  # fmt: skip
        return self._view(progress, stages, self._left(progress.jobs, now), workers)

    def _stage(
        self,
        step: Step,
        counts: Mapping[str, int],
        worker: Statistics | None,
        open_here: OpenMessages,
        now: float,
    ) -> StageView:
        rates = measured(self.run, f"stage {step.name}", sum(counts.values()), now)
        in_progress = worker.in_progress if worker else None
        waiting = max(0, open_here.number - open_here.retries - (in_progress or 0))
        if worker is None and (ready := self._ready(step.reads)) is not None:
            waiting, in_progress = min(ready, waiting), max(0, waiting - ready)
        at, since, due = clock.steady_time(), open_here.since, open_here.next_retry
        return StageView(
            step, *_counts(counts), rate=rates.rate, history=rates.history, waiting=waiting,
            in_progress=in_progress, waiting_retry=open_here.retries,
            oldest="" if since is None else age(at - since),
            in_work=worker.oldest if worker else 0.0,
            prefetch=worker.prefetch if worker else None,
            state=worker.state if worker else "", problem=worker.problem if worker else "",
            next_retry=None if due is None else round(max(0.0, due - at), 1),
        )  # fmt: skip

    def _ended(self, progress: RunProgress, counts: Mapping[str, Mapping[str, int]]) -> View:
        key = (progress.jobs, counts, [worker.error for worker in self.run.workers])
        if self._last is None or self._last[0] != key:
            ended, minute = self.run.ledger.last_minute()
            # While a run closes, its workers still close their connections; the picture is of
            # the end.
            failed = {worker.queue.name: str(worker.error) for worker in self.run.workers
                      if worker.error is not None}  # fmt: skip
            stages = tuple(
                StageView(
                    step, *_counts(counts.get(step.name, _NO_COUNTS)), rate=0.0,
                    history=minute.get(step.name, ()),
                    waiting=progress.open.get(step.reads, _NONE_OPEN).number, in_progress=0,
                    state="failed" if step.reads in failed else "closed",
                    problem=failed.get(step.reads, ""),
                )
                for step in self.run.flow.steps
            )  # fmt: skip
            self._last = key, self._view(progress, stages, None, {}, ended or None)
        return self._last[1]

    def _view(
        self,
        progress: RunProgress,
        stages: tuple[StageView, ...],
        left: float | None,
        workers: Mapping[str, Statistics],
        ended: float | None = None,
    ) -> View:
        run = self.run
        published = run.ledger.published()
        results = {name: published.get(name, 0) for name in run.flow.results}
        where = run.where
        return View(
            f"run {run.namespace}",
            address(self.settings, run.broker) if where == self.settings.url else where,
            run.state, stages, results, "result",
            unit="job", jobs=progress.jobs, started=progress.first, ended=ended, left=left,
            reconnects=reconnects(workers), lost=str(run.queues_lost or ""),
            spent=self._spent(progress.jobs, stages), next=next_calls(run, progress.jobs),
        )  # fmt: skip

    def _spent(self, jobs: JobCounts, stages: tuple[StageView, ...]) -> Mapping[str, float]:
        """Return how long a message spends in each stage, or spent there if none is under way.

        What it spent is computed again only after another message was settled.
        """
        ended = sum(each.done + each.retried + each.dead for each in stages)
        if self.run.state != "closed" and (jobs.under_way or ended > MAX_MEASURED):
            return spent_now(stages)
        if self._spent_until != ended:
            self._spent_until = ended
            self._measured = seconds_measured(self.run.summary().as_dict()["stages"])
        return self._measured

    def _left(self, jobs: JobCounts, now: float) -> float | None:
        """Return in how many seconds all jobs are settled; None if nobody can say.

        That is: jobs are still sent, or they are not settled at a steady rate.
        """
        rates = measured(self.run, "jobs", jobs.settled, now)
        if jobs.total != self._total:
            self._total, self._grew_at = jobs.total, now
        if not rates.steady or not jobs.under_way or now - self._grew_at < SENDING:
            return None
        return float(f"{jobs.under_way / rates.steady:.2g}")


def _counts(counts: Mapping[str, int]) -> tuple[int, int, int]:
    return counts["done"], counts["retried"], counts["dead"]

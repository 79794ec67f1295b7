"""The statistics of workers that belong to no run, from their counts and the depths of queues."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add

from mousetrap.amqp.queue_depth import Depth
from mousetrap.display.next_calls import call_of
from mousetrap.flows.flow import Step, step_of
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.rate import ArrivalHistory
from mousetrap.notebook.stats_source import (
    StageView,
    StatsSource,
    View,
    address,
    measured,
    reconnects,
    spent_now,
)
from mousetrap.runs.next_calls import settings_argument
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.worker.statistics import Statistics
from mousetrap.worker.worker import Worker

DISCOVERY_INTERVAL = 5.0  # seconds between two requests which other processes consume a queue
# Seconds after which a queue that was not there is asked for again. A retry queue is declared when
# it is needed, and a question for a queue that is not there takes longer than any other.
MISSING_INTERVAL = 10.0
WorkerOrHandle = Worker | Handle
_ENDED = ("failed", "closed", "replaced")


class WorkersStatsSource(StatsSource):
    """Statistics of workers of one broker and one namespace.

    Workers of the same function count as one stage. *members* are workers or handles; a handle has
    its own counts and remarks, and has ended when it was replaced.
    """

    def __init__(self, members: Sequence[WorkerOrHandle], settings: Settings) -> None:
        super().__init__()
        self.members = list(members)
        self.settings = settings
        self._arrivals: dict[str, ArrivalHistory] = {}  # by stage
        self._discovered_at = 0.0  # on the monotonic clock
        self._missing: dict[str, float] = {}  # queues that were not there, and when; as above
        self._retried = 0  # when these were asked for

    def discover(self) -> None:
        """Let each handle find out which other processes consume its queue.

        Waits for their answers. Does nothing within `DISCOVERY_INTERVAL` of the last time.
        """
        if clock.monotonic() - self._discovered_at > DISCOVERY_INTERVAL:
            for handle in self.members:
                if isinstance(handle, Handle):
                    handle.attached()
            self._discovered_at = clock.monotonic()

    def queues(self) -> list[str]:
        """Return the work queues, the retry queues and the output queues of the workers."""
        workers = [worker_of(each) for each in self.members]
        names = [name for each in workers for name in each.queue.names() if name != each.queue.dead]
        names += [name for each in workers for name in each.targets.queues]
        retried = sum(_statistics(each).retried for each in self.members)
        if self._retried != retried:
            self._retried = retried
            self._missing.clear()
        since = clock.monotonic() - MISSING_INTERVAL
        missing = {name for name, at in self._missing.items() if at > since}
        return [name for name in dict.fromkeys(names) if name not in missing]

    def record_depths(self, depths: Mapping[str, Depth | None], now: float) -> None:
        """Record *depths*, and how many messages have arrived so far."""
        self._depths = dict(depths)
        self._missing |= {name: now for name, depth in depths.items() if depth is None}
        for step, members in self._steps().items():
            if (ready := self._ready(step.reads)) is not None:
                statistics = [_statistics(each) for each in members]
                present = ready + sum(each.prefetched + each.in_progress for each in statistics)
                arrivals = self._arrivals.setdefault(step.name, ArrivalHistory())
                arrivals.add(_settled(statistics), present, now)

    def view(self, now: float) -> View:
        """Return the statistics of the workers."""
        stages, states, latest = [], [], {}
        for step, members in self._steps().items():
            statistics = [_statistics(each) for each in members]
            states += [each.state for each in statistics]
            latest[step.name] = statistics[-1]
            stages.append(self._stage(step, members, statistics, now))
        is_finished = bool(states) and all(state in _ENDED for state in states)
        reads = {stage.step.reads for stage in stages}
        outputs = {name: self._ready(name) for each in stages for name in each.step.writes}
        broker = next((worker_of(each).broker for each in self.members), "")
        return View(
            self._title(), address(self.settings, broker),
            _worst_state(states) if is_finished else "open", tuple(stages),
            {name: depth for name, depth in outputs.items() if name not in reads}, "waiting",
            self._remarks(), jobs=None if is_finished else _messages(stages),
            reconnects=reconnects(latest), spent=spent_now(stages), next=self._next(stages),
        )  # fmt: skip

    def _stage(
        self,
        step: Step,
        members: Sequence[WorkerOrHandle],
        statistics: list[Statistics],
        now: float,
    ) -> StageView:
        has_ended = all(each.state in _ENDED for each in statistics)
        each_rates = [
            measured(member, "settled", _settled([each]), now, is_finished=has_ended)
            for member, each in zip(members, statistics, strict=True)
        ]
        rates = reduce(add, each_rates)
        done, retried, dead = (
            sum(getattr(each, name) for each in statistics) for name in ("done", "retried", "dead")
        )
        ready = self._ready(step.reads)
        in_progress = sum(each.in_progress for each in statistics)
        waiting = None if ready is None else ready + sum(each.prefetched for each in statistics)
        oldest = ""
        if (waiting or in_progress) and step.name in self._arrivals:
            # "": the message arrived after the last measurement
            oldest = self._arrivals[step.name].oldest(_settled(statistics), now) or "0 s"
        retries = (self._ready(name) or 0 for name in worker_of(members[0]).queue.retry_queues())
        return StageView(
            step, done, retried, dead,
            rate=rates.rate, history=rates.history,
            waiting=waiting, in_progress=in_progress, waiting_retry=sum(retries), oldest=oldest,
            in_work=max((each.oldest for each in statistics), default=0.0),
            prefetch=max((each.prefetch for each in statistics), default=None),
            state=_worst_state(each.state for each in statistics),
            problem="; ".join(dict.fromkeys(e.problem for e in statistics if e.problem)),
        )  # fmt: skip

    def _steps(self) -> dict[Step, list[WorkerOrHandle]]:
        steps: dict[Step, list[WorkerOrHandle]] = {}
        names: dict[str, Step] = {}
        for member in self.members:
            worker = worker_of(member)
            name = member.function_name if isinstance(member, Handle) else worker.handler.name
            step = step_of(name, worker.queue, worker.targets, worker.targets.queues)
            if names.setdefault(step.name, step) != step:  # the same name, for another queue
                step = step._replace(name=f"{step.name} of {step.reads}")
            steps.setdefault(step, []).append(member)
        return steps

    def _title(self) -> str:
        number = len(self.members)
        title = "1 worker" if number == 1 else f"{number} workers"
        return title + f" in namespace {self.settings.namespace}" * bool(self.settings.namespace)

    def _next(self, stages: Sequence[StageView]) -> tuple[str, ...]:
        """Return how to see the dead letters, of the stage that has most of them."""
        most = max(stages, key=lambda each: each.dead, default=None)
        if most is None or not most.dead:
            return ()
        return (call_of("dead", f"{most.step.reads!r}{settings_argument(self.settings)}"),)

    def _remarks(self) -> tuple[str, ...]:
        handles = [each for each in self.members if isinstance(each, Handle)]
        return tuple(dict.fromkeys(line for handle in handles for line in handle.remarks))


def worker_of(member: WorkerOrHandle) -> Worker:
    """Return *member*, or the worker of the handle."""
    return member.worker if isinstance(member, Handle) else member


def _statistics(member: WorkerOrHandle) -> Statistics:
    found = member.statistics()
    is_replaced = isinstance(member, Handle) and member.replaced
    return dataclasses.replace(found, state="replaced") if is_replaced else found


def _messages(stages: Sequence[StageView]) -> JobCounts | None:
    """Return what became of the messages that are known; None if a queue was not measured."""
    done, dead = sum(each.done for each in stages), sum(each.dead for each in stages)
    open_now = 0
    for each in stages:
        if each.waiting is None:
            return None
        open_now += each.waiting + (each.waiting_retry or 0) + (each.in_progress or 0)
    return JobCounts(done + open_now + dead, done, open_now, dead)


def _settled(statistics: Sequence[Statistics]) -> int:
    return sum(each.done + each.retried + each.dead for each in statistics)


def _worst_state(states: Iterable[str]) -> str:
    order = ("failed", "connecting", "blocked", "new", "open", "replaced", "closed")
    return min(states, key=lambda state: order.index(state) if state in order else -1)

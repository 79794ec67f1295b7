"""Statistics of stages: a count becomes a rate, and a queue's depth the age of its oldest message.

A `StatsSource` is polled, keeps what it saw in the last minute, and returns a `View`: plain values
that a panel draws. It reads the counts of workers and ledgers, which takes no time. The caller
measures the depths of the queues and passes them to `StatsSource.record_depths`. Prototyped in
``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mousetrap.amqp.queue_depth import Depth
from mousetrap.flows.flow import Step, step_of
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.rate import ArrivalHistory, RateMeter
from mousetrap.runs.run import Run
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.worker.statistics import Statistics
from mousetrap.worker.worker import Worker

DISCOVERY_INTERVAL = 5.0  # seconds between two requests which other processes consume a queue
WorkerOrHandle = Worker | Handle
_ENDED = ("failed", "closed", "replaced")


@dataclass(frozen=True)
class StageView:
    """The statistics of one stage at one time; None where they are not known."""

    step: Step
    done: int
    retried: int
    dead: int
    rate: float  # settled per second; once the stage has ended, its average
    history: tuple[float, ...]  # settled in each of up to sixty parts of the last minute
    waiting: int | None = None  # in the queue, or prefetched and not begun
    in_progress: int | None = None
    prefetch: int | None = None  # how many messages a worker may hold; the largest of several
    waiting_retry: int | None = None
    oldest: str = ""  # age of the message that waits longest, as "5 s"; "> 5 s": at least
    in_work: float = 0.0  # seconds since the oldest message in progress was begun
    state: str = ""  # of its connections
    problem: str = ""  # what it waits for, or what went wrong


@dataclass(frozen=True)
class View:
    """The statistics of a run, or of workers that share a broker and a namespace."""

    title: str
    broker: str
    state: str  # "open", or how it ended
    stages: tuple[StageView, ...]
    queues: Mapping[str, int | None]  # messages in the queues that no stage here reads
    queue_label: str  # what the picture says of those messages: "out" or "waiting"
    remarks: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in ("open", "new")


class StatsSource(ABC):
    """Supplies the statistics of a run or of workers, again and again.

    Threads: one at a time.
    """

    settings: Settings

    def __init__(self) -> None:
        self._rate_meters: dict[str, RateMeter] = {}  # by stage
        self._depths: dict[str, Depth | None] = {}

    @abstractmethod
    def view(self, now: float) -> View:
        """Return the present statistics; *now* is on the monotonic clock."""

    @abstractmethod
    def queues(self) -> list[str]:
        """Return the names of the queues whose depths it needs."""

    @abstractmethod
    def record_depths(self, depths: Mapping[str, Depth | None], now: float) -> None:
        """Record *depths*, which were measured at *now*."""

    def _ready(self, queue: str) -> int | None:
        depth = self._depths.get(queue)
        return None if depth is None else depth.messages

    def _rates(
        self, stage: str, counts: Mapping[str, int], now: float, *, is_finished: bool
    ) -> dict[str, Any]:
        """Record the *counts* of *stage* and return them, with its rate and its history."""
        meter = self._rate_meters.setdefault(stage, RateMeter())
        meter.add(sum(counts.values()), now)
        rate = meter.average if is_finished else meter.rate
        history = meter.history(is_finished=is_finished)
        return {**counts, "rate": round(rate, 1), "history": history}


class RunStatsSource(StatsSource):
    """Statistics of a run. Its ledger has each open message, and since when the message waits."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.settings = run.settings
        self._open: dict[str, tuple[int, str]] = {}  # queue -> messages, age of the oldest

    def queues(self) -> list[str]:
        """Return the work queues and the retry queues of the run."""
        return [name for queue in self.run.queues for name in queue.names() if name != queue.dead]

    def record_depths(self, depths: Mapping[str, Depth | None], now: float) -> None:  # noqa: ARG002 -- the base class has it
        """Record *depths*, and count the open messages of the ledger."""
        self._depths = dict(depths)
        self._count_open()

    def view(self, now: float) -> View:
        """Return the statistics of the run, from its ledger and its workers."""
        run = self.run
        if run.state == "closed":
            self._depths = {}
        if not self._depths:
            self._count_open()
        counts = run.ledger.counts()
        workers = {worker.queue.name: worker.statistics() for worker in run.workers}
        stages = []
        for step, queue in zip(run.flow.steps, run.queues, strict=True):
            stage = counts.get(step.name, dict.fromkeys(("done", "retried", "dead"), 0))
            rates = self._rates(step.name, stage, now, is_finished=run.state == "closed")
            worker = workers.get(step.reads)
            open_here, oldest = self._open.get(step.reads, (0, ""))
            retries = sum(self._ready(name) or 0 for name in queue.retry_queues())
            in_progress = worker.in_progress if worker else None
            waiting = max(0, open_here - retries - (in_progress or 0))
            if worker is None and (ready := self._ready(step.reads)) is not None:
                waiting, in_progress = min(ready, waiting), max(0, waiting - ready)
            stages.append(
                StageView(
                    step, **rates, waiting=waiting, in_progress=in_progress,
                    waiting_retry=retries, oldest=oldest,
                    in_work=worker.oldest if worker else 0.0,
                    prefetch=worker.prefetch if worker else None,
                    state=_state_in(run, worker), problem=worker.problem if worker else "",
                )
            )  # fmt: skip
        published = run.ledger.published()
        results = {name: published.get(name, 0) for name in run.flow.results}
        return View(
            f"run {run.namespace}", run.where, run.state, tuple(stages), results, "out",
            (*([str(run.queues_lost)] if run.queues_lost else []), *_reconnects(workers)),
        )  # fmt: skip

    def _count_open(self) -> None:
        found: dict[str, tuple[int, float | None]] = {}
        for entry in self.run.ledger.each_open():
            number, since = found.get(entry.queue, (0, None))
            found[entry.queue] = (number + 1, since or self.run.ledger.queued_at(entry))
        now = clock.steady_time()
        self._open = {
            queue: (number, "" if since is None else f"{max(0.0, now - since):.0f} s")
            for queue, (number, since) in found.items()
        }


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
        outputs = [name for each in workers for name in each.targets.queues]
        return list(dict.fromkeys([*names, *outputs]))

    def record_depths(self, depths: Mapping[str, Depth | None], now: float) -> None:
        """Record *depths*, and how many messages have arrived so far."""
        self._depths = dict(depths)
        for step, members in self._steps().items():
            if (ready := self._ready(step.reads)) is not None:
                statistics = [_statistics(each) for each in members]
                present = ready + sum(each.prefetched + each.in_progress for each in statistics)
                arrivals = self._arrivals.setdefault(step.name, ArrivalHistory())
                arrivals.add(_settled(statistics), present, now)

    def view(self, now: float) -> View:
        """Return the statistics of the workers."""
        stages, states, reconnects = [], [], {}
        for step, members in self._steps().items():
            statistics = [_statistics(each) for each in members]
            states += [each.state for each in statistics]
            reconnects[step.name] = statistics[-1]
            stages.append(self._stage(step, members[0], statistics, now))
        is_finished = bool(states) and all(state in _ENDED for state in states)
        reads = {stage.step.reads for stage in stages}
        outputs = {name: self._ready(name) for each in stages for name in each.step.writes}
        return View(
            self._title(), self.settings.url, _worst_state(states) if is_finished else "open",
            tuple(stages), {name: depth for name, depth in outputs.items() if name not in reads},
            "waiting", _reconnects(reconnects) + self._remarks(),
        )  # fmt: skip

    def _stage(
        self, step: Step, member: WorkerOrHandle, statistics: list[Statistics], now: float
    ) -> StageView:
        counts = {
            name: sum(getattr(each, name) for each in statistics)
            for name in ("done", "retried", "dead")
        }
        ready = self._ready(step.reads)
        prefetched = sum(each.prefetched for each in statistics)
        in_progress = sum(each.in_progress for each in statistics)
        waiting = None if ready is None else ready + prefetched
        oldest = ""
        if (waiting or in_progress) and step.name in self._arrivals:
            # "": the message arrived after the last measurement
            oldest = self._arrivals[step.name].oldest(_settled(statistics), now) or "0 s"
        has_ended = all(each.state in _ENDED for each in statistics)
        retries = (self._ready(name) or 0 for name in worker_of(member).queue.retry_queues())
        return StageView(
            step, **self._rates(step.name, counts, now, is_finished=has_ended),
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

    def _remarks(self) -> tuple[str, ...]:
        handles = [each for each in self.members if isinstance(each, Handle)]
        return tuple(dict.fromkeys(line for handle in handles for line in handle.remarks))


def _state_in(run: Run, worker: Statistics | None) -> str:
    """Return the state of a worker of *run*; "" if it is in another process."""
    if worker is None or worker.state == "failed":
        return worker.state if worker else ""
    # While a run closes, its workers still close their connections. Its last picture is of the end.
    return "closed" if run.state == "closed" else worker.state


def worker_of(member: WorkerOrHandle) -> Worker:
    """Return *member*, or the worker of the handle."""
    return member.worker if isinstance(member, Handle) else member


def _statistics(member: WorkerOrHandle) -> Statistics:
    found = member.statistics()
    is_replaced = isinstance(member, Handle) and member.replaced
    return dataclasses.replace(found, state="replaced") if is_replaced else found


def _settled(statistics: Sequence[Statistics]) -> int:
    return sum(each.done + each.retried + each.dead for each in statistics)


def _worst_state(states: Iterable[str]) -> str:
    order = ("failed", "connecting", "blocked", "new", "open", "replaced", "closed")
    return min(states, key=lambda state: order.index(state) if state in order else -1)


def _reconnects(statistics: Mapping[str, Statistics]) -> tuple[str, ...]:
    return tuple(
        f"{name} reconnected {each.reconnects}×"
        for name, each in statistics.items()
        if each.reconnects
    )

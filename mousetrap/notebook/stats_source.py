"""Watching stages from outside: counts become rates, and a queue's depth the age of its oldest.

A watch is asked now and then, keeps what it saw in the last minute, and answers with a `View`:
plain values that a panel can draw. It asks workers and ledgers, which cost nothing to ask; how full
the queues are it is told by `Watch.measured`. Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mousetrap.amqp.queue_depth import Depth
from mousetrap.flows.flow import Step
from mousetrap.notebook.handle import Handle
from mousetrap.notebook.rate import Arrivals, RateMeter
from mousetrap.runs.run import Run
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.worker.worker import Statistics, Worker

ASK_EVERY = 5.0  # seconds between two questions who else consumes a queue
Subject = Worker | Handle
_ENDED = ("failed", "closed", "replaced")


@dataclass(frozen=True)
class StageView:
    """What is known of one stage at a moment; None: nobody here knows."""

    step: Step
    done: int
    retried: int
    dead: int
    rate: float  # settled per second; once it has ended, on average
    minute: tuple[float, ...]  # settled in each of up to sixty pieces of the last minute
    waiting: int | None = None  # in its queue, or handed over and not begun
    in_progress: int | None = None
    later: int | None = None  # waiting for a retry
    oldest: str = ""  # age of the message that waits longest, in whole seconds; "> 5": at least
    state: str = ""  # of its connections
    trouble: str = ""  # what it is waiting for, or went wrong


@dataclass(frozen=True)
class View:
    """What is known of a run, or of workers that share a broker and a namespace."""

    title: str
    where: str  # the broker
    state: str  # "open", or how it ended
    stages: tuple[StageView, ...]
    queues: Mapping[str, int | None]  # that no stage here reads
    end: str  # the word for what is in those
    remarks: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Nothing of it will change any more."""
        return self.state not in ("open", "new")


class Watch(ABC):
    """Asks one source again and again. Threads: one at a time."""

    settings: Settings

    def __init__(self) -> None:
        self._paces: dict[str, RateMeter] = {}
        self._depths: dict[str, Depth | None] = {}

    @abstractmethod
    def view(self, now: float) -> View:
        """Look at it; *now* is on the monotonic clock."""

    @abstractmethod
    def queues(self) -> list[str]:
        """Whose depth it would like to know."""

    @abstractmethod
    def measured(self, depths: Mapping[str, Depth | None], now: float) -> None:
        """Take note of how full the queues are at *now*."""

    def _ready(self, queue: str) -> int | None:
        depth = self._depths.get(queue)
        return None if depth is None else depth.messages

    def _pace(
        self, name: str, counts: Mapping[str, int], now: float, *, is_over: bool
    ) -> dict[str, Any]:
        pace = self._paces.setdefault(name, RateMeter())
        pace.add(sum(counts.values()), now)
        rate = pace.average if is_over else pace.rate
        return {**counts, "rate": round(rate, 1), "minute": pace.minute(is_over=is_over)}


class RunWatch(Watch):
    """Watches a run; its ledger knows better than any queue what is open, and since when."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.settings = run.settings
        self._open: dict[str, tuple[int, str]] = {}  # queue -> messages, age of the oldest

    def queues(self) -> list[str]:
        """Work queues, and where messages wait for a retry."""
        return [name for queue in self.run.queues for name in queue.names() if name != queue.dead]

    def measured(self, depths: Mapping[str, Depth | None], now: float) -> None:  # noqa: ARG002 -- as for workers
        """Take note of the depths, and of what is open."""
        self._depths = dict(depths)
        self._count_open()

    def view(self, now: float) -> View:
        """Look at the ledger and the workers."""
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
            pace = self._pace(step.name, stage, now, is_over=run.state == "closed")
            known = workers.get(step.reads)
            open_here, oldest = self._open.get(step.reads, (0, ""))
            later = sum(self._ready(name) or 0 for name in queue.retry_queues())
            in_progress = known.in_progress if known else None
            waiting = max(0, open_here - later - (in_progress or 0))
            if known is None and (ready := self._ready(step.reads)) is not None:
                waiting, in_progress = min(ready, waiting), max(0, waiting - ready)
            stages.append(
                StageView(
                    step, **pace, waiting=waiting, in_progress=in_progress, later=later,
                    oldest=oldest,
                    state=known.state if known else "", trouble=known.problem if known else "",
                )
            )  # fmt: skip
        ends = {name: run.ledger.sent_on(name) for name in run.flow.results}
        title = f"run {run.namespace}"
        return View(title, run.where, run.state, tuple(stages), ends, "out", _reconnects(workers))

    def _count_open(self) -> None:
        found: dict[str, tuple[int, float | None]] = {}
        for entry in self.run.ledger.open_entries():
            number, since = found.get(entry.queue, (0, None))
            found[entry.queue] = (number + 1, since or self.run.ledger.ready(entry))
        now = clock.time()
        self._open = {
            queue: (number, "" if since is None else f"{max(0.0, now - since):.0f} s")
            for queue, (number, since) in found.items()
        }


class WorkersWatch(Watch):
    """Watches workers of one broker and one namespace; those of one function count as one stage.

    *subjects* are workers, or handles, which count for themselves, have something to say beside,
    and end when they are replaced.
    """

    def __init__(self, subjects: Sequence[Subject], settings: Settings) -> None:
        super().__init__()
        self.subjects = list(subjects)
        self.settings = settings
        self._arrivals: dict[str, Arrivals] = {}
        self._asked = 0.0  # on the monotonic clock

    def ask(self) -> None:
        """Have handles find out who else consumes their queue, now and then; takes its time."""
        if clock.monotonic() - self._asked > ASK_EVERY:
            for handle in self.subjects:
                if isinstance(handle, Handle):
                    handle.attached()
            self._asked = clock.monotonic()

    def queues(self) -> list[str]:
        """Every queue that they read, wait in, or write."""
        workers = [worker_of(each) for each in self.subjects]
        names = [name for each in workers for name in each.queue.names() if name != each.queue.dead]
        return list(dict.fromkeys([*names, *(each.writes for each in workers if each.writes)]))

    def measured(self, depths: Mapping[str, Depth | None], now: float) -> None:
        """Take note of the depths, and of what must have come by now."""
        self._depths = dict(depths)
        for step, members in self._steps().items():
            if (ready := self._ready(step.reads)) is not None:
                figures = [_figures(each) for each in members]
                there = ready + sum(each.prefetched + each.in_progress for each in figures)
                arrivals = self._arrivals.setdefault(step.name, Arrivals())
                arrivals.add(_settled(figures), there, now)

    def view(self, now: float) -> View:
        """Look at the workers."""
        stages, states = [], []
        for step, members in self._steps().items():
            figures = [_figures(each) for each in members]
            counts = {
                name: sum(getattr(each, name) for each in figures)
                for name in ("done", "retried", "dead")
            }
            ready = self._ready(step.reads)
            prefetched = sum(each.prefetched for each in figures)
            in_progress = sum(each.in_progress for each in figures)
            waiting = None if ready is None else ready + prefetched
            oldest = ""
            if (waiting or in_progress) and step.name in self._arrivals:
                # none: it came after the last measurement
                oldest = self._arrivals[step.name].oldest(_settled(figures), now) or "0 s"
            states += [each.state for each in figures]
            ended = all(each.state in _ENDED for each in figures)
            pace = self._pace(step.name, counts, now, is_over=ended)
            stages.append(
                StageView(
                    step, **pace, waiting=waiting, in_progress=in_progress,
                    later=self._later(members[0]), oldest=oldest,
                    state=_worst(each.state for each in figures),
                    trouble="; ".join(dict.fromkeys(e.problem for e in figures if e.problem)),
                )
            )  # fmt: skip
        is_over = bool(states) and all(state in _ENDED for state in states)
        end = _worst(states) if states else "open"
        reads = {stage.step.reads for stage in stages}
        ends = {s.step.writes: self._ready(s.step.writes) for s in stages if s.step.writes}
        named = {step.name: _figures(m) for step, ms in self._steps().items() for m in ms}
        return View(
            self._title(), self.settings.url, end if is_over else "open", tuple(stages),
            {name: depth for name, depth in ends.items() if name not in reads}, "waiting",
            _reconnects(named) + self._remarks(),
        )  # fmt: skip

    def _steps(self) -> dict[Step, list[Subject]]:
        steps: dict[Step, list[Subject]] = {}
        names: dict[str, Step] = {}
        for subject in self.subjects:
            worker = worker_of(subject)
            step = Step(worker.handler.name, worker.queue.name, worker.writes)
            if names.setdefault(step.name, step) != step:  # one name, another queue
                step = step._replace(name=f"{step.name} of {step.reads}")
            steps.setdefault(step, []).append(subject)
        return steps

    def _later(self, subject: Subject) -> int:
        queues = worker_of(subject).queue.retry_queues()
        return sum(self._ready(name) or 0 for name in queues)

    def _title(self) -> str:
        number = len(self.subjects)
        what = "1 worker" if number == 1 else f"{number} workers"
        return what + f" in namespace {self.settings.namespace}" * bool(self.settings.namespace)

    def _remarks(self) -> tuple[str, ...]:
        handles = [each for each in self.subjects if isinstance(each, Handle)]
        return tuple(dict.fromkeys(line for handle in handles for line in handle.remarks))


def worker_of(subject: Subject) -> Worker:
    """The worker that is meant: *subject*, or what it holds."""
    return subject.worker if isinstance(subject, Handle) else subject


def _figures(subject: Subject) -> Statistics:
    found = subject.statistics()
    is_replaced = isinstance(subject, Handle) and subject.replaced
    return dataclasses.replace(found, state="replaced") if is_replaced else found


def _settled(figures: Sequence[Statistics]) -> int:
    return sum(each.done + each.retried + each.dead for each in figures)


def _worst(states: Iterable[str]) -> str:
    order = ("failed", "connecting", "blocked", "new", "open", "replaced", "closed")
    return min(states, key=lambda state: order.index(state) if state in order else -1)


def _reconnects(figures: Mapping[str, Statistics]) -> tuple[str, ...]:
    return tuple(
        f"{name} reconnected {each.reconnects}×"
        for name, each in figures.items()
        if each.reconnects
    )

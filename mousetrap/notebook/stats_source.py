"""Statistics of stages: a count becomes a rate, and a queue's depth the age of its oldest message.

A `StatsSource` is polled and returns a `View`: plain values that a panel draws. It reads the counts
of workers and ledgers, which takes little time. The caller measures the depths of the queues and
passes them to `StatsSource.record_depths`. `run_stats` and `worker_stats` have the two kinds.
Prototyped in ``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mousetrap.amqp.queue_depth import Depth
from mousetrap.flows.flow import Step
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.model.slowest_stage import seconds_under_way
from mousetrap.notebook.rate import RateMeter
from mousetrap.runtime import forks, threads
from mousetrap.settings import Settings
from mousetrap.worker.statistics import Statistics


@dataclass(frozen=True)
class StageView:
    """The statistics of one stage at one time; None where they are not known."""

    step: Step
    done: int
    retried: int
    dead: int
    rate: float  # settled per second; once the stage has ended, its average
    history: tuple[float, ...]  # settled in each second of the last minute; () if nothing was
    waiting: int | None = None  # in the queue, or prefetched and not begun
    in_progress: int | None = None
    prefetch: int | None = None  # how many messages a worker may hold; the largest of several
    waiting_retry: int | None = None
    oldest: str = ""  # age of the message that waits longest, as "5 s"; "> 5 s": at least
    in_work: float = 0.0  # seconds since the oldest message in progress was begun
    state: str = ""  # of its connections
    problem: str = ""  # what it waits for, or what went wrong
    next_retry: float | None = None  # seconds until the first of the retries is due


@dataclass(frozen=True)
class View:
    """The statistics of a run, or of workers that share a broker and a namespace."""

    title: str
    broker: str
    state: str  # "open", or how it ended
    stages: tuple[StageView, ...]
    queues: Mapping[str, int | None]  # messages in the queues that no stage here reads
    queue_label: str  # what is said of those messages: "result" or "waiting"
    remarks: tuple[str, ...] = ()
    unit: str = "message"  # what `jobs` counts
    jobs: JobCounts | None = None  # None: how many there are is not known
    started: float | None = None  # seconds since 1970; None: not known, or nothing was sent
    ended: float | None = None  # seconds since 1970, when the last message was settled
    left: float | None = None  # seconds until nothing is under way, if it goes on as it does
    reconnects: tuple[str, ...] = ()
    lost: str = ""  # why the run cannot go on
    spent: Mapping[str, float] = field(default_factory=dict)  # seconds of a message, by stage
    next: tuple[str, ...] = ()  # calls that help next

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in ("open", "new")


def spent_now(stages: Sequence[StageView]) -> dict[str, float]:
    """Return the seconds that a message spends in each of *stages*, as it goes at present.

    Empty if a queue was not measured, or nothing is under way.
    """
    here = {each.step.name: (each.waiting, each.in_progress, each.rate) for each in stages}
    if not any(waiting or in_work for waiting, in_work, _ in here.values()):
        return {}
    return {
        name: seconds_under_way(waiting + (in_work or 0), per_second)
        for name, (waiting, in_work, per_second) in here.items()
        if waiting is not None
    }


class StatsSource(ABC):
    """Supplies the statistics of a run or of workers, again and again.

    Threads: one at a time.
    """

    settings: Settings

    def __init__(self) -> None:
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


# The meters of each run, worker and handle, by what they count: another panel of the same thing
# goes on with the same history.
_meters: weakref.WeakKeyDictionary[object, dict[str, RateMeter]] = weakref.WeakKeyDictionary()
_lock = forks.released_in_child(threads.Lock())


@dataclass(frozen=True)
class Rates:
    """What a `RateMeter` knows at one time."""

    rate: float
    steady: float  # `RateMeter.steady`
    history: tuple[float, ...]

    def __add__(self, other: Rates) -> Rates:
        one, two = self.history, other.history
        history = tuple(map(sum, zip(one, two, strict=True))) if one and two else one or two
        return Rates(self.rate + other.rate, self.steady + other.steady, history)


def measured(
    owner: object, name: str, count: int, now: float, *, is_finished: bool = False
) -> Rates:
    """Record that the *count* of *name* was this at *now*; return its rates and its history.

    Threads: any.
    """
    with _lock:
        meter = _meters.setdefault(owner, {}).setdefault(name, RateMeter())
        if not (is_finished and meter.has_counted(count)):
            meter.add(count, now)
        rate = meter.average if is_finished else meter.rate
        return Rates(round(rate, 1), meter.steady, meter.history(is_finished=is_finished))


def address(settings: Settings, product: str) -> str:
    """Return where the broker is that calls itself *product*, for people to read."""
    if not product:
        return settings.url
    from mousetrap.broker import probe  # takes a quarter of the time of `import mousetrap`

    vhost = "" if settings.vhost == "/" else f", vhost {settings.vhost}"
    return f"{probe.described(product)} on {settings.host}:{settings.port}{vhost}"


def reconnects(statistics: Mapping[str, Statistics]) -> tuple[str, ...]:
    """Return what is said of each stage that has lost its connection."""
    return tuple(
        f"{name} reconnected {each.reconnects}×"
        for name, each in statistics.items()
        if each.reconnects
    )

"""The figures of one worker at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mousetrap.amqp.connection import Connection
from mousetrap.display.formats import duration, yes_or_no
from mousetrap.display.table import Table
from mousetrap.errors import MousetrapError
from mousetrap.worker.processor import Processor

STOPPING = "it was asked to stop: it finishes its messages and begins no other"
LONG_HANDLING = 60.0  # seconds after which `problem` says how long a message has been handled


@dataclass(frozen=True)
class Statistics:
    """What a worker has done so far; counts are messages since it started."""

    state: str  # connecting, open, blocked, failed, closed
    received: int  # deliveries, repeated ones included
    done: int  # handled, outputs confirmed
    retried: int  # failed and sent to a retry queue, confirmed
    dead: int  # failed and sent to the dead queue, confirmed
    in_progress: int  # begun, and the broker has not confirmed an outcome yet
    prefetched: int  # delivered by the broker and not begun
    prefetch: int  # how many messages may be delivered and not acked, at present
    reconnects: int
    alive: bool  # started, neither closed nor unable to go on
    connected: bool  # both connections are open, perhaps blocked by an alarm
    consuming: bool  # the broker delivers messages, and they are handled
    problem: str  # what it is waiting for, or the last thing that went wrong; "" when all is well
    # seconds for which the oldest message in progress has been handled, on the monotonic clock; 0.0
    # without a message in progress
    oldest: float = 0.0
    stuck: int = 0  # handlers that were given up after a time-out and still run
    dropped_answers: int = 0  # answers to requests that the broker did not accept

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def table(self, worker: str = "", queues: Sequence[tuple[str, object]] = ()) -> Table:
        """Return the figures of *worker*: a problem first, then what it reads and writes."""
        figures = {name: value for name, value in asdict(self).items() if value != ""}
        first = [(name, figures.pop(name)) for name in ("problem", "state") if name in figures]
        figures["oldest"] = duration(self.oldest) if self.oldest else None
        rows = [(name, yes_or_no(value)) for name, value in [*first, *queues, *figures.items()]]
        counts = f"{self.done:,} done, {self.retried:,} retried, {self.dead:,} dead"
        return Table(("", ""), rows, f"{f'worker {worker}' if worker else 'a worker'}: {counts}")


def collect(
    processor: Processor,
    consumes: Connection,
    publishes: Connection,
    error: MousetrapError | None,
    *,
    is_started: bool,
    prefetch: int,
    queue_problem: str,
) -> Statistics:
    """Return the figures of a worker that has these parts, and has ended because of *error*.

    *queue_problem*: what is wrong with its queues; it may explain the other problem.
    """
    counts = processor.snapshot()
    alive = is_started and error is None and consumes.state != "closed"
    problem = str(error or "") or processor.problem
    if consumes.state not in ("open", "closed"):
        problem = problem or str(consumes.error or consumes.state)
    problem = "; ".join(filter(None, (problem, queue_problem)))
    oldest = processor.attempts.oldest
    if not problem and oldest >= LONG_HANDLING:
        problem = f"the oldest message in progress has been handled for {oldest:,.0f} s"
    if not problem and alive and processor.is_stopping:
        problem = STOPPING
    is_blocked = consumes.is_open and publishes.state == "blocked"
    connected = consumes.is_open and publishes.is_open
    return Statistics(
        state="failed" if error else "blocked" if is_blocked else consumes.state,
        alive=alive,
        connected=connected,
        # open means that the broker has accepted the consumer
        consuming=alive and connected and not processor.is_stopping,
        prefetched=max(0, processor.unacked - counts["in_progress"]),
        prefetch=prefetch,
        reconnects=consumes.reconnects + publishes.reconnects,
        problem=problem,
        oldest=round(oldest, 3),
        stuck=processor.executor.stuck_for(0.0),
        dropped_answers=processor.answers.dropped,
        **counts,
    )


def load_of(processor: Processor) -> tuple[int, bool]:
    """Return how many messages are in progress, and whether a handler has nothing to do."""
    return processor.in_progress, processor.executor.is_idle

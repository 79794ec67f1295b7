"""Runs a function on the messages of a queue: its connections, its life, what it says of itself.

What becomes of each message is `mousetrap.worker.processor`'s. Prototyped in
``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.publisher import Publisher
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import MousetrapError
from mousetrap.model.message import Message
from mousetrap.model.topology import AnyDeclaration, Exchange, Queue
from mousetrap.runtime import clock, threads
from mousetrap.runtime.interrupt import INTERRUPTED_TIMEOUT, run_uninterrupted
from mousetrap.settings import Settings
from mousetrap.worker.consumer_discovery import PATIENCE, Attached, ConsumerDiscovery, here, note
from mousetrap.worker.handler import Handler
from mousetrap.worker.processor import Processor

log = logging.getLogger("mousetrap.worker.worker")

_started: weakref.WeakSet[Worker] = weakref.WeakSet()
GRACE = 10.0  # seconds for what is in hand when a worker is stopped


@dataclass(frozen=True)
class Statistics:
    """What a worker has done so far; counts are messages since it started."""

    state: str  # connecting, open, blocked, failed, closed
    received: int  # deliveries, repeated ones too
    done: int  # handled, outputs confirmed
    retried: int  # failed and sent to a retry queue, confirmed
    dead: int  # failed and sent to the dead queue, confirmed
    in_progress: int  # taken and without a fate yet
    prefetched: int  # handed over by the broker and not begun
    reconnects: int
    alive: bool  # started, neither closed nor unable to go on
    connected: bool  # both connections are open, perhaps blocked by an alarm
    consuming: bool  # the broker hands over messages, and they are taken
    problem: str  # what it is waiting for, or the last thing that went wrong; "" when all is well


class Worker:
    """Runs *handler* on each message of *queue* and sends its results to the queue *writes*.

    *handler* is a plain function or coroutine function of one argument (see `handler`); it may
    raise `Reject` to bury a message at once; any other error is retried as ``queue.retry_delays``
    say and then buried. *concurrency* is how many messages are handled at a time; *prefetch* how
    many the broker may hand over beyond the acked ones (default: twice the concurrency, at least
    16, so that the next message is here when a hand is free). An ack takes a few milliseconds, and
    so many messages are on their way in that time: for handlers quicker than a millisecond 256 is
    three times as fast (measured), for slow ones it would keep messages from other workers.

    Two connections: one consumes, one publishes, because a broker with a memory alarm stops
    reading from connections that publish, and acks must still get through. Both live on one I/O
    thread: what the one hears is what makes the other speak.

    Threads: every method from any thread; `stop` not from inside a handler.
    """

    def __init__(
        self,
        queue: Queue | str,
        handler: Callable[..., Any] | Handler,
        settings: Settings | None = None,
        *,
        writes: str | None = None,
        concurrency: int = 1,
        prefetch: int | None = None,
    ) -> None:
        if concurrency < 1 or (prefetch is not None and not 1 <= prefetch <= 65_535):
            raise ValueError("concurrency must be at least 1 and prefetch lie in 1..65535")
        self.queue = Queue(queue) if isinstance(queue, str) else queue
        self.settings = settings or Settings.from_environment()
        self.concurrency = concurrency
        self.prefetch = prefetch or max(16, 2 * concurrency)
        self.error: MousetrapError | None = None  # why it stopped for good
        topology = self.settings.topology
        declarations: list[AnyDeclaration] = [*topology.declarations(self.queue)]
        if writes is not None:
            declarations.append(topology.work_queue(writes))
        io_thread = IOThread(f"worker {self.queue.name}")
        self._publisher = Publisher(
            self.settings,
            f"worker {self.queue.name} publishes",
            on_failed=self.failed,
            io_thread=io_thread,
        )
        self._processor = Processor(
            self.queue,
            handler if isinstance(handler, Handler) else Handler(handler),
            self.settings,
            self._publisher,
            declarations,
            writes=writes,
            concurrency=concurrency,
            on_crash=self._crashed,
        )
        name = topology.wire_name(self.queue.name)
        self._discovery = ConsumerDiscovery(self.settings, name, self._publisher)
        self._discovery.stage = self.handler.name
        self._consumer = self._processor.consumer = Consumer(
            self.settings,
            name,
            self.prefetch,
            declarations,
            on_delivery=self._processor.take,
            on_failed=self.failed,
            quarantine=topology.wire_name(self.queue.quarantine),
            exclusive_queue=self._discovery.own_queue,
            io_thread=io_thread,
        )
        self._publisher.declare(declarations)
        if topology.events_exchange:
            self._publisher.declare([Exchange(topology.events_exchange)])
        self._changed = self._processor.changed  # rings when the worker ends, too
        self._lock = threads.Lock()  # guards `error`
        self._is_started = False
        self._closing = threads.Lock()  # who stops it a second time waits for the first

    # ---- life ----------------------------------------------------------------------------------

    def start(self) -> Worker:
        """Connect and begin to consume; returns when the broker has accepted the consumer.

        Safe to call twice, so that ``with stage.start() as worker`` works.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: it did not start; nothing is left.
        """
        if self._is_started:
            return self
        self._is_started = True
        _started.add(self)
        try:
            self._publisher.open()
            self._processor.executor.start()
            self._consumer.open()
            self._discovery.is_deaf = False
            note(self.settings, self._consumer.queue, +1)
        except BaseException:
            _started.discard(self)
            # interrupted when it had just begun, it may have a message in hand: it is finished
            has_begun = self._consumer.connection.is_open
            run_uninterrupted((lambda: self._stop(GRACE)) if has_begun else self._abandon)
            raise
        return self

    def swap(self, handler: Callable[..., Any] | Handler) -> None:
        """Have *handler* take the messages from the next one on; those in hand end as they began.

        Raises:
            TypeError: it takes no message, or one of the two is a coroutine function and the
                other is not: that needs a new worker.
        """
        new = handler if isinstance(handler, Handler) else Handler(handler)
        if new.is_async is not self.handler.is_async:
            raise TypeError(
                f"{new.name} and {self.handler.name} are not both plain functions, nor both "
                f"coroutine functions: stop this worker and start another"
            )
        self._processor.handler = new
        self._discovery.stage = new.name

    def stop(self, timeout: float = GRACE) -> None:
        """Finish the messages in hand, then close; what was not begun goes back to its queue.

        An interrupt ends the waiting; the worker stops all the same.

        Raises:
            TimeoutError: a handler still ran, or the broker had not confirmed its outputs, after
                *timeout* seconds; that message will be delivered again, so it may be done twice.
        """
        run_uninterrupted(lambda: self._stop(timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker has stopped for good; say whether it has.

        Raises:
            MousetrapError: what stopped it.
        """
        self._changed.wait_for(lambda: self.error is not None or self.is_stopping, timeout)
        if self.error is not None:
            raise self.error
        return self.is_stopping

    def wait_until(self, *, timeout: float = 30.0, **counts: int) -> Statistics:
        """Wait until each named count is reached: ``worker.wait_until(done=10, dead=1)``.

        Raises:
            TimeoutError: not in *timeout* seconds; says how far it got.
            MousetrapError: the worker stopped for good.
        """
        reached = self._changed.wait_for(
            lambda: (
                self.error is not None
                or all(self._processor.counts[name] >= number for name, number in counts.items())
            ),
            timeout,
        )
        if self.error is not None:
            raise self.error
        if not reached:
            raise TimeoutError(f"waited {timeout:g} s for {counts}; so far: {self.statistics()}")
        return self.statistics()

    def statistics(self) -> Statistics:
        """Count what has happened so far."""
        counts, error = self._processor.tally(), self.error
        problem = str(error or "") or self._processor.problem
        connection, other = self._consumer.connection, self._publisher.connection
        if connection.state not in ("open", "closed"):
            problem = problem or str(connection.error or connection.state)
        is_blocked = connection.is_open and other.state == "blocked"  # it is who publishes
        alive = self._is_started and error is None and connection.state != "closed"
        connected = connection.is_open and other.is_open
        return Statistics(
            state="failed" if error else "blocked" if is_blocked else connection.state,
            alive=alive,
            connected=connected,
            # open means that the broker has accepted the consumer
            consuming=alive and connected and not self.is_stopping,
            prefetched=max(0, self._consumer.unacked - counts["in_progress"]),
            reconnects=connection.reconnects + other.reconnects,
            problem=problem,
            **counts,
        )

    def attached(self, patience: float = PATIENCE) -> Attached | None:
        """Say who consumes the queue; None if the broker does not answer in *patience* seconds.

        Takes a few milliseconds, or *patience* if somebody else consumes it and is silent.
        """
        consumers = self._consumer.count(patience)
        if consumers is None:
            return None
        ours = min(consumers, here(self.settings, self._consumer.queue))
        others = self._discovery.ask(consumers - ours, patience) if consumers > ours else ()
        return Attached(consumers, ours, others[: consumers - ours])

    @property
    def handler(self) -> Handler:
        """What takes the next message."""
        return self._processor.handler

    @property
    def writes(self) -> str | None:
        """The queue that results are sent to, by its plain name."""
        return self._processor.writes

    @property
    def around(self) -> Callable[[Message], AbstractContextManager[object]]:
        """The context manager in which each message is handled; set it before the start."""
        return self._processor.around

    @around.setter
    def around(self, context: Callable[[Message], AbstractContextManager[object]]) -> None:
        """Have each message handled in *context*."""
        self._processor.around = context

    @property
    def failures(self) -> deque[tuple[str, BaseException]]:
        """The latest errors of handlers, each with its message's id."""
        return self._processor.failures

    @property
    def broker(self) -> str:
        """What the broker calls itself, as ``RabbitMQ 4.3.6``; empty before the start."""
        return self._consumer.connection.product

    @property
    def is_stopping(self) -> bool:
        """It was told to stop, and has stopped or will have soon."""
        return self._processor.is_stopping

    @property
    def unacked(self) -> int:
        """How many deliveries it holds, begun or not, that are not acked yet."""
        return self._consumer.unacked

    @property
    def is_recovering(self) -> bool:
        """Its connection broke, and what it held may not have been given out again so far."""
        return self._consumer.connection.is_recovering

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _repr_html_(self) -> str:
        now = dataclasses.asdict(self.statistics())
        facts = [(name, value) for name, value in now.items() if value != ""]
        return Table(("worker", self.handler.name), [*self._way(), *facts])._repr_html_()

    def _way(self) -> list[tuple[str, str]]:
        return [("reads", self.queue.name), *([("writes", self.writes)] if self.writes else [])]

    def __repr__(self) -> str:
        now = self.statistics()
        way = f"{self.queue.name} → {self.handler.name}" + f" → {self.writes}" * bool(self.writes)
        counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
        return f"<Worker {safe(way)}: {now.state}, {counts}, {now.in_progress} in progress>"

    def _stop(self, timeout: float) -> None:
        with self._closing:
            self._finish(timeout)

    def _finish(self, timeout: float) -> None:
        deadline = clock.monotonic() + timeout
        self._processor.is_stopping = True  # hands drop what they have not begun
        self._changed.notify_all()
        self._consumer.cancel()  # first: nothing new may arrive while we finish
        self._be_gone()
        finished = self._processor.executor.stop(timeout)
        # before closing: an unconfirmed output is an unacked job
        finished &= self._changed.wait_for(
            # or its channel is gone: then it comes again whatever we wait for
            lambda: (
                self._processor.in_progress == 0
                or self.error is not None
                or not self._consumer.connection.is_open
            ),
            clock.remaining(deadline),
        )
        self._consumer.close(max(1.0, clock.remaining(deadline)))
        self._publisher.close(max(1.0, clock.remaining(deadline)))
        if not finished:
            raise TimeoutError(
                f"worker of {self.queue.name!r} still had {self._processor.in_progress} messages "
                f"in progress after {timeout:g} s; they will be delivered again"
            )

    def _be_gone(self) -> None:
        """Not to be counted any more."""
        if not self._discovery.is_deaf:
            self._discovery.is_deaf = True
            note(self.settings, self._consumer.queue, -1)

    def _abandon(self) -> None:
        self._processor.is_stopping = True
        self._consumer.close(INTERRUPTED_TIMEOUT)
        self._publisher.close(INTERRUPTED_TIMEOUT)
        self._processor.executor.stop(INTERRUPTED_TIMEOUT)

    # ---- what ends it --------------------------------------------------------------------------

    def failed(self, error: MousetrapError) -> None:
        """Take note that there is no way to go on; whoever waits for this worker gets *error*."""
        with self._lock:
            if self.error is None and not self.is_stopping:
                log.error("worker of %r stopped: %s", self.queue.name, error)
                self.error = error
                self._processor.has_failed = True
        self._changed.notify_all()

    def _crashed(self, error: BaseException) -> None:
        problem = MousetrapError(f"a hand of {self.handler.name} died of {error!r}; a defect")
        problem.__cause__ = error
        self.failed(problem)


def running() -> list[Worker]:
    """The workers of this process that were started and have not ended."""
    return [each for each in list(_started) if each.statistics().state not in ("failed", "closed")]

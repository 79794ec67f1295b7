"""A worker, which calls a function with each message of a queue: its connections, start and stop.

What is done with each message is in `mousetrap.worker.processor`. Prototyped in
``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.lost_queues import LostQueues
from mousetrap.amqp.prefetch import new_prefetch
from mousetrap.amqp.queues_on_demand import QueuesOnDemand
from mousetrap.display.formats import counted
from mousetrap.display.safe_text import repr_of, safe
from mousetrap.errors import ConnectionLost, MousetrapError
from mousetrap.model.targets import OutputTargets, Targets
from mousetrap.model.topology import Queue
from mousetrap.runtime import forks, threads
from mousetrap.runtime.environment import is_kernel
from mousetrap.runtime.interrupt import INTERRUPTED_TIMEOUT, run_uninterrupted, start_in_thread
from mousetrap.settings import Settings
from mousetrap.worker.batching import processor_class
from mousetrap.worker.consumer_discovery import DISCOVERY_TIMEOUT, Attached, ConsumerDiscovery
from mousetrap.worker.handler import Handler
from mousetrap.worker.hooks import Hook, Hooks
from mousetrap.worker.options import check_options, least_prefetch
from mousetrap.worker.publications import new_publisher
from mousetrap.worker.running import started
from mousetrap.worker.statistics import Statistics, collect, load_of
from mousetrap.worker.stopping import finish, one_at_a_time

log = logging.getLogger("mousetrap.worker.worker")

WORKER_STOP_TIMEOUT = 6.0  # seconds for the messages in progress when a worker is stopped


class Worker(forks.OfOneProcess):
    """Calls *handler* with each message of *queue* and sends its results to *writes*.

    *writes* is a queue or several, each of which gets every output; a `Send` goes to the one that
    it names, in *writes* or *routes* (see `mousetrap.model.targets`).

    *handler* is a plain function or a coroutine function of one argument (see
    `mousetrap.worker.handler`). If it raises `Reject`, the message is dead-lettered at once; after
    any other error it is retried with the delays ``queue.retry_delays`` and then dead-lettered.
    *hooks* are called at each step of a message (see `mousetrap.worker.hooks`).

    *timeout* is the time limit of the handler, in seconds. When it is over, the message fails with
    `HandlerTimedOut` and is retried like after any other error; a coroutine is cancelled, and what
    the handler returns later is dropped. When *concurrency* handlers hang beyond the limit, the
    worker ends (see `mousetrap.worker.time_limit`). None: handlers may take as long as they want.

    *concurrency* is how many messages are handled at a time. *prefetch* is how many messages may be
    delivered and not acked yet. By default it follows the work: one more than are handled at a time
    if handlers are slow, so that other workers get the rest; as many as arrive during one round
    trip to the broker if they are quick (see `mousetrap.amqp.prefetch`). For batches it is at
    least twice what is handled at a time.

    A worker has two connections, one that consumes and one that publishes, because a broker with a
    memory alarm stops reading from connections that publish, and acks must still reach it. Both
    live on *io_thread*, because what arrives on one makes the other one send; default: a new one.

    Threads: every method from any thread; `stop` not from inside a handler.
    """

    def __init__(
        self,
        queue: Queue | str,
        handler: Callable[..., Any] | Handler,
        settings: Settings | None = None,
        *,
        writes: Targets = None,
        routes: Targets = None,
        concurrency: int = 1,
        prefetch: int | None = None,
        timeout: float | None = None,
        hooks: Iterable[Hook] = (),
        io_thread: IOThread | None = None,
    ) -> None:
        handler = Handler.of(handler)
        check_options(concurrency, prefetch, timeout, handler.batch)
        least = least_prefetch(concurrency, handler.batch)
        self.queue = Queue(queue) if isinstance(queue, str) else queue
        self.settings = settings or Settings.from_environment()
        self.concurrency, self.prefetch, self.timeout = concurrency, prefetch, timeout
        self.error: MousetrapError | None = None  # why it stopped for good
        self._hooks = Hooks(self.queue.name, hooks)
        topology = self.settings.topology
        targets = OutputTargets(writes, routes)
        declarations = topology.of_worker(self.queue, targets.as_queues(), targets.exchanges)
        name = topology.wire_name(self.queue.name)
        io_thread = io_thread or IOThread(f"worker {self.queue.name}")
        self._failure_queues = QueuesOnDemand(topology.failure_queues(self.queue))
        self._lost_queues = LostQueues(topology.not_theirs(self.queue, *targets.as_queues()))
        self._publisher = new_publisher(
            self.settings, self.queue.name, declarations, self._failure_queues, self.fail,
            io_thread, self._lost_queues,
        )  # fmt: skip
        self._discovery = ConsumerDiscovery(self.settings, name, self._publisher, self._held)
        self._consumer = Consumer(
            self.settings,
            name,
            new_prefetch(prefetch, least, lambda: load_of(self._processor)),
            declarations,
            on_delivery=lambda delivery: self._processor.submit(delivery),
            on_failed=self.fail,
            on_reconnected=self._on_reconnected,
            being_handled=lambda: self._processor.executor.busy(),
            quarantine=topology.wire_name(self.queue.quarantine),
            on_demand=self._failure_queues,
            exclusive_queue=self._discovery.own_queue,
            io_thread=io_thread,
            lost_queues=self._lost_queues,
        )
        self._processor = processor_class(handler)(
            self.queue, handler, self.settings, self._publisher, self._consumer,
            declarations, discovery=self._discovery, targets=targets, concurrency=concurrency,
            timeout=timeout, hooks=self._hooks, on_crash=self._on_crash, on_stuck=self._on_stuck,
        )  # fmt: skip
        self._changed = self._processor.changed  # also notified when the worker ends
        self._lock = forks.released_in_child(threads.Lock())  # guards `error`, `_has_stopped`
        self._is_started = self._has_stopped = self._is_parents = False
        self._failure_level = logging.DEBUG  # until it has started: `start` raises the error
        self._closing = forks.released_in_child(threads.Lock())  # a second `stop` waits
        forks.watch(self)

    # ---- life ----------------------------------------------------------------------------------

    def start(self) -> Worker:
        """Connect and begin to consume; returns when the broker has accepted the consumer.

        Safe to call while it runs, so that ``with stage.start() as worker`` works.

        Raises:
            WireError: it did not start, and its connections are closed; mostly BrokerUnreachable,
                AccessRefused or TopologyMismatch.
            RuntimeError: it has ended, or did not start before: a worker runs once.
        """
        return self._start(WORKER_STOP_TIMEOUT)

    def _start(self, stop_timeout: float, *, process_ends: bool = False) -> Worker:
        if self._is_started and self.is_stopping:
            raise RuntimeError(f"the worker of {self.queue.name!r} has ended: make a new one")
        if self._is_started:
            return self
        self._is_started = True
        started.add(self)
        try:
            self._publisher.open()
            self._processor.start()
            self._consumer.open()
            self._discovery.start_answering(self.handler.name)
            self._failure_level = logging.ERROR
        except BaseException:
            started.discard(self)
            # if it was interrupted just after it began, finish the messages that are in progress
            has_begun = self._consumer.connection.is_open
            stop = lambda: self._stop(stop_timeout, process_ends=process_ends)  # noqa: E731 -- short
            run_uninterrupted(stop if has_begun else self._abandon)
            raise
        return self

    def add_hook(self, hook: Hook) -> None:
        """Have *hook* called at each step of a message, after the hooks that are there already.

        Raises:
            RuntimeError: the worker was started before.
            TypeError: it is not an instance of a subclass of `Hook`.
        """
        if self._is_started:
            raise RuntimeError(
                f"the worker of {self.queue.name!r} was started before: add hooks to a new worker"
            )
        self._hooks.add(hook)

    def swap(self, handler: Callable[..., Any] | Handler) -> None:
        """Call *handler* from the next message on; messages in progress keep the old handler.

        Raises:
            TypeError: it takes no message, or one of the two is a coroutine function, or handles
                batches, and the other is not: that needs a new worker.
        """
        new = Handler.of(handler)
        new.check_replaces(self.handler)
        self._processor.swap(new)
        self._discovery.rename(new.name)

    def stop(self, timeout: float = WORKER_STOP_TIMEOUT, *, process_ends: bool = False) -> None:
        """Finish the messages in progress, give the others back, then close.

        A message whose handler still runs after *timeout* seconds is given back, too: a copy with
        the same id and the same counts is published to its queue. What the handler returns later is
        dropped. Messages that were not begun keep their place in the queue, unless another process
        may receive them next: because *process_ends*, or because another one consumes the queue.

        Returns at most one second after *timeout*, whatever the broker does; with *process_ends*
        at most two. An interrupt ends the waiting only; the worker still stops.

        Raises:
            TimeoutError: the broker did not confirm a message that was given back. It will be
                delivered again, and counts as held by a worker that was lost.
        """
        if not self._is_parents:  # it does not run in the process that forked this one
            run_uninterrupted(lambda: self._stop(timeout, process_ends=process_ends))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until `stop` was called or the worker cannot go on; return whether it was called.

        Raises:
            MousetrapError: the reason why it cannot go on.
        """
        self._changed.wait_for(lambda: self.error is not None or self.is_stopping, timeout)
        if self.error is not None:
            raise self.error
        return self.is_stopping

    def wait_until(self, *, timeout: float = 30.0, **counts: int) -> Statistics:
        """Wait until each named count is reached: ``worker.wait_until(done=10, dead=1)``.

        Raises:
            TimeoutError: not within *timeout* seconds; its text has the counts so far.
            MousetrapError: the worker cannot go on.
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
        """Return the counts and the state of this moment."""
        return collect(
            self._processor, self._consumer.connection, self._publisher.connection, self.error,
            is_started=self._is_started, prefetch=self._consumer.prefetch.number,
            queue_problem=self._lost_queues.problem or self._failure_queues.problem,
        )  # fmt: skip

    def attached(self, timeout: float = DISCOVERY_TIMEOUT) -> Attached | None:
        """Return what consumes the queue; None if the broker does not answer in *timeout* seconds.

        Takes a few milliseconds, or *timeout* if a consumer in another process does not answer.
        """
        return self._discovery.attached(self._consumer.count, timeout)

    @property
    def handler(self) -> Handler:
        """The handler of the next message."""
        return self._processor.handler

    @property
    def targets(self) -> OutputTargets:
        """Where its outputs are sent."""
        return self._processor.targets

    @property
    def writes(self) -> Any:
        """The target of its plain outputs, as a plain name if it is a queue; several: a tuple."""
        return self.targets.given

    @property
    def failures(self) -> deque[tuple[str, BaseException]]:
        """The latest errors of handlers, each with the id of its message."""
        return self._processor.failures

    @property
    def broker(self) -> str:
        """What the broker calls itself, as ``RabbitMQ 4.3.6``; empty before the start."""
        return self._consumer.connection.product

    @property
    def is_stopping(self) -> bool:
        """Whether it is stopping or has stopped."""
        return self._processor.is_stopping

    @property
    def given_back(self) -> int:
        """How many messages went back to their queue when it stopped, although they were begun."""
        return self._processor.give_back.begun

    @property
    def abandoned(self) -> int:
        """How many handlers were not waited for, whether they have returned since or not."""
        return self._processor.executor.abandoned

    @property
    def unacked(self) -> int:
        """How many deliveries, begun or not, are not acked yet."""
        return self._consumer.unacked

    @property
    def is_recovering(self) -> bool:
        """Its connection broke, and the broker may not have delivered its messages again yet."""
        return self._consumer.connection.is_recovering

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        ends = kind is not None and not issubclass(kind, Exception)  # Ctrl-C, sys.exit
        self.stop(process_ends=ends and not is_kernel())

    def _repr_html_(self) -> str:
        queues = [("reads", self.queue.name), ("writes", self.targets.names)]
        return self.statistics().table(self.handler.name, queues)._repr_html_()

    def __repr__(self) -> str:
        now = self.statistics()
        way = f"{self.queue.name} → {self.handler.name}{self.targets}"
        counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
        return f"<Worker {safe(way)}: {now.state}, {counts}, {now.in_progress} in progress>"

    def _held(self) -> tuple[int, int, int]:
        """Return how many messages it holds, or may get again; has received; and may hold."""
        held = max(self.unacked, int(self.is_recovering))
        return held, self._processor.counts["received"], self._consumer.prefetch.number

    def _stop(self, timeout: float, *, process_ends: bool = False) -> None:
        with one_at_a_time(self._closing, timeout, self.queue.name):
            is_first = self._consumer.connection.state != "closed"
            left = finish(
                self._processor, self._consumer, self._publisher, self._discovery, timeout,
                process_ends=process_ends,
            )  # fmt: skip
        self._call_stopped(self.error)
        if is_first and (given_back := self.given_back - left):
            log.warning("worker of %r: not finished after %g s and given back to the queue: %s",
                        self.queue.name, timeout, counted(given_back, "message"))  # fmt: skip
        if left:
            raise TimeoutError(
                f"worker of {self.queue.name!r} still had {counted(left, 'message')} in progress "
                f"after {timeout:g} s, and the broker did not confirm that they were given back; "
                f"they will be delivered again"
            )

    def _abandon(self) -> None:
        self._processor.stop()
        self._consumer.close(INTERRUPTED_TIMEOUT)
        self._publisher.close(INTERRUPTED_TIMEOUT)
        self._processor.executor.stop(INTERRUPTED_TIMEOUT)

    def _call_stopped(self, error: MousetrapError | None) -> None:
        with self._lock:
            is_first, self._has_stopped = not self._has_stopped, True
        if is_first and self._hooks.stopped:
            self._hooks.call(self._hooks.stopped, error)

    # ---- called by the parts -------------------------------------------------------------------

    def _on_reconnected(self) -> None:
        self._processor.time_limit.replace_timed_out()
        if self._hooks.reconnected:
            self._hooks.call(self._hooks.reconnected)

    def fail(self, error: MousetrapError) -> None:
        """Record that the worker cannot go on because of *error*; threads that wait raise it."""
        self._fail(error, can_publish=False)

    def _fail(self, error: MousetrapError, *, can_publish: bool) -> bool:
        with self._lock:
            is_first = self.error is None and not self.is_stopping
            if is_first:
                log.log(self._failure_level, "worker of %r stopped: %s", self.queue.name, error)
                self.error = error
                if not can_publish:
                    self._processor.fail()
        self._changed.notify_all()
        if is_first:
            self._call_stopped(error)
        return is_first

    def _on_stuck(self, error: MousetrapError) -> None:
        if self._fail(error, can_publish=True):
            # whatever the process does now: its messages must not wait here
            start_in_thread(lambda: self._stop(WORKER_STOP_TIMEOUT, process_ends=True), daemon=True)

    def forked(self) -> None:
        """Do nothing more in a forked child: the worker runs in its parent."""
        if self._is_started:
            self._is_parents = True
            where = f"the worker of {self.queue.name!r} runs in the process that forked this one"
            self.error = ConnectionLost(f"{where}: start another after the fork")

    def _on_crash(self, error: BaseException) -> None:
        what = f"a thread that calls {self.handler.name} ended with {repr_of(error)}: a defect"
        problem = MousetrapError(what)
        problem.__cause__ = error
        self.fail(problem)

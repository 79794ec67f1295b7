"""One execution of a flow, separate from all others, with an end that can be waited for.

A run has its own namespace. It starts the workers of its stages, receives the outcome of every
attempt through a queue that it binds before its first message, and deletes its queues at the end.
Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.formats import counted
from mousetrap.display.notices import print_notice
from mousetrap.display.safe_text import safe
from mousetrap.errors import BrokerUnreachable, MousetrapError, QueuesLost, RunError, SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.flows.recording import Recording
from mousetrap.flows.stage import Stage, with_delays
from mousetrap.model.delays import SendOptions
from mousetrap.model.ledger import Ledger
from mousetrap.model.message_list import Messages
from mousetrap.model.one_or_many import many
from mousetrap.model.summary import RunSummary
from mousetrap.model.targets import Target
from mousetrap.model.topology import Queue
from mousetrap.runs.figures import RunFigures
from mousetrap.runs.holders import Holders
from mousetrap.runs.job_sender import JobSender
from mousetrap.runs.run_calls import RunCalls
from mousetrap.runs.run_marker import MARKER, RunMarker
from mousetrap.runs.run_queues import RunQueues
from mousetrap.runs.send_recording import send_recording
from mousetrap.runs.settle import Settlement
from mousetrap.runs.workers import RunWorkers, WorkerKind
from mousetrap.runtime import clock, randomness
from mousetrap.runtime.interrupt import run_at_once, run_uninterrupted
from mousetrap.settings import Settings

if TYPE_CHECKING:
    from mousetrap.broker import Broker
    from mousetrap.worker.supervisor import Supervisor
    from mousetrap.worker.worker import Worker

log = logging.getLogger("mousetrap.runs.run")

EVENTS_PREFETCH = 500  # messages, each with many outcomes; a guess
_started: weakref.WeakSet[Run] = weakref.WeakSet()


class Run(RunFigures, RunCalls):
    """One execution of *flow* (a list of stages, a single stage, or a module that contains them).

    *workers* says where the workers run: on ``"threads"`` of this process; in ``"processes"``, with
    *processes* for each stage (a number, or a number by stage name); or ``"none"``, if you start
    workers elsewhere, with this run's `settings`. *concurrency*, *prefetch*, *retry_delays* and
    *timeout* (seconds) replace the stages' own. Bodies of up to *keep_bodies* bytes are kept, for
    `save`. Without *settings* the run uses the broker of `mousetrap.broker.ensure`.

    As a context manager it starts and stops the workers. When the block ends without an exception,
    all queues of the run are deleted; when it raises, they stay, so that you can look at them,
    until `mousetrap sweep`. After ``settings.queue_expiry`` seconds without use, most expire.

    Raises:
        SettingsError: an argument cannot work, or events are switched off.

    Threads: every method from any thread.
    """

    def __init__(
        self,
        flow: Flow | Stage[..., Any] | Iterable[Stage[..., Any]] | ModuleType,
        settings: Settings | None = None,
        *,
        workers: WorkerKind = "threads",
        processes: int | Mapping[str, int] = 1,
        concurrency: int | None = None,
        prefetch: int | None = None,
        retry_delays: tuple[float, ...] | None = None,
        timeout: float | None = None,
        keep_bodies: int = 0,
    ) -> None:
        if workers not in ("threads", "processes", "none"):
            raise SettingsError(f"workers is {workers!r}: use 'threads', 'processes' or 'none'")
        self.flow = Flow(flow)
        self._broker = None if settings else _ensure_broker()
        base = settings or (self._broker.settings if self._broker else Settings())
        if not base.events_exchange:
            raise SettingsError("a run needs events: MOUSETRAP_EVENTS_EXCHANGE must not be ''")
        self.namespace = f"{base.namespace[:31] or 'run'}-{randomness.new_id()[:8]}"
        changes: dict[str, Any] = {"keep_bodies": keep_bodies, "queues_expire": True}
        self.settings = base.replace(namespace=self.namespace, **changes)
        self.ledger = Ledger([*self.flow.reads, *self.flow.collects], self.flow.routed)
        queues = [with_delays(each.queue, retry_delays) for each in self.flow.stages]
        self._queues = RunQueues(self.settings, self.flow, queues, self.ledger)
        delays_and_limit = {"retry_delays": retry_delays, "timeout": timeout}
        options = {"concurrency": concurrency, "prefetch": prefetch, **delays_and_limit}
        # one for all connections: an outcome is mostly read in the turn in which it is confirmed
        io = IOThread(f"run {self.namespace}")
        self._workers = RunWorkers(self.flow.stages, workers, processes, self.settings, options, io)
        self._state, self._process = "new", 0  # of the process that started it; a fork is another
        self.queues_lost: QueuesLost | None = None  # why the run cannot go on
        self._product = ""
        own = self._queues
        self._sender = JobSender(self.settings, self.ledger, own.known, own.add, io)
        holders = Holders(self.settings, self._sender.publisher)
        self._settlement = Settlement(
            self.namespace, self.ledger, self._sender, self.flow, queues, self._workers,
            depths=self._queues.depths, holders=holders, settings=self.settings,
            look=lambda: self._marker.look(), delay_queues=own.delay_queues,
        )  # fmt: skip
        self._events = Consumer(
            self.settings,
            self.settings.topology.wire_name("events"),
            EVENTS_PREFETCH,
            self._queues.declarations(),
            on_delivery=self._on_event,
            on_failed=self._settlement.fail,
            exclusive_queue=holders.own_queue,
            io_thread=io,
        )
        self._queues.count_over(self._events.connection)
        self._marker = RunMarker(self.settings, self._on_queues_lost)
        self._events.watch(self.settings.topology.wire_name(MARKER), self._marker.on_count)

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> Run:
        """Declare the queues, consume the events, start the workers. Safe to call while it runs.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: the run did not start, and nothing
                of it is left.
            RunError: another process has this namespace (see `RunLock`), or the run has ended.
        """
        if self._state == "closed":
            self._require_open()
        if self._state != "new":
            return self
        self._state, self._process = "open", os.getpid()
        _started.add(self)
        try:
            self._queues.claim()
            self._sender.publisher.declare(self._queues.declarations())
            # before the workers: no outcome may be published before its queue is bound
            run_at_once([self._events.open, self._sender.publisher.open])
            self._product = _described(self._events.connection.product)
            self._queues.note_broker(self._product)
            self._marker.put(self._sender.publisher)
            self._workers.start()
        except BaseException as error:  # without a broker there is nothing to delete
            has_begun = self._events.connection.product or self._sender.publisher.connection.product
            is_nothing_there = not has_begun and isinstance(error, BrokerUnreachable)
            with suppress(MousetrapError, TimeoutError):  # the first error explains more
                self.stop(keep_queues=is_nothing_there and self._queues.forget())
            raise
        return self

    def stop(self, *, keep_queues: bool = False) -> None:
        """Stop the workers, close the connections and delete the queues. Safe to call twice.

        With *keep_queues* the queues stay until `mousetrap sweep` or their expiry. An interrupt
        ends the wait for handlers; everything is still closed and deleted. In a forked child of the
        process that started the run it does nothing. Handlers have 6 seconds to end (in processes
        15), then the broker has 10 to delete the queues: it takes no longer.

        Raises:
            TimeoutError: a handler did not end in time, nor could its message be given back.
            BrokerUnreachable, ConnectionLost: the broker did not answer; the queues stay.
        """
        if self.state in ("closed", "new"):
            return
        self._state = "closed"
        run_uninterrupted(lambda: self._stop(keep_queues))

    def _stop(self, keep_queues: bool) -> None:
        # The last step that is added runs first; an error in one does not stop the others.
        with ExitStack() as steps:
            if self._broker is not None:
                steps.callback(self._broker.close)
            steps.callback(self._queues.release)
            steps.callback(self._queues.end, self._sender.publisher, self._events, keep_queues)
            steps.callback(self._workers.stop)

    def __enter__(self) -> Run:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.state == "open":
            print_notice(self._queues.kept_text())
        self.stop(keep_queues=kind is not None)

    # ---- sending and waiting ---------------------------------------------------------------------

    def send(self, data: Any = None, to: Target | None = None, **options: float | None) -> Receipt:
        """Send one job, by default to the flow's entry queue; without *data* the body is empty.

        *options* are ``delay``, ``priority`` and ``expires``, as in `mousetrap.send`; `settle`
        waits for what was sent with a delay.

        Raises:
            SettingsError: *to* is not given, and the flow has several entry queues or none.
            TypeError, ValueError: the data cannot be JSON, or an option is out of range.
            MousetrapError: the run is not open.
        """
        [receipt] = self.send_many([data], to, **options)
        return receipt

    def send_many(
        self, jobs: Iterable[Any], to: Target | None = None, **options: float | None
    ) -> list[Receipt]:
        """Send jobs (data, or whole `Message`s) and return a receipt for each, without waiting.

        *to* and *options* as in `send`.

        Raises:
            TypeError: *jobs* is one value, such as a data frame; the text says what to send.
            Exception: what *jobs* raises, or the error of a value that cannot be JSON. The jobs
                before it are sent and counted, and no other; ``receipts`` of the exception has
                their receipts. The same holds for Ctrl-C.
        """
        jobs = many(jobs, "send_many")
        self._require_open()
        how = SendOptions.checked(**options)
        return self._sender.send_many(jobs, to or self.flow.entry(), how)

    def send_recording(self, recording: Recording, *, speed: float | None = None) -> list[Receipt]:
        """Send the jobs of *recording* again, with their ids.

        All at once, or with *speed* at the recorded intervals divided by it: 2.0 is twice as fast.

        Raises:
            SettingsError: a job's body was not kept.
        """
        return send_recording(self.send_many, recording, speed)

    def settle(self, timeout: float = 60.0, *, fail_fast: bool = False) -> RunSummary:
        """Wait until every message has a final outcome, and return the summary.

        That is: the broker has confirmed all jobs, and each message that came of them is done,
        dead, or a result in a queue that no stage reads. Jobs that the broker did not confirm are
        sent again. With *fail_fast* the first dead letter ends the wait.

        Messages that other programs published to the run's queues count as well: it waits until
        these queues are empty and every worker of the run, in whatever process, answers that it
        holds no message. A consumer of another library cannot be asked what it holds: after five
        seconds without an answer it is not waited for.

        Raises:
            NotSettled: messages have no final outcome after *timeout* seconds; its `table` says
                where each one is.
            MessageDied: a message died, with *fail_fast*; if its handler ran in this process, the
                handler's exception is the ``__cause__``.
            QueuesLost: the queues expired or were deleted, so what was in them cannot settle.
            MousetrapError: a worker, or the connection to the broker, ended for good.
        """
        self._require_own_process()
        self._settlement.wait(timeout, fail_fast=fail_fast)
        return self.summary()

    # ---- results and state ---------------------------------------------------------------------

    def results(self, timeout: float = 10.0, *, queue: str | None = None) -> Messages:
        """Take the messages out of the result queues, which no stage reads, or out of one *queue*.

        Queues to which handlers sent messages themselves are among them. If messages are not there
        that stages published to these queues, and that no earlier call took, then another consumer
        took them, or they were deleted: a warning and the `note` of the list say how many.

        Raises:
            QueuesLost: the queues expired or were deleted; ``taken`` has what is there.
            SettingsError: *queue* is no result queue; the text names those that are.
        """
        self._require_own_process()
        if self._state == "open":
            timeout = max(0.1, timeout - self._marker.ask())
        found = self._queues.take_results(timeout, queue)
        if self.queues_lost is not None:
            vars(self.queues_lost)["taken"] = found
            raise self.queues_lost
        if found.note:
            log.warning("run %s: %s", self.namespace, found.note)
        return found

    @property
    def state(self) -> str:
        """``new``, ``open`` or ``closed``; in a forked child, a run of its parent is closed."""
        return self._state if self._process in (0, os.getpid()) else "closed"

    @property
    def workers(self) -> list[Worker]:
        """The workers on threads of this process; empty if the run uses none."""
        return list(self._workers.threads)

    @property
    def processes(self) -> Supervisor | None:
        """The worker processes of this run; None if it uses none."""
        return self._workers.processes

    @property
    def queues(self) -> list[Queue]:
        """The queue that each stage reads, with the retry delays of this run."""
        return list(self._queues.read_by_stages)

    @property
    def where(self) -> str:
        """The broker in use, for people to read."""
        return str(self._broker or self.settings.url)

    def __repr__(self) -> str:
        stages = " → ".join(stage.name for stage in self.flow.stages)
        summary = self.summary()
        return safe(
            f"<Run {self.namespace} of {stages}: {self.state}, {summary.sent:,} sent, "
            f"{summary.done:,} done, {summary.dead:,} dead, {self.ledger.open:,} open, "
            f"on {self.where}>"
        )

    def _require_open(self) -> None:
        self._require_own_process()
        if self._state != "open":
            way = "make a new one" if self._state == "closed" else "use it in a with block"
            raise RunError(f"the run {self.namespace} is {self._state}: {way}")
        self._marker.look()
        if self.queues_lost is not None:
            raise self.queues_lost

    def _require_own_process(self) -> None:
        if self._process not in (0, os.getpid()):
            raise MousetrapError(
                f"run {self.namespace} belongs to process {self._process}, and this is a forked "
                f"child of it, without its connections: open another run here, or start workers "
                f'with the run\'s settings (workers="none")'
            )

    def _on_queues_lost(self) -> None:
        """End the run: its workers stop with the error that `settle` and `send` raise."""
        if self.state != "open":
            return
        error = QueuesLost(
            f"the queues of run {self.namespace} are gone: they were deleted, or they expired "
            f"because this machine slept, or had no connection, for more than "
            f"{self.settings.queue_expiry:g} s (MOUSETRAP_QUEUE_EXPIRY). "
            f"Lost: {counted(self.ledger.open, 'message')} without a final outcome, and "
            f"{counted(len(self._queues.results_left()), 'result')}. Start a new run"
        )
        self.queues_lost = error
        self._settlement.fail(error)
        log.error("%s", error)
        for worker in self.workers:
            worker.fail(error)

    def _on_event(self, delivery: Delivery) -> None:  # on the I/O thread
        if not self._queues.add_declared(delivery.body):
            self.ledger.add_packed(delivery.body, clock.steady_time())
        self._events.ack(delivery)


def open_runs() -> list[Run]:
    """Return the runs of this process that are open."""
    return [each for each in list(_started) if each.state == "open"]


def _described(product: str) -> str:
    from mousetrap.broker.probe import described  # late, as in `_ensure_broker`

    return described(product)


def _ensure_broker() -> Broker:
    from mousetrap.broker import ensure  # late: a quarter of the time of `import mousetrap`

    return ensure()


def run(
    flow: Flow | Stage[..., Any] | Iterable[Stage[..., Any]] | ModuleType,
    settings: Settings | None = None,
    **options: Any,
) -> Run:
    """Return a `Run` of *flow* with these *options* of `Run`, to use in a ``with`` block.

    with mousetrap.run([fetch, process]) as run:
        run.send_many(FetchJob(seed) for seed in range(100))
        summary = run.settle(timeout=30)
    """
    return Run(flow, settings, **options)

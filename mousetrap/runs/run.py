"""One execution of a flow: apart from all others, settled by facts, and accounted for.

A run has a namespace of its own, starts the workers of its stages, hears every fate by a queue
that it binds before its first message, and takes all of it away at its end. Prototyped in
``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import dataclasses
import sys
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from mousetrap import job_queue
from mousetrap.amqp.consumer import Consumer, Delivery
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import (
    MousetrapError,
    SettingsError,
)
from mousetrap.flows.flow import Flow, reference
from mousetrap.flows.recording import Recording
from mousetrap.flows.stage import Stage
from mousetrap.model import ledger_tables
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message
from mousetrap.model.message_list import Messages
from mousetrap.model.summary import RunSummary
from mousetrap.model.topology import AnyDeclaration, Declaration, Queue
from mousetrap.runs.diagram import Diagram
from mousetrap.runs.job_sender import JobSender
from mousetrap.runs.settle import Settling
from mousetrap.runtime import clock, randomness
from mousetrap.runtime.environment import is_kernel
from mousetrap.runtime.interrupt import finish
from mousetrap.settings import Settings
from mousetrap.worker.supervisor import Supervisor
from mousetrap.worker.worker import Worker

if TYPE_CHECKING:
    from mousetrap.broker import Broker
    from mousetrap.fault_injection.injector import Faults
    from mousetrap.runs.run_lock import RunLock

Workers = Literal["threads", "processes", "none"]

EVENTS_PREFETCH = 500  # bodies full of fates; a guess


_started: weakref.WeakSet[Run] = weakref.WeakSet()


class Run:
    """One execution of *flow* (a list of stages, one alone, or the module that holds them).

    *workers*: ``"threads"`` of this process; ``"processes"``, *processes* of them for each stage
    (a number, or one by stage name); ``"none"`` if others work, with `settings` as theirs.
    *concurrency*, *prefetch* and *retry_delays* (seconds) win over the stages' own. Bodies of up
    to *keep_bodies* bytes are remembered, for `save`. Without *settings* the broker is the one
    that `mousetrap.broker.ensure` comes by.

    As a context manager it starts and stops the workers. When the block ends well, all queues of
    the run are deleted; when it raises, they stay to be looked at until they expire.

    Threads: every method from any thread.
    """

    def __init__(
        self,
        flow: Flow | Stage[..., Any] | Iterable[Stage[..., Any]] | ModuleType,
        settings: Settings | None = None,
        *,
        workers: Workers = "threads",
        processes: int | Mapping[str, int] = 1,
        concurrency: int | None = None,
        prefetch: int | None = None,
        retry_delays: tuple[float, ...] | None = None,
        keep_bodies: int = 0,
    ) -> None:
        if workers not in ("threads", "processes", "none"):
            raise SettingsError(f"workers is {workers!r}: use 'threads', 'processes' or 'none'")
        self.flow = Flow(flow)
        self._broker = None if settings else _ensured()
        base = settings or (self._broker.settings if self._broker else Settings())
        if not base.events_exchange:
            raise SettingsError("a run lives on events: MOUSETRAP_EVENTS_EXCHANGE must not be ''")
        self.namespace = f"{base.namespace[:31] or 'run'}-{randomness.new_id()[:8]}"
        self.settings = base.replace(namespace=self.namespace, keep_bodies=keep_bodies)
        self.ledger = Ledger(self.flow.reads)
        self._queues = [
            each.queue if retry_delays is None else Queue(each.queue.name, retry_delays)
            for each in self.flow.stages
        ]
        self._kind = workers
        self._options: dict[str, Any] = {
            "concurrency": concurrency, "prefetch": prefetch, "retry_delays": retry_delays
        }  # fmt: skip
        self._processes: Supervisor | None = None
        if workers == "processes":
            references = {each.name: reference(each) for each in self.flow.stages}
            self._processes = Supervisor.of(references, processes, self.settings, self._options)
        self._threads: list[Worker] = []
        self._run_lock: RunLock | None = None
        self._state = "new"
        self._product = ""  # what the broker calls itself
        self._sender = JobSender(self.settings, self.ledger)
        self._settling = Settling(self, self._sender)
        self._events = Consumer(
            self.settings,
            self.settings.topology.wire_name("events"),
            EVENTS_PREFETCH,
            self._declarations(),
            on_delivery=self._on_event,
            on_failed=self._on_failed,
        )

    # ---- life ------------------------------------------------------------------------------------

    def start(self) -> Run:
        """Declare the queues, listen to fates, and start the workers. Safe to call twice.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: it did not start; nothing is left.
            SettingsError: a stage that another process cannot run.
        """
        if self._state != "new":
            return self
        self._state = "open"
        _started.add(self)
        try:
            from mousetrap.runs.run_lock import RunLock  # it needs what `_ensured` does

            self._run_lock = RunLock(self.settings, self._wire_names())
            self._events.open()  # first: no fate may come before there is a queue for it
            self._product = _product(self.settings)
            self._sender.publisher.declare(self._declarations())
            self._sender.publisher.open()
            if self._kind == "threads":
                self._record_output()
                for each in self.flow.stages:
                    worker = each.worker(self.settings, **self._options)
                    if self._settling.recorder is not None:
                        worker.around = self._settling.recorder
                    self._threads.append(worker)
                    worker.start()
            elif self._processes is not None:
                self._processes.start()
        except BaseException:
            with suppress(MousetrapError, TimeoutError):  # the first error explains more
                self.stop()
            raise
        return self

    def stop(self, *, keep_queues: bool = False) -> None:
        """Stop the workers, then take everything of this run away. Safe to call twice.

        An interrupt ends the waiting; all is taken away all the same.

        Raises:
            TimeoutError: a handler did not end in time.
        """
        if self._state in ("closed", "new"):
            return
        self._state = "closed"
        finish(lambda: self._stop(keep_queues))

    def _stop(self, keep_queues: bool) -> None:
        with ExitStack() as steps:  # done from the last to the first, each whatever the others do
            if self._broker is not None:
                steps.callback(self._broker.close)
            if self._run_lock is not None:
                steps.callback(self._run_lock.leave)
            if not keep_queues:
                steps.callback(self._delete_queues)
            steps.callback(self._events.close, 1.0)
            steps.callback(self._sender.publisher.close, 1.0)
            if self._processes is not None:
                steps.callback(self._processes.stop)
            if self._settling.recorder is not None:
                steps.callback(self._settling.recorder.stop)
            for worker in self._threads:
                steps.callback(worker.stop)

    def __enter__(self) -> Run:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            sys.stderr.write(
                f"the queues of {self.namespace} stay for {self.settings.queue_expiry:g} s: "
                f"MOUSETRAP_NAMESPACE={self.namespace} mousetrap queues; mousetrap sweep\n"
            )
        self.stop(keep_queues=kind is not None)

    # ---- sending and waiting ---------------------------------------------------------------------

    def send(self, data: Any = None, to: str | None = None) -> Receipt:
        """Send one job, by default to where the flow begins; no data is the empty body.

        Raises:
            SettingsError: the flow has several beginnings: say which, by *to*.
            TypeError, ValueError: the data cannot be JSON.
        """
        [receipt] = self.send_many([data], to)
        return receipt

    def send_many(self, jobs: Iterable[Any], to: str | None = None) -> list[Receipt]:
        """Send jobs (data, or whole `Message`s) and return a receipt for each, without waiting."""
        if self._state != "open":
            raise MousetrapError("this run is not open: use it in a with block, or start() it")
        queue = to or self.flow.entry()
        return self._sender.send_many(jobs, queue)

    def send_recording(self, case: Recording, *, speed: float | None = None) -> list[Receipt]:
        """Send the jobs of *case* again, with their ids: at once, or *speed* times as they came.

        Raises:
            SettingsError: a job's body was not kept.
        """
        if missing := sum(job.body is None for job in case.jobs):
            raise SettingsError(
                f"{missing:,} of {len(case.jobs):,} bodies were not kept: record the run anew, "
                f"with keep_bodies=100_000"
            )
        started = clock.monotonic()
        receipts = []
        for job in case.jobs:
            if speed is not None:
                pause = started + job.at / speed - clock.monotonic()
                clock.sleep(max(0.0, pause))
            receipts += self.send_many([Message(body=job.body, id=job.id)], job.queue)
        return receipts

    def settle(self, timeout: float = 60.0, *, fail_fast: bool = False) -> RunSummary:
        """Wait until every message has met its end, and return the record.

        That is: all that were sent are confirmed, and whatever came of them is done, dead, or a
        result in a queue that no stage reads. What the broker did not confirm is sent again. With
        *fail_fast* the first dead letter ends the wait.

        Raises:
            NotSettled: some have no fate after *timeout* seconds; a table says where each stopped.
            MessageDied: a message died and *fail_fast* was asked for; a handler's exception in
                this process is its ``__cause__``.
            MousetrapError: a worker, or the way to the broker, ended for good.
        """
        return self._settling.wait(timeout, fail_fast=fail_fast)

    # ---- what became of it -----------------------------------------------------------------------

    def summary(self) -> RunSummary:
        """Sum up what is known now."""
        return dataclasses.replace(self.ledger.summary(), broker=self._product)

    def messages(self) -> Table:
        """One row for each message: its path, times in seconds, attempts, outcome and reason.

        In a notebook the last line that was printed for it as well, if anything was.
        """
        pages = self._settling.recorder.pages() if self._settling.recorder is not None else []
        printed = {page.id: page.last_line for page in pages}
        return ledger_tables.messages(self.ledger, self.flow.reads, self.namespace, printed)

    def results(self, timeout: float = 10.0) -> Messages:
        """Take the results out of the queues where the flow ends."""
        found = [
            message
            for name in self.flow.results
            for message in job_queue.drain(name, timeout=timeout, settings=self.settings)
        ]
        return Messages(found, f" out of {', '.join(self.flow.results)}")

    def plot(self, faults: Faults | None = None) -> None:
        """Draw how the jobs went through the stages, and how long they took.

        With *faults*: how fast they went, and what each fault did to that until it was healed.
        """
        from mousetrap.runs import plot

        if faults is None:
            plot.run(self.ledger)
        else:
            plot.recovery(self.ledger, faults.injected)

    def diagram(self) -> Diagram:
        """Return a picture of the flow with the counts of now."""
        waiting: dict[str, int] = {}
        for entry in self.ledger.open_entries():
            waiting[entry.queue] = waiting.get(entry.queue, 0) + 1
        results = {
            name: sum(entry.queue == name for entry in self.ledger.entries())
            for name in self.flow.results
        }
        return Diagram(self.flow.steps, self.summary().stages, waiting | results)

    def save(self, path: str | Path) -> Path:
        """Write what happened to a ``.jsonl`` file, from which a `Recording` replays it."""
        return Recording.of(self.ledger, self.flow.reads).save(path)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from mousetrap.notebook.panel import Panel  # not for those who never look

        return {"text/plain": repr(self), "text/html": Panel(self).bundle()["text/html"]}

    @property
    def state(self) -> str:
        """``new``, ``open`` or ``closed``."""
        return self._state

    @property
    def workers(self) -> list[Worker]:
        """The workers on threads of this process; empty where others work."""
        return list(self._threads)

    @property
    def processes(self) -> Supervisor | None:
        """The worker processes of this run; None where threads or others work."""
        return self._processes

    @property
    def queues(self) -> list[Queue]:
        """The queue that each stage reads, with the retry delays of this run."""
        return list(self._queues)

    @property
    def where(self) -> str:
        """The broker in use, in words."""
        return str(self._broker or self.settings.url)

    def __repr__(self) -> str:
        stages = " → ".join(stage.name for stage in self.flow.stages)
        summary = self.summary()
        return safe(
            f"<Run {self.namespace} of {stages}: {self._state}, {summary.sent:,} sent, "
            f"{summary.done:,} done, {summary.dead:,} dead, {self.ledger.open:,} open, "
            f"on {self.where}>"
        )

    # ---- inside ----------------------------------------------------------------------------------

    def _declarations(self) -> list[AnyDeclaration]:
        topology = self.settings.topology
        queues = [each for queue in self._queues for each in topology.declarations(queue)]
        results = [topology.work_queue(name) for name in self.flow.results]
        return [*queues, *results, *topology.events_queue()]

    def _wire_names(self) -> list[str]:
        return [each.name for each in self._declarations() if isinstance(each, Declaration)]

    def _delete_queues(self) -> None:
        names = self._wire_names()
        job_queue.delete(*names, settings=self.settings.replace(namespace=""))
        if self._run_lock is not None:
            self._run_lock.drop()

    def _on_event(self, delivery: Delivery) -> None:  # on the I/O thread
        self.ledger.hear(delivery.body, clock.time())
        self._events.ack(delivery)

    def _on_failed(self, error: MousetrapError) -> None:
        self._settling.failure = self._settling.failure or error

    def _record_output(self) -> None:
        if is_kernel():  # elsewhere what handlers print appears where everything does
            from mousetrap.worker.captured_output import Recorder

            self._settling.recorder = Recorder()
            self._settling.recorder.start()


def open_runs() -> list[Run]:
    """The runs of this process that are open."""
    return [each for each in list(_started) if each.state == "open"]


def _product(settings: Settings) -> str:
    from mousetrap.broker.probe import version  # as below

    return version(settings) or ""


def _ensured() -> Broker:
    from mousetrap.broker import ensure  # a quarter of the time that `import mousetrap` takes

    return ensure()


def run(
    flow: Flow | Stage[..., Any] | Iterable[Stage[..., Any]] | ModuleType,
    settings: Settings | None = None,
    **options: Any,
) -> Run:
    """Return a `Run` of *flow*, to be used in a ``with`` block; the *options* are `Run`'s.

    with mousetrap.run([fetch, process]) as run:
        run.send_many(FetchJob(seed) for seed in range(100))
        record = run.settle(timeout=30)
    """
    return Run(flow, settings, **options)

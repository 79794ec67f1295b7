"""The workers of one run: on threads of this process, in processes of their own, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from mousetrap.amqp.io_thread import IOThread
from mousetrap.flows.flow import reference
from mousetrap.flows.joins import check_importable
from mousetrap.flows.known_queues import known_queues, packed
from mousetrap.flows.stage import Stage
from mousetrap.runtime.environment import is_kernel
from mousetrap.runtime.interrupt import run_at_once
from mousetrap.settings import Settings
from mousetrap.worker.supervisor import Supervisor
from mousetrap.worker.worker import Worker

if TYPE_CHECKING:
    from mousetrap.worker.captured_output import AttemptOutput, OutputCapture

WorkerKind = Literal["threads", "processes", "none"]


class RunWorkers:
    """Starts, checks and stops the workers of *stages*, all with *settings*.

    *kind* and *processes* are `Run`'s arguments; *options* are those of `Stage.worker`. In a
    kernel, what handlers on threads print is recorded with the message that they handle. The
    connections of workers on threads share *io_thread*.

    Raises:
        SettingsError: another process cannot import a stage, or *processes* names no stage.

    Threads: `start` and `stop` from one thread at a time, the rest from any.
    """

    def __init__(
        self,
        stages: Sequence[Stage[..., Any]],
        kind: WorkerKind,
        processes: int | Mapping[str, int],
        settings: Settings,
        options: Mapping[str, Any],
        io_thread: IOThread | None = None,
    ) -> None:
        self.threads: list[Worker] = []
        self.processes: Supervisor | None = None
        known = known_queues(stages)
        if kind == "processes":
            references = {each.name: reference(each) for each in stages}
            check_importable(stages)
            if known:  # stages of other modules may name them
                options = {**options, "queue-arguments": packed(known)}
            self.processes = Supervisor.of(references, processes, settings, options)
        self._stages = stages if kind == "threads" else []
        self._settings = settings
        self._options = {**options, "queues": known, "io_thread": io_thread}
        self._capture: OutputCapture | None = None

    def start(self) -> None:
        """Start all workers at the same time.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: a worker did not start; the others
                run until `stop`.
        """
        if self._stages and is_kernel():  # elsewhere, printed text goes to the usual streams
            from mousetrap.worker.captured_output import OutputCapture

            self._capture = OutputCapture()
            self._capture.start()
        for each in self._stages:
            worker = each.worker(self._settings, stages=self._stages, **self._options)
            if self._capture is not None:
                worker.add_hook(self._capture)
            self.threads.append(worker)
        # side by side: each waits for its broker's answers. After an interrupt, `stop` ends them.
        run_at_once([worker.start for worker in self.threads])
        if self.processes is not None:
            self.processes.start()

    def stop(self) -> None:
        """Stop all workers at the same time; an error from one does not keep the others running.

        Takes `WORKER_STOP_TIMEOUT` and a second at most; for processes, their supervisor's time.

        Raises:
            TimeoutError: a handler did not end in time, and its message could not be given back.
        """
        with ExitStack() as steps:  # the last step that is added runs first
            if self.processes is not None:
                steps.callback(self.processes.stop)
            if self._capture is not None:
                steps.callback(self._capture.stop)
            # at the same time, so that handlers of all workers have the same seconds to end
            run_at_once([worker.stop for worker in self.threads])

    def check(self) -> None:
        """Raise the error that ended a worker for good, if there is one."""
        for worker in self.threads:
            if worker.error is not None:
                raise worker.error
        if self.processes is not None:
            self.processes.check()

    @property
    def have_messages(self) -> bool:
        """A worker on a thread has an unacked message, or the broker may still redeliver one.

        Worker processes are not counted: this process does not know which messages they hold.
        """
        return any(each.unacked or each.is_recovering for each in self.threads)

    @property
    def alarm(self) -> str:
        """What an alarm of the broker can be, if one keeps a worker on a thread from publishing."""
        is_blocked = any(each.statistics().state == "blocked" for each in self.threads)
        return "low on memory or disk" if is_blocked else ""

    def exception(self, message_id: str) -> BaseException | None:
        """Return the last exception that a handler on a thread raised for this message."""
        failures = [each for worker in self.threads for each in list(worker.failures)]
        return next((error for id, error in reversed(failures) if id == message_id), None)

    def output(self, message_id: str | None = None) -> list[AttemptOutput]:
        """Return what handlers printed, one item for each attempt; of one message if it is given.

        Empty outside a kernel, where nothing is recorded.
        """
        return self._capture.outputs(message_id) if self._capture is not None else []

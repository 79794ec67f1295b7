"""Waiting for the end of a run by facts, and saying what keeps it from coming.

Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mousetrap import job_queue
from mousetrap.display.progress import Progress
from mousetrap.display.safe_text import safe, safe_lines
from mousetrap.errors import (
    BrokerUnreachable,
    ConnectionLost,
    MessageDied,
    MousetrapError,
    NotSettled,
)
from mousetrap.model import ledger_tables
from mousetrap.model.outcome import Outcome
from mousetrap.model.summary import RunSummary
from mousetrap.runs.job_sender import JobSender
from mousetrap.runtime import clock

if TYPE_CHECKING:
    from mousetrap.runs.run import Run
    from mousetrap.worker.captured_output import Recorder

LOOK = 0.25  # seconds between two looks at the workers while waiting
QUIET = 0.02  # seconds between two looks at the queues once every fate is known
PRINTED = 10  # lines of a handler's output that go with its failure


class Settling:
    """How *run*, whose jobs go by *sender*, is waited for.

    `failure` is set when the way to the broker has ended for good; `recorder` where handlers'
    output is kept.

    Threads: any.
    """

    def __init__(self, run: Run, sender: JobSender) -> None:
        self.failure: MousetrapError | None = None
        self.recorder: Recorder | None = None
        self._run = run
        self._ledger = run.ledger
        self._sender = sender

    def wait(self, timeout: float, *, fail_fast: bool) -> RunSummary:
        """Do what `Run.settle` says."""
        deadline = clock.monotonic() + timeout
        progress = Progress()

        def is_over() -> bool:
            return not self._ledger.open or (fail_fast and bool(self._ledger.deaths))

        try:
            while True:
                left = max(0.0, deadline - clock.monotonic())
                self._sender.send_again()
                reached = self._ledger.wait_for(is_over, min(LOOK, left))
                self._look_after()
                progress.update(*self._state_of_affairs())
                if fail_fast and self._ledger.deaths:
                    raise self.death()
                if reached and self._is_quiet(min(LOOK, left)):
                    return self._run.summary()
                if not left:
                    raise self.not_settled(timeout)
        finally:
            progress.update(*self._state_of_affairs(), is_last=True)

    def _is_quiet(self, patience: float) -> bool:
        """Every fate is known; say whether no copy of a message is on its way all the same.

        A worker that dies, or loses its connection, between a fate and the ack leaves a copy of
        a settled message, which comes again.
        """
        self._sender.wait(patience)  # for confirms that are slower than the fates
        if self._sender.unconfirmed():
            return False
        names = [name for queue in self._run.queues for name in queue.names() if name != queue.dead]
        try:  # first: what leaves a queue comes in hand
            depths = job_queue.depths(names, self._run.settings)
        except (BrokerUnreachable, ConnectionLost):  # away, perhaps not for long: nobody can say
            self._ledger.wait_for(lambda: False, min(LOOK, patience))
            return False
        waiting = any(each.messages for each in depths if each)
        if waiting or any(each.unacked or each.is_recovering for each in self._run.workers):
            self._ledger.wait_for(lambda: False, min(QUIET, patience))
            return False
        return not self._ledger.open

    def _look_after(self) -> None:
        """Raise what keeps this run from going on: it explains more than a time-out."""
        if failure := self.failure or self._ledger.error:
            raise failure
        for worker in self._run.workers:
            if worker.error is not None:
                raise worker.error
        if self._run.processes is not None:
            self._run.processes.check()

    def death(self) -> MessageDied:
        """The error that tells of the message that died first."""
        outcome = ledger_tables.first_death(self._ledger)
        reason = safe(outcome.reason)  # whatever its lines
        where = f"died in stage {outcome.stage} at attempt {outcome.attempt}"
        text = f"message {outcome.id[:8]} {where}: {reason}"
        printed = "\n".join(self._printed(outcome))
        error = MessageDied(safe_lines(f"{text}\n{outcome.traceback}{printed}"))
        error.__cause__ = self._exception(outcome)
        return error

    def _exception(self, outcome: Outcome) -> BaseException | None:
        failures = [each for worker in self._run.workers for each in list(worker.failures)]
        return next((error for id, error in reversed(failures) if id == outcome.id), None)

    def _printed(self, outcome: Outcome) -> list[str]:
        """The end of what the latest handling of that message printed."""
        pages = self.recorder.pages(outcome.id) if self.recorder is not None else []
        lines = [line for page in pages[-1:] for line in page.lines()]
        return ["It had printed:", *lines[-PRINTED:]] if lines else []

    def not_settled(self, timeout: float) -> NotSettled:
        """The error that tells where each message stopped."""
        table = ledger_tables.open_messages(self._ledger, clock.time())
        names = [name for queue in self._run.queues for name in queue.names()]
        names += [*self._run.flow.results, "events"]  # done, and nobody has heard of it
        places = [
            f"  {each.queue}: {each.messages:,} wait, {each.consumers} consumers"
            for each in job_queue.depths(names, self._run.settings)
            if each is not None and (each.messages or each.queue in self._run.flow.reads)
        ]
        last = ledger_tables.last_failure(self._ledger)
        lines = [
            f"{len(table):,} messages have no fate after {timeout:g} s, and "
            f"{len(self._sender.unconfirmed()):,} are not confirmed:",
            repr(table),
            *places,
            "What waits in no queue is in a worker's hands, or lost: look at the workers, or give "
            "it more time",
            *([f"The last failure was in {last.stage}:", last.traceback] if last else []),
            *(self._printed(last) if last else []),
        ]
        error = NotSettled(safe_lines("\n".join(lines)))
        error.table = table
        error.__cause__ = self._exception(last) if last else None
        return error

    def _state_of_affairs(self) -> tuple[str, dict[str, Any]]:
        counts = self._ledger.counts()
        done = ", ".join(
            f"{stage} {each['done']:,}" + (f" ({each['dead']:,} dead)" if each["dead"] else "")
            for stage, each in counts.items()
        )
        line = f"{self._run.namespace}: {self._ledger.open:,} open; done: {done or 'nothing yet'}"
        return line, {"namespace": self._run.namespace, "open": self._ledger.open, "stages": counts}

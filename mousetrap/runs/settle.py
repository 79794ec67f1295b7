"""Waits until every message of a run has a final outcome, and explains what it waits for.

Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mousetrap.broker.management import MANAGEMENT_TIMEOUT, RETURN_TIME, held_back
from mousetrap.display.formats import counted
from mousetrap.display.progress import ProgressDisplay
from mousetrap.display.safe_text import safe, safe_lines
from mousetrap.errors import (
    BrokerUnreachable,
    ConnectionLost,
    MessageDied,
    MousetrapError,
    NotSettled,
    WireError,
)
from mousetrap.model import ledger_tables
from mousetrap.model.delays import delay_queue
from mousetrap.model.ledger import Ledger
from mousetrap.model.outcome import Outcome
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock
from mousetrap.worker.consumer_discovery import DISCOVERY_TIMEOUT

if TYPE_CHECKING:
    from mousetrap.amqp.queue_depth import Depth
    from mousetrap.flows.flow import Flow
    from mousetrap.runs.holders import Holders, Holdings
    from mousetrap.runs.job_sender import JobSender
    from mousetrap.runs.workers import RunWorkers
    from mousetrap.settings import Settings

WORKER_CHECK_INTERVAL = 0.25  # seconds between two checks of the workers while waiting
FINAL_CHECK_TIMEOUT = 0.5  # seconds after the time-out for a last look at queues and workers
REPORT_TIMEOUT = 0.25  # seconds of these for the error, which says where the messages are
CHECK_INTERVAL = 0.02  # seconds between two questions to queues and workers, when all else is done
LATE = 1.0  # seconds after the delay of a retry from which on it is worth a line
MAX_PRINTED_LINES = 10  # of a handler's output, shown with its failure


class Settlement:
    """Waits for the end of the run *namespace*: for the messages that *ledger* knows.

    It asks *sender* to send unconfirmed jobs again, checks *workers*, asks *depths* how many
    messages are in the *queues* that the stages of *flow* read, and asks *holders* how many
    messages the workers hold, in whatever process they are. *look* is called again and again, and
    calls `fail` if the run cannot go on. *delay_queues* returns the queues of delayed messages.

    Threads: any.
    """

    def __init__(
        self,
        namespace: str,
        ledger: Ledger,
        sender: JobSender,
        flow: Flow,
        queues: Sequence[Queue],
        workers: RunWorkers,
        depths: Callable[[list[str], float], list[Depth | None]],
        holders: Holders,
        settings: Settings,
        look: Callable[[], object],
        delay_queues: Callable[[], list[str]] = list,
    ) -> None:
        self._namespace = namespace
        self._ledger = ledger
        self._sender = sender
        self._flow = flow
        self._queues = queues
        self._workers = workers
        self._depths = depths
        self._holders = holders
        self._settings = settings
        self._topology = settings.topology
        self._look = look
        self._delay_queues = delay_queues
        self._consumers: dict[str, int] = {}  # of each stage's queue, by its wire name
        self._failure: MousetrapError | None = None
        self._last: tuple[str, dict[str, Any]] | None = None  # the progress when `wait` gave up

    def fail(self, error: MousetrapError) -> None:
        """Make `wait` raise *error*: the run can receive no more outcomes."""
        self._failure = self._failure or error

    def wait(self, timeout: float, *, fail_fast: bool) -> None:
        """Wait as `Run.settle` describes, and raise what it says."""
        deadline = clock.monotonic() + timeout
        progress, self._last = ProgressDisplay(), None

        def is_over() -> bool:
            return not self._ledger.open or (fail_fast and bool(self._ledger.dead))

        try:
            while True:
                left = max(0.0, deadline - clock.monotonic())
                self._look()
                self._sender.send_again()
                self._holders.poll()
                reached = self._ledger.wait_for(is_over, min(WORKER_CHECK_INTERVAL, left))
                self._check()
                progress.update(*self._progress())
                if fail_fast and self._ledger.dead:
                    raise self.message_died()
                end = deadline + FINAL_CHECK_TIMEOUT
                if reached and self._is_settled(left, end - REPORT_TIMEOUT):
                    return
                if not left:
                    raise self.not_settled(timeout, end)
        finally:
            progress.update(*(self._last or self._progress()), is_last=True)

    def _is_settled(self, timeout: float, end: float) -> bool:
        """Return whether no message is left, now that every known outcome is final.

        A worker that crashes, or loses its connection, after it published an outcome and before it
        acked leaves a copy of a settled message, which the broker delivers again. And the ledger
        does not know messages that other programs published to a queue of the run.

        First the workers are asked, then the queues, then the workers again. If none of them held
        a message at the first answer or has received one since, then no handler ran in between,
        and a message that existed was in a queue. The first time, only the workers that are known
        can be asked before the queues: the others are new at the second answer.
        """
        self._sender.wait(min(WORKER_CHECK_INTERVAL, timeout))  # confirms may come after outcomes
        if self._sender.unconfirmed():
            return False
        deadline = min(end, clock.monotonic() + max(timeout, DISCOVERY_TIMEOUT))
        first = self._holdings(deadline)
        if first.strangers:  # consumers that are gone, perhaps: count them again
            self._queues_are_empty(deadline)
        elif (
            first.are_empty
            and not self._workers.have_messages
            and self._queues_are_empty(deadline)
            and (second := self._holdings(deadline)).are_empty
            and second.received == first.received
            and not self._workers.have_messages
        ):
            return not self._ledger.open
        self._pause(min(CHECK_INTERVAL, clock.remaining(deadline)))
        return False

    def _holdings(self, deadline: float) -> Holdings:
        """Return what the workers hold: those that the broker counted last, and those known."""
        return self._holders.ask(self._consumers, clock.remaining(deadline))

    def _queues_are_empty(self, deadline: float) -> bool:
        names = [name for queue in self._queues for name in queue.names() if name != queue.dead]
        names += self._delay_queues()
        try:
            found = self._depths(names, clock.remaining(deadline))
            depths = [each for each in found if each is not None]
        except (BrokerUnreachable, ConnectionLost):  # perhaps for a moment: ask again
            self._pause(min(WORKER_CHECK_INTERVAL, clock.remaining(deadline)))
            return False
        read = {queue.name for queue in self._queues}
        self._consumers = {
            self._topology.wire_name(each.queue): each.consumers
            for each in depths
            if each.queue in read
        }
        return not any(each.messages for each in depths)

    def _pause(self, seconds: float) -> None:
        self._ledger.wait_for(lambda: False, seconds)

    def _check(self) -> None:
        """Raise the error that ended a worker or the events; it explains more than a time-out."""
        if failure := self._failure or self._ledger.error:
            raise failure
        self._workers.check()

    def message_died(self) -> MessageDied:
        """Return the error that describes the first message that died."""
        outcome = ledger_tables.first_dead(self._ledger)
        reason = safe(outcome.reason)  # an exception's text may have several lines
        where = f"died in stage {outcome.stage} at attempt {outcome.attempt}"
        text = f"message {outcome.id[:8]} {where}: {reason}"
        printed = "\n".join(self._printed(outcome))
        error = MessageDied(safe_lines(f"{text}\n{outcome.traceback}{printed}"))
        error.__cause__ = self._workers.exception(outcome.id)
        return error

    def _printed(self, outcome: Outcome) -> list[str]:
        """Return the last lines that the latest attempt of this message printed."""
        lines = [line for page in self._workers.output(outcome.id)[-1:] for line in page.lines()]
        return ["It had printed:", *lines[-MAX_PRINTED_LINES:]] if lines else []

    def not_settled(self, timeout: float, end: float) -> NotSettled:
        """Return the error that says where each open message is; asks the broker until *end*."""
        table = ledger_tables.open_messages(self._ledger, clock.steady_time())
        last = ledger_tables.last_failure(self._ledger)
        self._last = self._progress(open=len(table))  # says the same as the error
        unconfirmed = len(self._sender.unconfirmed())
        lines = [
            f"{table.title} after {timeout:g} s"
            + f"; the broker has not confirmed {counted(unconfirmed, 'job')}" * bool(unconfirmed),
            *[f"  {line}" for line in ledger_tables.open_groups(table)],
            "At the broker:",
            *self._places(end),
            *self._late_retries(end),
            *self._delayed(),
            *self._alarm(),
            "A message that waits in no queue is with a worker, or lost: look at the workers, or "
            "give a longer timeout. The table of this error has a row for each message",
            *([f"The last failure was in {last.stage}:", last.traceback] if last else []),
            *(self._printed(last) if last else []),
        ]
        error = NotSettled(safe_lines("\n".join(lines)))
        error.table = table
        error.__cause__ = self._workers.exception(last.id) if last else None
        return error

    def _late_retries(self, end: float) -> list[str]:
        """Return a line for each retry queue whose messages are past their delay, with no outcome.

        If their work queue is full or refuses them, they stay there, and AMQP does not count them.
        """
        late = ledger_tables.late_retries(self._ledger, clock.steady_time(), LATE)
        retries = {
            queue.retry_queue(delay): (number, seconds)
            for queue in self._queues
            for delay in queue.retry_delays
            for number, seconds in [late.get((queue.name, delay), (0, 0.0))]
            if number
        }
        left = min(MANAGEMENT_TIMEOUT, clock.remaining(end))
        known = held_back(retries, self._settings, left) if retries else {}
        return [
            f"  {name}: {known[name]:,} wait since up to {seconds:.0f} s after their delay: their "
            f"work queue is full or refuses them. They come back up to {RETURN_TIME} s after there "
            f"is room (RabbitMQ's timer)"
            if name in known
            else f"  {name}: {number:,} have no outcome since up to {seconds:.0f} s after their "
            f"delay. What is neither in the work queue nor with a worker waits here: the work "
            f"queue is full or refuses it. It comes back up to {RETURN_TIME} s after there is room "
            f"(RabbitMQ's timer)"
            for name, (number, seconds) in retries.items()
        ]

    def _delayed(self) -> list[str]:
        """Return a line for each delay with messages that wait for it, or that are late."""
        now = clock.steady_time()
        lines = []
        waiting = ledger_tables.delayed(self._ledger, now, LATE)
        for (queue, delay), (number, first, last) in waiting.items():
            name = delay_queue(queue, delay)
            until = " and ".join(dict.fromkeys(map(clock.local_date_time, (first, last))))
            line = f"  {name}: {number:,} were sent to come later, until {until}"
            late = f"; that was {now - first:.0f} s ago: {queue!r} is full, or has no free worker"
            lines.append(line + late * (first < now))
        return lines

    def _alarm(self) -> list[str]:
        """Return a line that names the broker's alarm, if it has one; otherwise none."""
        if not (alarm := self._sender.alarm or self._workers.alarm):
            return []
        return [
            f"The broker is {alarm} and accepts no messages (an alarm): free memory or disk on its "
            f"machine, or drain queues; rabbitmqctl status shows the limits"
        ]

    def _places(self, end: float) -> list[str]:
        """Return a line for each queue with messages, and for each worker that holds some."""
        names = [name for queue in self._queues for name in queue.names()]
        # messages in "events" are outcomes that this run has not received
        names += [*self._flow.results, "events"]
        try:
            depths = self._depths(names, clock.remaining(end))
            places = [
                f"  {each.queue}: {each.messages:,} wait, {counted(each.consumers, 'consumer')}"
                for each in depths
                if each is not None and (each.messages or each.queue in self._flow.reads)
            ]
        except WireError as error:  # the report goes on: it lists what the run knows by itself
            places = [f"  the queues could not be read: {error}"]
        left = min(DISCOVERY_TIMEOUT, clock.remaining(end))
        holdings = self._holders.ask(self._consumers, left)
        return [*places, *[f"  {line}" for line in holdings.lines(self._topology.plain_name)]]

    def _progress(self, open: int | None = None) -> tuple[str, dict[str, Any]]:
        """Return the progress as a line for people, and as values for a program.

        *open* is how many messages are open, if that was counted before.
        """
        open = self._ledger.open if open is None else open
        counts = self._ledger.counts()  # in the order of the first outcomes; shown in the flow's
        order = dict.fromkeys([*(each.name for each in self._flow.stages), *counts])
        counts = {name: counts[name] for name in order if name in counts}
        done = ", ".join(
            f"{stage} {each['done']:,}" + (f" ({each['dead']:,} dead)" if each["dead"] else "")
            for stage, each in counts.items()
        )
        line = f"{self._namespace}: {counted(open, 'message')} open; done: {done or 'nothing yet'}"
        return line, {"namespace": self._namespace, "open": open, "stages": counts}

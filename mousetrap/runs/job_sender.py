"""Sends the jobs of a run, and sends them again until the broker has confirmed each one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from mousetrap.amqp.confirming import RESEND_DELAY
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.formats import counted
from mousetrap.errors import QueueMissing, Unroutable
from mousetrap.model.delays import DEFAULT, SendOptions, waiting_time
from mousetrap.model.exchanges import Exchange
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message
from mousetrap.model.targets import Address, Target, address_of, check_can_wait
from mousetrap.runtime import clock, forks, threads
from mousetrap.settings import Settings


class JobSender:
    """Sends jobs, records each in *ledger*, and keeps the receipts that are not confirmed.

    *queues* returns the names of the run's queues; *on_delay_queue* is called with the name of each
    delay queue before a message is published to it. All are plain names.

    Threads: every method from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        queues: Callable[[], Collection[str]] = tuple,
        on_delay_queue: Callable[[str], object] = lambda _: None,
        io_thread: IOThread | None = None,
    ) -> None:
        self._queues = queues
        self._on_delay_queue = on_delay_queue
        self.publisher = Publisher(settings, f"run {settings.namespace}", io_thread=io_thread)
        self._settings = settings
        self._ledger = ledger
        self._lock = forks.released_in_child(threads.Lock())
        self._receipts: dict[str, Receipt] = {}  # the unconfirmed ones, by message id
        self._resend_due = 0.0  # on the monotonic clock

    def send_many(
        self, jobs: Iterable[Any], to: Target, options: SendOptions = DEFAULT
    ) -> list[Receipt]:
        """Send jobs (data, or whole messages) to *to* without waiting for confirms.

        If *jobs* raises, those before are sent: ``receipts`` of the exception has their receipts.
        """
        target = place = address_of(to)
        check_can_wait(target, options)
        waits = waiting_time(options.delay) if options.delay else 0.0
        if isinstance(target, str) and waits:
            place = self._delayed(target, waits)
        headers = options.headers()
        messages = (_message(job, headers) for job in jobs)
        sent: list[Receipt] = []

        def on_submitted(receipts: list[Receipt]) -> None:
            sent.extend(receipts)
            self._record(receipts, target, waits)

        try:
            return self.publisher.publish_many(
                messages,
                place,
                priority=options.priority,
                callback=self._on_outcome,
                on_submitted=on_submitted,
            )
        except BaseException as error:
            vars(error)["receipts"] = sent  # an interrupt after the last one has none yet
            if sent:
                error.add_note(
                    f"sent before this: {counted(len(sent), 'job')}, which count; receipts are "
                    f"in `receipts` of this exception (in a notebook: sys.last_value.receipts)"
                )
            raise

    def unconfirmed(self) -> list[Receipt]:
        """Return the receipts that the broker has not confirmed so far."""
        with self._lock:
            for receipt in list(self._receipts.values()):
                if receipt.confirmed:  # the confirm came before `send_many` added the receipt
                    del self._receipts[receipt.message.id]
            return list(self._receipts.values())

    def send_again(self) -> None:
        """Send the jobs again that were refused or whose receipts are unknown.

        Does so at most once a second; calls in between do nothing.

        Raises:
            Unroutable: the queue does not exist; sending again would not help.
        """
        failed = [each for each in self.unconfirmed() if each.state != "waiting"]
        if not failed or clock.monotonic() < self._resend_due:
            return
        self._resend_due = clock.monotonic() + RESEND_DELAY
        for receipt in failed:
            if isinstance(receipt.error, Unroutable):
                raise receipt.error
            again = self.publisher.send_again(receipt)
            with self._lock:
                self._receipts[again.message.id] = again

    @property
    def alarm(self) -> str:
        """What the broker says of its alarm, while that keeps jobs from being sent; else ""."""
        connection = self.publisher.connection
        return connection.alarm if connection.state == "blocked" else ""

    def wait(self, timeout: float) -> None:
        """Wait until the broker has answered for each job, at most *timeout* seconds."""
        with suppress(TimeoutError):
            self.publisher.flush(timeout)

    def _delayed(self, queue: str, waits: float) -> str:
        """Return the delay queue of *queue*.

        Raises:
            QueueMissing: the run has no queue *queue*.
        """
        if queue not in self._queues():
            raise QueueMissing(
                f"this run has no queue {queue!r}, so a message could not reach it later: send to "
                f"a queue that a stage of its flow reads or writes"
            )
        name = self.publisher.delayed(queue, waits)
        self._on_delay_queue(name)
        return name

    def _record(self, receipts: list[Receipt], target: Address, delay: float) -> None:
        """Record the jobs that will be sent; a job that never left this process is none."""
        # a receipt's deadline says when it was made: so the jobs of a batch keep their order
        offset = clock.steady_time() - clock.monotonic() - self._settings.confirm_timeout
        for receipt in receipts:
            message = receipt.message
            body = message.readable_body
            kept = body if len(body) <= self._settings.keep_bodies else None
            for queue, id in self._copies(target, message.id):
                self._ledger.sent(id, queue, receipt.deadline + offset, kept, delay)
        with self._lock:
            self._receipts |= {each.message.id: each for each in receipts if not each.confirmed}

    def _on_outcome(self, receipt: Receipt) -> None:
        if receipt.confirmed:
            with self._lock:
                self._receipts.pop(receipt.message.id, None)
            for _, id in self._copies(_address(receipt, self._settings), receipt.message.id):
                self._ledger.confirmed(id)

    def _copies(self, target: Address, id: str) -> list[tuple[str, str]]:
        """Return the queue and the id of each job that message *id* to *target* is."""
        if isinstance(target, str):
            return [(target, id)]
        return self._ledger.copies(target.exchange.name, str(target.key), id)


def _message(job: Any, headers: Mapping[str, Any] | None) -> Message:
    if not isinstance(job, Message):
        return Message(job, headers=headers)
    return job.copy(job.attempt, {**job.headers, **headers}) if headers else job


def _address(receipt: Receipt, settings: Settings) -> Address:
    if not receipt.exchange:
        return receipt.queue
    return Exchange(settings.topology.plain_name(receipt.exchange))[receipt.queue]

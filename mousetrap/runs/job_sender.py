"""Sends the jobs of a run, and sends them again until the broker has confirmed each one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from mousetrap.amqp.publisher import RESEND_DELAY, Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import Unroutable
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message
from mousetrap.runtime import clock, threads
from mousetrap.settings import Settings


class JobSender:
    """Sends jobs, records each in *ledger*, and keeps the receipts that are not confirmed.

    Threads: every method from any thread.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.publisher = Publisher(settings, f"run {settings.namespace}")
        self._settings = settings
        self._ledger = ledger
        self._lock = threads.Lock()
        self._receipts: dict[str, Receipt] = {}  # the unconfirmed ones, by message id
        self._resend_due = 0.0  # on the monotonic clock

    def send_many(self, jobs: Iterable[Any], queue: str) -> list[Receipt]:
        """Send jobs (data, or whole messages) to *queue* without waiting for confirms."""
        receipts = self.publisher.publish_many(
            self._recorded(jobs, queue), queue, callback=self._on_outcome
        )
        with self._lock:
            self._receipts |= {r.message.id: r for r in receipts if not r.confirmed}
        return receipts

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

    def wait(self, timeout: float) -> None:
        """Wait until the broker has answered for each job, at most *timeout* seconds."""
        with suppress(TimeoutError):
            self.publisher.flush(timeout)

    def _recorded(self, jobs: Iterable[Any], queue: str) -> Iterable[Message]:
        """Yield each job as a message, after the ledger has an entry for it."""
        for job in jobs:
            message = job if isinstance(job, Message) else Message(job)
            kept = message.body if len(message.body) <= self._settings.keep_bodies else None
            self._ledger.sent(message.id, queue, clock.time(), kept)
            yield message

    def _on_outcome(self, receipt: Receipt) -> None:
        if receipt.confirmed:
            with self._lock:
                self._receipts.pop(receipt.message.id, None)
            self._ledger.confirmed(receipt.message.id)

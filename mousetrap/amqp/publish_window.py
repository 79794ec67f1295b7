"""The publishes of one publisher that have no answer yet: their limit, and their outcomes.

Prototyped in ``notebooks/02_publisher.ipynb``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from mousetrap.amqp.connection import Connection
from mousetrap.amqp.receipt import Receipt, ReceiptState
from mousetrap.display.formats import counted
from mousetrap.errors import ConnectionLost, MousetrapError, OutcomeUnknown
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

_NOT_OPEN = "this publisher is not open: use it in a with block, or open() it first"


class PublishWindow:
    """Counts the receipts that wait, makes callers wait at the limit, and settles receipts.

    New receipts wait in an outbox until the I/O thread writes their messages: *write* is called
    there, once per batch. The window is full at ``settings.max_in_flight`` waiting receipts.

    Threads: `wait_for_room`, `has_room`, `full`, `submit`, `wait_until_empty` and `fail` from any,
    the rest on the I/O thread.
    """

    def __init__(
        self, settings: Settings, connection: Connection, write: Callable[[], object]
    ) -> None:
        self.in_flight = 0  # receipts that wait, written or not
        self.unconfirmed = 0  # receipts that got another answer, or none in time
        self._settings = settings
        self._connection = connection
        self._write = write
        self._lock = forks.released_in_child(threads.Lock())  # guards what follows, and `in_flight`
        self._outbox: deque[Receipt] = deque()
        self._write_is_due = False
        self._not_open = ConnectionLost(_NOT_OPEN)
        self._failure: MousetrapError | None = self._not_open
        self._room = Waiter()  # notified when the window is at most half full
        self._empty = Waiter()  # notified when no receipt waits

    @property
    def failure(self) -> MousetrapError | None:
        """Why it refuses new receipts."""
        return self._failure

    def accept(self) -> None:
        """Accept receipts from now on, unless it has failed."""
        with self._lock:
            if self._failure is self._not_open:
                self._failure = None

    def wait_for_room(self, deadline: float) -> None:
        """Wait while the window is full. Several threads may pass at once and exceed the limit.

        On the I/O thread it never waits: the answers that make room arrive on that thread.

        Raises:
            OutcomeUnknown: the window was still full at *deadline*, on the monotonic clock.
        """
        limit = self._settings.max_in_flight
        if self.in_flight < limit or self._connection.io_thread.is_current_thread:
            return
        if not self._room.wait_for(lambda: self.has_room(1), clock.remaining(deadline)):
            raise self.full()

    def has_room(self, number: int) -> bool:
        """Return whether *number* receipts can be submitted without waiting, or are refused."""
        is_over = self.in_flight + number > self._settings.max_in_flight
        return not is_over or self._failure is not None

    def full(self) -> OutcomeUnknown:
        """Return the error that says that the window stays full."""
        return OutcomeUnknown(
            f"{counted(self.in_flight, 'message')} got no answer within "
            f"{self._settings.confirm_timeout:g} s; the connection is "
            f"{self._connection.state}. This message was not sent: publish it again later"
        )

    def submit(self, receipts: Iterable[Receipt]) -> None:
        """Put *receipts* into the outbox; the I/O thread writes them soon. Never blocks.

        Raises:
            MousetrapError: the publisher is not open, or has failed; nothing was sent.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            # First schedule the write, because an interrupt may end this function after any call:
            # the receipts that are in the outbox by then must be written. The write itself waits
            # for the lock, so it comes after this block.
            if not self._write_is_due:  # wake the I/O thread once per batch, not per message
                self._connection.call_soon(self._write)
                self._write_is_due = True
            for receipt in receipts:
                # No interrupt comes between these two lines (CPython), so the count is right.
                self.in_flight += 1
                self._outbox.append(receipt)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until no receipt waits; return False if some still do after *timeout* seconds."""
        return self._empty.wait_for(lambda: self.in_flight == 0, timeout)

    def fail(self, error: MousetrapError) -> None:
        """Refuse new receipts with *error*, and settle those in the outbox as unknown."""
        with self._lock:
            self._refuse(error)
            waiting, self._outbox = list(self._outbox), deque()
        self._room.notify_all()
        self.settle(waiting, "unknown", str(error))

    def refuse_new(self, error: MousetrapError) -> None:
        """Refuse new receipts with *error*; those that wait are still answered."""
        with self._lock:
            self._refuse(error)
        self._room.notify_all()

    def forked(self, error: MousetrapError, written: list[Receipt]) -> None:
        """Refuse everything with *error* in a forked child; no callbacks: the parent calls them."""
        self._failure = error
        for receipt in (*self._outbox, *written):
            receipt.reason, receipt.state = str(error), "unknown"
        self._outbox = deque()
        self.in_flight = 0

    def _refuse(self, error: MousetrapError) -> None:
        if self._failure is None or self._failure is self._not_open:
            self._failure = error

    # ---- I/O thread ----------------------------------------------------------------------------

    def take(self, can_write: bool) -> deque[Receipt]:
        """Take the outbox; if the caller cannot write now, it stays as it is."""
        with self._lock:
            self._write_is_due = False
            if not can_write:
                return deque()
            batch, self._outbox = self._outbox, deque()
            return batch

    def put_back(self, receipts: Iterable[Receipt]) -> None:
        """Put taken *receipts* that were not written back to the front of the outbox."""
        with self._lock:
            self._outbox.extendleft(reversed(list(receipts)))

    def take_late(self, now: float) -> list[Receipt]:
        """Take the receipts in the outbox whose deadline was before *now*."""
        late = []
        with self._lock:
            while self._outbox and self._outbox[0].deadline < now:
                late.append(self._outbox.popleft())
        return late

    def settle(
        self,
        receipts: list[Receipt],
        state: ReceiptState,
        reason: str = "",
        is_final: bool = False,
    ) -> None:
        """Give *receipts* their final state, wake the threads that wait and call the callbacks."""
        if not receipts:
            return
        for receipt in receipts:
            receipt.reason = reason
            receipt.is_final = is_final
            receipt.state = state
            if receipt._done is not None:
                receipt._done.notify_all()
        with self._lock:
            if state != "confirmed":
                self.unconfirmed += len(receipts)
            self.in_flight -= len(receipts)
            left = self.in_flight
        if left <= self._settings.max_in_flight // 2:
            self._room.notify_all()
        if left == 0:
            self._empty.notify_all()
        for receipt in receipts:
            if receipt._callback is not None:
                receipt._callback(receipt)

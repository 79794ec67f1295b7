"""Sending without waiting, and knowing what became of each message.

Every publish is persistent and mandatory and gets a confirm, a return, a refusal or, after its
deadline, the honest word *unknown*. Many may be in flight at once, which is what makes confirmed
publishing fast. Prototyped in ``notebooks/02_publisher.ipynb``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pika
from pika import spec
from pika.channel import Channel

from mousetrap.amqp.connection import Connection
from mousetrap.amqp.error_translation import declare
from mousetrap.amqp.fast_connection import publish
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.receipt import Receipt, ReceiptState
from mousetrap.amqp.unconfirmed import UnconfirmedPublishes
from mousetrap.errors import ConnectionLost, MessageTooLarge, MousetrapError, OutcomeUnknown
from mousetrap.model.message import Message
from mousetrap.model.topology import AnyDeclaration
from mousetrap.runtime import clock, threads
from mousetrap.runtime.interrupt import Waiter, finish
from mousetrap.settings import Settings

RESEND_DELAY = 1.0  # seconds


class Publisher:
    """Publishes confirmed, pipelined, from any thread, and survives reconnects.

    What is not yet written when the connection breaks is written after it is restored; what was
    written and not yet confirmed becomes *unknown*.

    Threads: any. `publish` blocks only while ``settings.max_in_flight`` receipts are open, and on
    the I/O thread never.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        purpose: str = "publisher",
        *,
        on_failed: Callable[[MousetrapError], object] = lambda _: None,
        io_thread: IOThread | None = None,
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.connection = Connection(self.settings, purpose, self, io_thread)
        self._topology = self.settings.topology
        self._names: dict[str, str] = {}  # plain -> on the wire, checked
        self._lock = threads.Lock()
        self._room = Waiter()  # rings when the window is half empty
        self._idle = Waiter()  # rings when nothing is open
        self._open = 0  # receipts that are waiting
        self._outbox: deque[Receipt] = deque()
        self._drain_is_due = False
        self._failure: MousetrapError | None = None
        self._on_failed = on_failed
        # I/O thread only:
        self._channel: Channel | None = None
        self._written = UnconfirmedPublishes()
        self._heard = 0.0  # monotonic: when the broker last answered a publish
        self._declared: list[AnyDeclaration] = []

    def open(self) -> Publisher:
        """Connect; raises what `Connection.open` raises. Safe to call twice."""
        if self.connection.state == "new":
            try:
                self.connection.open()
            except BaseException:
                self.connection.close(timeout=0.0)
                raise
            self.connection.call_later(self._patrol_interval, self._patrol)
        return self

    def publish(
        self,
        message: Message,
        queue: str,
        *,
        properties: pika.BasicProperties | None = None,
        callback: Callable[[Receipt], None] | None = None,
    ) -> Receipt:
        """Send *message* to *queue* without waiting; the receipt tells what became of it.

        Receipts resolve in any order. *callback* is called with the receipt on the I/O thread:
        it must be quick. *properties* are the base for ours, for a message
        that keeps what another client gave it (correlation id, priority, ...).

        Raises:
            TypeError, ValueError: the data cannot be JSON.
            OutcomeUnknown: the window stayed full for ``settings.confirm_timeout``.
            MousetrapError: the publisher is closed or has failed for good.
        """
        receipt = self._receipt(message, queue, properties, callback)
        self._wait_for_room(receipt.deadline)
        self._submit((receipt,))
        return receipt

    def publish_many(
        self,
        messages: Iterable[Message],
        queue: str,
        *,
        callback: Callable[[Receipt], None] | None = None,
    ) -> list[Receipt]:
        """Send many messages to *queue*; returns their receipts in the same order, without waiting.

        Blocks, like `publish`, only while the window is full; *callback* as there.
        """
        receipts: list[Receipt] = []
        batch: list[Receipt] = []

        def hand_over() -> None:
            self._wait_for_room(batch[0].deadline)
            self._submit(batch)
            receipts.extend(batch)
            batch.clear()

        for message in messages:
            batch.append(self._receipt(message, queue, None, callback))
            if len(batch) >= min(256, self.settings.max_in_flight // 2 + 1):
                hand_over()
        if batch:
            hand_over()
        return receipts

    def publish_until_confirmed(
        self, messages: Iterable[Message], queue: str, timeout: float = 60.0
    ) -> list[Receipt]:
        """Send many messages and return when the broker has confirmed every one.

        What was refused or became unknown (a broker restarting, a cut wire) is sent again with
        its id, so the queue may hold it twice, but not never.

        Raises:
            Unroutable: there is no such queue; waiting would not help.
            PublishRefused: one cannot be sent as it is: too large for this broker.
            TimeoutError: some are not confirmed after *timeout* seconds; says how many and why.
        """
        deadline = clock.monotonic() + timeout
        receipts = self.publish_many(messages, queue)
        while True:
            with suppress(TimeoutError):  # what is still waiting then is counted below
                self.flush(clock.remaining(deadline))
            missing = [n for n, receipt in enumerate(receipts) if not receipt.confirmed]
            if not missing:
                return receipts
            first = receipts[missing[0]]
            for receipt in (receipts[n] for n in missing):
                if receipt.error and (receipt.state == "returned" or receipt.is_final):
                    raise receipt.error
            if not clock.remaining(deadline):
                raise TimeoutError(
                    f"{len(missing):,} of {len(receipts):,} messages are not confirmed after "
                    f"{timeout:g} s; the first one is {first.state} ({first.reason})"
                )
            # the cause needs a moment to go away; asking once a second harms nobody
            clock.sleep(min(RESEND_DELAY, clock.remaining(deadline)))
            for n in missing:
                receipts[n] = self.send_again(receipts[n])

    def send_again(self, receipt: Receipt) -> Receipt:
        """Publish what *receipt* stands for once more, same id, same callback; never blocks.

        Threads: any, the I/O thread too.
        """
        again = Receipt(receipt.message, receipt.queue, receipt.sent, receipt.base,
                        clock.monotonic() + self.settings.confirm_timeout,
                        receipt._callback, receipt.exchange)  # fmt: skip
        self._submit((again,))
        return again

    def publish_to_exchange(
        self,
        body: bytes,
        exchange: str,
        key: str,
        callback: Callable[[Receipt], None],
        properties: pika.BasicProperties | None = None,
    ) -> None:
        """Send *body* to whoever listens on *exchange*; nobody is a fine answer. Never blocks.

        Threads: any, the I/O thread too.
        """
        deadline = clock.monotonic() + self.settings.confirm_timeout
        receipt = Receipt(Message(body=body), key, int(clock.time()), properties, deadline,
                          callback, exchange)  # fmt: skip
        self._submit((receipt,))

    def declare(self, declarations: Iterable[AnyDeclaration]) -> None:
        """Declare these before whatever is published from now on, and after each reconnect."""
        new = list(declarations)

        def declare_now() -> None:
            self._declared += [each for each in new if each not in self._declared]
            if self._channel is not None:
                for each in new:
                    declare(self._channel, each)

        self.connection.call_soon(declare_now)

    def flush(self, timeout: float = 30.0) -> None:
        """Return when no receipt is waiting any more, whatever became of each.

        Raises:
            TimeoutError: some are still waiting after *timeout* seconds; says how many.
        """
        if not self._idle.wait_for(lambda: self._open == 0, timeout):
            raise TimeoutError(
                f"{self._open:,} messages are without an answer after {timeout:g} s; "
                f"the connection is {self.connection.state}"
            )

    def close(self, timeout: float = 5.0) -> None:
        """Wait up to *timeout* seconds for open receipts, then close; the rest becomes unknown.

        An interrupt ends the waiting; the publisher closes all the same.
        """
        finish(lambda: self._close(timeout))

    @property
    def in_flight(self) -> int:
        """How many receipts are waiting."""
        return self._open

    def __enter__(self) -> Publisher:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Publisher to {self.settings.url}: {self.connection.state}, {self._open} in flight>"
        )

    # ---- handing over --------------------------------------------------------------------------

    def _receipt(
        self,
        message: Message,
        queue: str,
        base: pika.BasicProperties | None,
        callback: Callable[[Receipt], None] | None,
    ) -> Receipt:
        message.body  # noqa: B018 -- encode here: a bad value is the caller's error, in its thread
        deadline = clock.monotonic() + self.settings.confirm_timeout
        name = self._names.get(queue) or self._checked_name(queue)
        return Receipt(message, name, int(clock.time()), base, deadline, callback)

    def _checked_name(self, queue: str) -> str:
        name = self._topology.wire_name(queue)
        if not 0 < len(name.encode()) <= 255:  # a lone surrogate is a ValueError here as well
            raise ValueError(f"queue name {name[:60]!r} is empty or longer than 255 bytes")
        self._names[queue] = name
        return name

    def _close(self, timeout: float) -> None:
        deadline = clock.monotonic() + timeout
        if self.connection.is_open:
            self._idle.wait_for(lambda: self._open == 0, timeout)
        self.connection.close(max(0.5, clock.remaining(deadline)))
        self._give_up(ConnectionLost("this publisher was closed; make a new one"))

    def _wait_for_room(self, deadline: float) -> None:
        """Hold the caller back while the window is full; several may pass at once.

        Not on the I/O thread: there nothing may wait, least of all for what only it can bring.
        """
        limit = self.settings.max_in_flight
        if self._open < limit or self.connection.io_thread.is_current_thread:
            return
        if not self._room.wait_for(
            lambda: self._open < limit or self._failure is not None, clock.remaining(deadline)
        ):
            raise OutcomeUnknown(
                f"{self._open:,} messages were without an answer for "
                f"{self.settings.confirm_timeout:g} s; the connection is {self.connection.state}. "
                f"This one was not sent"
            )

    def _submit(self, receipts: Iterable[Receipt]) -> None:
        """Queue receipts for the I/O thread."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            # First of all, for an interrupt may come after any call: what is in the outbox by then
            # has somebody who comes for it, and waits for the lock until we are through.
            if not self._drain_is_due:  # wake the I/O thread once per batch, not per message
                self.connection.call_soon(self._drain)
                self._drain_is_due = True
            for receipt in receipts:
                # It does not come between these two lines (CPython), so the count is right.
                self._open += 1
                self._outbox.append(receipt)

    # ---- I/O thread ----------------------------------------------------------------------------

    def opened(self, channel: Channel, ready: Callable[[], None]) -> None:
        """Session: declare, switch confirms on, and write what waits.

        In this order: the answer says that no declaration was refused, so one that is makes the
        connection fail for good, instead of begin anew for ever.
        """
        channel.add_on_return_callback(self._on_return)
        declared = list(self._declared)
        for declaration in declared:
            declare(channel, declaration)

        def on_confirming(_: Any) -> None:
            self._channel = channel
            self._heard = clock.monotonic()
            for declaration in self._declared[len(declared) :]:  # came up in the meantime
                declare(channel, declaration)
            ready()
            self._drain()

        channel.confirm_delivery(self._on_confirm, callback=on_confirming)

    def lost(self, error: MousetrapError) -> None:
        """Session: whatever was written and not answered is unknown now."""
        self._channel = None
        written = self._written.take_all()
        if isinstance(error, MessageTooLarge):
            guilty = [each for each in written if len(each.message.body) == error.size]
            written = [each for each in written if each not in guilty]
            self._settle(guilty, "refused", str(error), is_final=True)
        self._settle(written, "unknown", str(error))

    def failed(self, error: MousetrapError) -> None:
        """Session: the connection will not come back."""
        self._give_up(error)
        self._on_failed(error)

    def _drain(self) -> None:
        with self._lock:
            self._drain_is_due = False
            if self._channel is None:
                return
            batch, self._outbox = self._outbox, deque()
        for position, receipt in enumerate(batch):
            channel = self._channel
            if channel is None or not channel.is_open:  # lost while writing: keep the rest
                with self._lock:
                    self._outbox.extendleft(reversed(list(batch)[position:]))
                return
            try:
                publish(channel, receipt.exchange, receipt.queue, receipt.message, receipt.sent,
                        receipt.base, mandatory=not receipt.exchange)  # fmt: skip
            except Exception as error:  # noqa: BLE001 -- pika encodes before it writes: not sent
                kind = type(error).__name__
                self._settle([receipt], "refused", f"a header or property cannot be sent: {kind}",
                             is_final=True)  # fmt: skip
                continue
            self._written.add(receipt)

    def _on_confirm(self, frame: Any) -> None:
        self._heard = clock.monotonic()
        self.connection.worked()
        settled = self._written.take(frame.method.delivery_tag, multiple=frame.method.multiple)
        if isinstance(frame.method, spec.Basic.Ack):
            self._settle(settled, "confirmed")
        else:
            self._settle(settled, "refused", "nack")

    def _on_return(
        self, _: Channel, method: spec.Basic.Return, properties: pika.BasicProperties, __: bytes
    ) -> None:
        returned = self._written.take_returned(properties.message_id, method.routing_key)
        self._settle(returned, "returned", str(method.reply_text))

    def _settle(
        self,
        receipts: list[Receipt],
        outcome: ReceiptState,
        reason: str = "",
        is_final: bool = False,
    ) -> None:
        if not receipts:
            return
        for receipt in receipts:
            receipt.reason = reason
            receipt.is_final = is_final
            receipt.state = outcome
            if receipt._done is not None:
                receipt._done.notify_all()
        with self._lock:
            self._open -= len(receipts)
            left = self._open
        if left <= self.settings.max_in_flight // 2:
            self._room.notify_all()
        if left == 0:
            self._idle.notify_all()
        for receipt in receipts:
            if receipt._callback is not None:
                receipt._callback(receipt)

    @property
    def _patrol_interval(self) -> float:
        return min(1.0, self.settings.confirm_timeout / 4)  # seconds

    def _patrol(self) -> None:
        """Give the word *unknown* to whatever is past its deadline.

        If the broker has answered nothing at all in that time, and has no alarm, the connection is
        given up as well: a node that has lost the majority of its cluster is open and answers no
        publish, and another may.
        """
        now, patience = clock.monotonic(), self.settings.confirm_timeout
        late = self._written.take_late(now)
        is_silent = bool(late) and now - self._heard > patience
        with self._lock:
            while self._outbox and self._outbox[0].deadline < now:
                late.append(self._outbox.popleft())
        state, url = self.connection.state, self.settings.url
        self._settle(late, "unknown", f"no answer in {patience:g} s; the connection was {state}")
        if is_silent and state == "open":
            problem = f"{url} answered no publish within {patience:g} s; connect again"
            self.connection.give_up(ConnectionLost(problem))
        self.connection.call_later(self._patrol_interval, self._patrol)

    def _give_up(self, error: MousetrapError) -> None:
        with self._lock:
            self._failure = self._failure or error
            waiting, self._outbox = list(self._outbox), deque()
        self._room.notify_all()
        self._settle(waiting, "unknown", str(error))

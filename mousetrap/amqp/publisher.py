"""Publishing without waiting, with a true outcome for each message.

Every message is persistent, and mandatory unless `publish_to_exchange` publishes it. The broker
answers it with a confirm, a return or a refusal; a publish without an answer becomes *unknown* at
its deadline. Many publishes may wait for their answers at once: that is what makes confirmed
publishing fast.
Prototyped in ``notebooks/02_publisher.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pika import spec
from pika.channel import Channel

from mousetrap.amqp.confirming import confirm_all
from mousetrap.amqp.connection import CLOSE_HANDSHAKE_TIMEOUT, Connection
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.lost_queues import LostQueues
from mousetrap.amqp.new_receipts import NewReceipts
from mousetrap.amqp.process_end import finish_at_exit
from mousetrap.amqp.properties import AMQPProperties, sent_properties
from mousetrap.amqp.publish_window import PublishWindow
from mousetrap.amqp.queues_on_demand import QueuesOnDemand
from mousetrap.amqp.receipt import Receipt
from mousetrap.amqp.submitting import submit_all
from mousetrap.amqp.unconfirmed import UnconfirmedPublishes
from mousetrap.amqp.writing import why_unsent, write
from mousetrap.display.formats import counted
from mousetrap.errors import ConnectionLost, MessageTooLarge, MousetrapError
from mousetrap.model.delays import delay_queue, waiting_time
from mousetrap.model.message import Message
from mousetrap.model.targets import Address
from mousetrap.model.topology import AnyDeclaration
from mousetrap.runtime import clock, forks
from mousetrap.runtime.interrupt import run_uninterrupted
from mousetrap.settings import Settings

CLOSED = "this publisher was closed; make a new one"
MAX_BATCH = 256  # receipts that `publish_many` submits at a time


class Publisher(forks.OfOneProcess):
    """Publishes from any thread, gets an outcome for each message, and survives reconnects.

    When the connection breaks, messages that were written and not confirmed become *unknown*.
    Messages not written yet are written when it is restored, if their deadline allows. A queue of
    *on_demand* is declared before the messages that are published to it.

    Threads: any. `publish` blocks only while ``settings.max_in_flight`` receipts wait, and never
    on the I/O thread.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        purpose: str = "publisher",
        *,
        on_failed: Callable[[MousetrapError], object] = lambda _: None,
        on_demand: QueuesOnDemand | None = None,
        io_thread: IOThread | None = None,
        lost_queues: LostQueues | None = None,
        is_finished_at_exit: bool = True,
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.connection = Connection(self.settings, purpose, self, io_thread, lost_queues)
        self._receipt = NewReceipts(self.settings).make
        self.window = PublishWindow(self.settings, self.connection, self._write)
        self._on_failed = on_failed
        # Not a worker's: its messages come of others that are not acked, so none gets lost.
        self._is_finished_at_exit = is_finished_at_exit
        # I/O thread only:
        self._channel: Channel | None = None
        self._unconfirmed = UnconfirmedPublishes()
        self._last_answer = 0.0  # when the broker last answered a publish, on the monotonic clock
        self.on_demand = on_demand or QueuesOnDemand()
        self.connection.declarer.add_later(self.on_demand.declarations)
        self.connection.declarer.old = self.on_demand.new.old

    def open(self) -> Publisher:
        """Connect; safe to call while it is open. Raises what `Connection.open` raises.

        A publisher that was closed, has failed or did not open before raises the reason again.
        """
        if self.connection.state in ("closed", "failed"):
            raise self.window.failure or ConnectionLost(CLOSED)
        if self.connection.state == "new":
            try:
                self.connection.open()
            except BaseException as error:
                self.connection.close(timeout=0.0)
                closed = ConnectionLost(CLOSED)
                self.window.fail(error if isinstance(error, MousetrapError) else closed)
                raise
            self.window.accept()
            self.connection.call_later(self._deadline_interval, self._check_deadlines)
            if self._is_finished_at_exit:
                finish_at_exit(self)
        return self

    def publish(
        self,
        message: Message,
        queue: Address,
        *,
        properties: AMQPProperties | None = None,
        callback: Callable[[Receipt], None] | None = None,
    ) -> Receipt:
        """Publish *message* to *queue*, or an exchange, without waiting.

        The receipt gets the outcome.

        Receipts are settled in any order. *callback* is called with the settled receipt on the I/O
        thread and must return quickly. *properties* are those that another client gave the message
        and that it keeps (correlation id, priority, ...); ours are added to them.

        Raises:
            TypeError, ValueError: the data cannot be JSON; the body is too large; the queue's name
                is empty or too long.
            OutcomeUnknown: the window stayed full for ``settings.confirm_timeout``; the message was
                not sent.
            MousetrapError: the publisher is not open, or has failed permanently.
        """
        receipt = self._receipt(message, queue, properties, callback)
        self.window.wait_for_room(receipt.deadline)
        self.window.submit((receipt,))
        return receipt

    def publish_many(
        self,
        messages: Iterable[Message],
        queue: Address,
        *,
        priority: int | None = None,
        callback: Callable[[Receipt], None] | None = None,
        on_submitted: Callable[[list[Receipt]], object] = lambda _: None,
    ) -> list[Receipt]:
        """Publish *messages* to *queue* without waiting; return their receipts in the same order.

        Blocks, like `publish`, only while the window is full; *callback* as there. *on_submitted*
        is called with the receipts of each batch, once these messages will be sent. *priority* is
        from 0 to 255, for a queue that has priorities.

        Raises what `publish` raises, and what the iterator *messages* raises; an interrupt may come
        at any time. The messages before it are sent, and no other; their receipts are in
        ``receipts`` of the exception.
        """
        make = self._receipt
        receipts = (
            make(each, queue, None if priority is None else sent_properties(priority), callback)
            for each in messages
        )
        size = min(MAX_BATCH, self.settings.max_in_flight // 2 + 1)
        return submit_all(receipts, self.window, size, on_submitted)

    def delayed(self, queue: str, delay: float) -> str:
        """Return the queue to publish to, for messages that reach *queue* in *delay* seconds.

        It is declared when the first message is published to it, and needs no consumer. *delay* is
        from 0.05 s to seven days; it is rounded by less than 5 % or 100 ms (`model.delays`).
        *queue* must exist by then: until it does, the messages stay where they wait.
        """
        waits = waiting_time(delay)
        name = delay_queue(queue, waits)
        self.on_demand.add(self.settings.topology.waiting_queue(name, queue, waits))
        return name

    def publish_until_confirmed(
        self, messages: Iterable[Message], queue: str, timeout: float = 60.0
    ) -> list[Receipt]:
        """Publish *messages* and return when the broker has confirmed every one.

        Messages that were refused or became unknown (the broker restarted, the connection broke)
        are published again with the same id. So each is in the queue at least once, perhaps twice.

        Raises:
            Unroutable: there is no such queue; waiting would not help.
            PublishRefused: a message can never be sent as it is: it is too large for this broker,
                or a header cannot be encoded.
            TimeoutError: some are not confirmed after *timeout* seconds; says how many and why.
            Exception: what `publish_many` raises; ``receipts`` of each has what was published.
        """
        receipts = self.publish_many(messages, queue)
        return confirm_all(receipts, timeout, flush=self.flush, send_again=self.send_again)

    def send_again(self, receipt: Receipt) -> Receipt:
        """Publish the message of *receipt* again with the same id and callback; never blocks.

        Raises:
            MousetrapError: the publisher is not open, or has failed permanently.

        Threads: any, the I/O thread too.
        """
        again = type(receipt)(receipt.message, receipt.queue, receipt.sent, receipt.base,
                        clock.monotonic() + self.settings.confirm_timeout,
                        receipt._callback, receipt.exchange)  # fmt: skip
        self._submit(again)
        return again

    def publish_to_exchange(
        self,
        body: bytes,
        exchange: str,
        key: str,
        callback: Callable[[Receipt], None],
        properties: AMQPProperties | None = None,
    ) -> None:
        """Publish *body* to the queues bound to *exchange* by *key*, if any; never block.

        Raises:
            MousetrapError: the publisher is not open, or has failed permanently.

        Threads: any, the I/O thread too.
        """
        deadline = clock.monotonic() + self.settings.confirm_timeout
        receipt = Receipt(Message(body=body), key, int(clock.time()), properties, deadline,
                          callback, exchange)  # fmt: skip
        self._submit(receipt)

    def _submit(self, receipt: Receipt) -> None:
        if receipt.exchange in self.connection.declarer.absent:  # nobody is bound to it
            receipt.state = "confirmed"
            self.connection.call_soon(lambda: receipt._callback and receipt._callback(receipt))
        else:
            self.window.submit((receipt,))

    def declare(self, declarations: Iterable[AnyDeclaration]) -> None:
        """Declare *declarations* before the next publish, and again after each reconnect."""
        new = list(declarations)
        self.connection.call_soon(lambda: self._declare(new))

    def flush(self, timeout: float = 30.0) -> None:
        """Return when every receipt is settled, whatever its outcome.

        Raises:
            TimeoutError: some still wait after *timeout* seconds; says how many.
        """
        if not self.window.wait_until_empty(timeout):
            problem = f"no answer after {timeout:g} s for {counted(self.in_flight, 'message')}"
            raise TimeoutError(f"{problem}; the connection is {self.connection.state}")

    def close(self, timeout: float = 5.0) -> None:
        """Wait up to *timeout* seconds for answers, then close; the other receipts become unknown.

        An interrupt ends the wait; the publisher is closed all the same.
        """
        run_uninterrupted(lambda: self._close(timeout))

    def count_confirms(self) -> None:
        """Count confirms of new queues at once, also those that came before: a worker stops."""
        new = self.on_demand.new
        self.connection.call(lambda: self.window.settle(new.count_all(), "confirmed"))

    def refuse_new(self) -> None:
        """Raise an error for each publish from now on: the process ends."""
        self.window.refuse_new(ConnectionLost("the process ends: nothing more can be published"))

    def finish(self, timeout: float) -> int:
        """Close within *timeout* seconds; return how many messages were not confirmed meanwhile."""
        before = self.window.unconfirmed
        if self.connection.state not in ("new", "closed", "failed"):
            self.window.wait_until_empty(timeout)
            missing = self.in_flight + self.window.unconfirmed - before
            self.connection.close(0.0 if missing else 0.5)
            return missing
        return self.in_flight

    @property
    def in_flight(self) -> int:
        """How many receipts wait."""
        return self.window.in_flight

    def __enter__(self) -> Publisher:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self.connection.state
        return f"<Publisher to {self.settings.url}: {state}, {self.in_flight} in flight>"

    def _close(self, timeout: float) -> None:
        deadline = clock.monotonic() + timeout
        if self.connection.is_open:
            self.window.wait_until_empty(timeout)
        self.connection.close(max(CLOSE_HANDSHAKE_TIMEOUT, clock.remaining(deadline)))
        self.window.fail(ConnectionLost(CLOSED))

    # ---- I/O thread ----------------------------------------------------------------------------

    def opened(self, channel: Channel, ready: Callable[[], None]) -> None:
        """Session: declare, switch confirms on, and write the outbox.

        In this order, because the answer to confirm.select shows that no declaration was refused.
        Before that answer the channel counts as not set up, so a refused declaration makes the
        connection fail permanently, instead of reconnecting for ever.
        """
        channel.add_on_return_callback(self._on_return)
        declarer = self.connection.declarer
        number = declarer.declare(channel)

        def on_confirming(_: Any) -> None:
            self._channel = channel
            self._last_answer = clock.monotonic()
            declarer.declare(channel, number)  # those that were added in the meantime
            ready()
            self.on_demand.connected(self.connection.product, declares=declarer.declares_later)
            self.on_demand.new.exist(declarer.quorum_queues(), self._last_answer)
            self._write()

        channel.confirm_delivery(self._on_confirm, callback=on_confirming)

    def lost(self, error: MousetrapError) -> None:
        """Session: messages that were written and not answered become unknown."""
        self._channel = None
        self.on_demand.lost(error)
        written = self._unconfirmed.take_all() + self.on_demand.new.take_held()
        if isinstance(error, MessageTooLarge):
            too_large = [each for each in written if len(each.message.body) == error.size]
            written = [each for each in written if each not in too_large]
            self.window.settle(too_large, "refused", str(error), is_final=True)
        self.window.settle(written, "unknown", str(error))

    def forked(self, error: MousetrapError) -> None:
        """Session: this is a forked child, which publishes nothing with this publisher."""
        self._channel = None
        self.window.forked(error, self._unconfirmed.take_all() + self.on_demand.new.take_held())

    def failed(self, error: MousetrapError) -> None:
        """Session: the connection will not be restored."""
        self.window.fail(error)
        self._on_failed(error)

    def _declare(self, new: list[AnyDeclaration]) -> None:
        declarer = self.connection.declarer
        declarer.add_now(new, self._channel)
        if self._channel is not None:
            for name in declarer.quorum_queues(new):
                self.on_demand.new.declared_again(name)

    def _write(self) -> None:
        batch, queues = self.window.take(self._channel is not None), self.on_demand.batch()
        for position, receipt in enumerate(batch):
            channel = self._channel
            if channel is None or not channel.is_open:  # lost while writing: keep the rest
                self.window.put_back(list(batch)[position:])
                return
            if receipt.queue in queues:
                self.on_demand.prepare(channel, receipt, queues)
            try:
                write(channel, receipt)
            except Exception as error:  # noqa: BLE001 -- any error of pika's encoder: nothing was sent
                self.window.settle([receipt], "refused", why_unsent(receipt, error), is_final=True)
                continue
            self._unconfirmed.add(receipt)

    def _on_confirm(self, frame: Any) -> None:
        self._last_answer = clock.monotonic()
        self.connection.reset_backoff()
        method = frame.method
        settled = self._unconfirmed.take(method.delivery_tag, multiple=method.multiple)
        if isinstance(method, spec.Basic.Ack):
            self.window.settle(self.on_demand.confirmed(settled, self._last_answer), "confirmed")
        else:
            self.window.settle(settled, "refused", "nack")

    def _on_return(self, _: Channel, method: Any, properties: AMQPProperties, __: bytes) -> None:
        returned = self._unconfirmed.take_returned(properties.message_id, method.routing_key)
        self.on_demand.returned(returned)
        self.window.settle(returned, "returned", str(method.reply_text))

    @property
    def _deadline_interval(self) -> float:
        return min(1.0, self.settings.confirm_timeout / 4)  # seconds

    def _check_deadlines(self) -> None:
        """Settle the receipts that are past their deadline as *unknown*.

        If the broker has answered no publish at all in that time, and has no alarm, the connection
        is replaced as well: a node that has lost the majority of its cluster keeps its connections
        open and answers no publish; the new connection may reach another node.
        """
        now, timeout = clock.monotonic(), self.settings.confirm_timeout
        self.window.settle(self.on_demand.new.take(now), "confirmed")
        late = self._unconfirmed.take_late(now)
        is_silent = bool(late) and now - self._last_answer > timeout
        if (state := self.connection.state) == "open":
            self.on_demand.timed_out(late, timeout, is_silent=is_silent)
        late += self.window.take_late(now)
        self.window.settle(late, "unknown", f"no answer in {timeout:g} s; connection {state}")
        if is_silent and state == "open":
            problem = f"{self.settings.url} answered no publish within {timeout:g} s; connect again"
            self.connection.reconnect(ConnectionLost(problem))
        self.connection.call_later(self._deadline_interval, self._check_deadlines)

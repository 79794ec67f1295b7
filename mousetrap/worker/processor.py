"""What becomes of each delivery in a worker: handled, sent on, told, then acked.

The order is the promise: a source message is acked only after the broker has confirmed everything
that came of it, be it the outputs, the retry or the dead letter, and then its fate. So whatever
dies in between, the message comes again and its outputs have the same ids. Prototyped in
``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from mousetrap.amqp.consumer import Consumer, Delivery
from mousetrap.amqp.properties import AMQPProperties, kept_properties
from mousetrap.amqp.publisher import RESEND_DELAY, Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError, OutcomeUnknown, Reject
from mousetrap.model import poison_messages, retry_policy
from mousetrap.model.message import Message, current_message
from mousetrap.model.outcome import Outcome, Output, outputs_to
from mousetrap.model.topology import AnyDeclaration, Queue
from mousetrap.runtime import randomness, threads
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings
from mousetrap.worker.attempt import Attempt
from mousetrap.worker.events import Events, Told
from mousetrap.worker.executors import AsyncExecutor, Executor, ThreadExecutor
from mousetrap.worker.handler import Handler

log = logging.getLogger("mousetrap.worker.worker")

MOVING = 0.1  # seconds in which the broker has heard an ack that was sent; a guess
KEPT_FAILURES = 10  # each keeps its frames, and all that is in them, alive

Rule: TypeAlias = Callable[
    [Message, Queue], poison_messages.Move | MousetrapError
]  # where it is moved


class Processor:
    """Takes every delivery of `consumer`, which is set before the first one, to its end.

    `around` is a context manager in which each message is handled. *declarations* are put back
    when an output comes back because somebody deleted a queue; *on_crash* is told of a hand that
    dies, which is a defect.

    Threads: `take` on the I/O thread; handlers run on `executor`; the rest any.
    """

    consumer: Consumer

    def __init__(
        self,
        queue: Queue,
        handler: Handler,
        settings: Settings,
        publisher: Publisher,
        declarations: Sequence[AnyDeclaration],
        *,
        writes: str | None,
        concurrency: int,
        on_crash: Callable[[BaseException], object],
    ) -> None:
        self.handler = handler  # of the next message; those in hand keep theirs
        self.around: Callable[[Message], AbstractContextManager[object]] = nullcontext
        self.failures: deque[tuple[str, BaseException]] = deque(maxlen=KEPT_FAILURES)
        self.is_stopping = False  # what was not begun is left to the broker
        self.has_failed = False  # there is no way to go on: nothing is sent again
        self.changed = Waiter()  # rings when a count changes
        self.counts = dict.fromkeys(("received", "done", "retried", "dead"), 0)
        self.in_progress = 0
        self.problem = ""  # the last thing that went wrong, until something goes well
        self.executor: Executor[Delivery] = (
            AsyncExecutor(self._handle_async, concurrency, handler.name, on_crash)
            if handler.is_async
            else ThreadExecutor(self._handle, concurrency, handler.name, on_crash)
        )
        self._queue = queue
        self.writes = writes
        self._keeps = settings.keep_bodies
        self._publisher = publisher
        self._declarations = declarations
        self.events = Events(publisher, self._settle)
        self._lock = threads.Lock()  # guards the counts, and what is being moved
        self._moving: dict[str, Delivery] = {}  # not acked, and its copy is among the suspects

    def take(self, delivery: Delivery) -> None:
        """Have *delivery* handled when a hand is free; never blocks."""
        self.counts["received"] += 1
        if (
            delivery.is_near_delivery_limit
        ):  # it is moved at once: until a hand is free, more links may break
            self._begin(delivery)
        else:
            self.executor.take(delivery)

    def tally(self) -> dict[str, int]:
        """All counts, as of one moment."""
        with self._lock:
            return {"in_progress": self.in_progress, **self.counts}

    # ---- on the hands --------------------------------------------------------------------------

    def _handle(self, delivery: Delivery) -> None:
        if (attempt := self._begin(delivery)) is None:
            return
        message, handler = attempt.message, attempt.handler
        with self.around(message):
            token = current_message.set(message)
            try:
                result = handler.function(*handler.arguments(message))
                outputs = handler.outputs(result, message)
            except BaseException as error:  # noqa: BLE001 -- sys.exit() in a handler is a failure
                self.handle_failure(attempt, error)
            else:
                self._send(attempt, outputs)
            finally:
                current_message.reset(token)

    async def _handle_async(self, delivery: Delivery) -> None:
        if (attempt := self._begin(delivery)) is None:
            return
        message, handler = attempt.message, attempt.handler
        with self.around(message):
            token = current_message.set(message)
            try:
                result = await handler.function(*handler.arguments(message))
                outputs = handler.outputs(result, message)
            except BaseException as error:  # noqa: BLE001 -- as above
                self.handle_failure(attempt, error)
            else:
                self._send(attempt, outputs)
            finally:
                current_message.reset(token)

    def _begin(self, delivery: Delivery) -> Attempt | None:
        message = Message.from_wire(delivery.body, delivery.properties)
        with self._lock:
            if not self.consumer.is_current(delivery):
                return None  # the broker will deliver it again
            move = self._move_first(delivery, message)
            if self.is_stopping and move is None:
                return None  # the broker has it back when we are gone
            moved = self._moving.get(message.id)
            if moved is not None and self.consumer.is_current(moved):
                # begun now, it could kill us before that is acked, and there would be two of it
                self.consumer.connection.call_later(MOVING, lambda: self.executor.take(delivery))
                return None
            self.in_progress += 1
        attempt = Attempt(delivery, message, self.handler)
        if move is not None:
            self._move(attempt, move)
            return None
        delivery.handling_started = attempt.started
        return attempt

    def _move_first(self, delivery: Delivery, message: Message) -> Rule | None:
        """Say by which rule it is published anew before it is begun, if at all."""
        is_ours = not (
            delivery.is_possible_poison or delivery.has_ack_timed_out
        )  # with nothing to be counted
        if self.is_stopping:  # given back by the broker, a suspect would count as lost with us
            can_be_sent = self._publisher.connection.state == "open"
            return (
                poison_messages.uncounted
                if is_ours and can_be_sent and poison_messages.is_handled_alone(message)
                else None
            )
        if is_ours:
            return poison_messages.uncounted if delivery.is_near_delivery_limit else None
        return (
            poison_messages.after_ack_timeout
            if delivery.has_ack_timed_out
            else poison_messages.after_loss
        )

    def _move(self, attempt: Attempt, rule: Rule) -> None:
        delivery, message = attempt.delivery, attempt.message
        what_next = rule(message, self._queue)
        if not isinstance(what_next, poison_messages.Move):
            self.handle_failure(attempt, what_next)
            return

        def on_outcome(receipt: Receipt) -> None:  # on the publisher's I/O thread
            if receipt.confirmed:
                self.consumer.ack(delivery)
                self._drop(delivery)
                self._publisher.connection.call_later(MOVING, lambda: self._forget(message.id))
            else:
                self.send_again_later(delivery, receipt)

        with self._lock:
            self._moving[message.id] = delivery
        log.info("%s: message %s, %s -> %s", safe(self._queue.name), message.short_id,
                 rule.__name__.replace("_", " "), safe(what_next.target))  # fmt: skip
        properties = kept_properties(delivery.properties)
        if not self._hand_over(what_next.copy, what_next.target, properties, on_outcome):
            self._drop(delivery)

    def _forget(self, id: str) -> None:
        with self._lock:
            self._moving.pop(id, None)

    def _send(self, attempt: Attempt, outputs: list[Message]) -> None:
        if self.writes is None:  # results nobody asked for
            outputs = []
        writes = self.writes or ""
        if self._keeps:
            told = tuple([Output(each.id, writes, self._kept(each.body)) for each in outputs])
        else:
            told = outputs_to(writes, len(outputs))
        outcome = attempt.outcome("done", self._queue.name, told, body=self._kept_of_job(attempt))
        self._publish(attempt, [(each, writes, None) for each in outputs], outcome)

    def handle_failure(self, attempt: Attempt, error: BaseException) -> None:
        """Retry or dead-letter the message of *attempt*, as `after_failure` decides."""
        message = attempt.message
        failure = retry_policy.after_failure(message, error, self._queue)
        outcome = attempt.outcome(
            "dead" if failure.delay is None else "retried",
            self._queue.name,
            reason=failure.reason,
            traceback=failure.traceback,
            delay=failure.delay or 0.0,
            body=self._kept_of_job(attempt),
        )
        self.failures.append((message.id, error))
        # No error text here: it may quote the body, and logs go where bodies must not.
        log.log(
            logging.WARNING if failure.delay is None else logging.INFO,
            "%s: message %s, attempt %d: %s -> %s", safe(self._queue.name), message.short_id,
            message.attempt, type(error).__name__, safe(failure.target),
        )  # fmt: skip
        properties = kept_properties(attempt.delivery.properties)
        self._publish(attempt, [(failure.copy, failure.target, properties)], outcome)

    def _kept_of_job(self, attempt: Attempt) -> bytes | None:
        return None if attempt.message.parent else self._kept(attempt.message.body)

    def _kept(self, body: bytes) -> bytes | None:
        return body if 0 < self._keeps >= len(body) else None

    def _publish(
        self,
        attempt: Attempt,
        outputs: list[tuple[Message, str, AMQPProperties | None]],
        outcome: Outcome,
    ) -> None:
        """Publish all *outputs*; when the last is confirmed, tell the *fate* of *handling*."""
        if not outputs:
            self.events.tell(attempt.delivery, outcome)
            return
        sending = _OutputConfirms(self, attempt, outcome, len(outputs))
        for output in outputs:
            if not self._hand_over(*output, sending.on_outcome):
                self._drop(attempt.delivery)
                return

    def _hand_over(
        self,
        message: Message,
        queue: str,
        properties: AMQPProperties | None,
        callback: Callable[[Receipt], None],
    ) -> bool:
        """Give *message* to the publisher; False when that one is closed or has failed."""
        while True:
            try:
                self._publisher.publish(message, queue, properties=properties, callback=callback)
                return True
            except OutcomeUnknown as error:  # the window was full all the time: it was not sent
                self.problem = str(error)
            except MousetrapError:
                return False

    def _settle(self, told: list[Told]) -> None:
        """The broker has everything that came of these deliveries: have them acked."""
        # before they count: `stop` acks what has been counted
        self.consumer.ack(*[delivery for delivery, _ in told])
        with self._lock:
            for delivery, outcome in told:
                if not delivery.is_dropped:
                    self.in_progress -= 1
                self.counts[outcome.kind] += 1
            self.problem = ""
        self.changed.notify_all()

    def send_again_later(self, delivery: Delivery, receipt: Receipt) -> None:
        """Send what the broker did not confirm once more, while its source is not acked."""
        self.problem = str(receipt.error)
        log.warning("%s: %s", safe(self._queue.name), receipt.error)
        delay = RESEND_DELAY * (1 + randomness.random())  # so at most once a second
        self._publisher.connection.call_later(delay, lambda: self._send_again(delivery, receipt))

    def _send_again(self, delivery: Delivery, receipt: Receipt) -> None:
        if not self.consumer.is_current(delivery) or self.has_failed:
            self._forget(receipt.message.id)
            self._drop(delivery)  # its channel is gone: it comes again as a new delivery
            return
        if receipt.state == "returned":
            self._publisher.declare(self._declarations)  # somebody deleted a queue: put it back
        self._publisher.send_again(receipt)

    def _drop(self, delivery: Delivery) -> None:
        """Give up on a delivery without an ack; the broker still has the message."""
        with self._lock:
            if not delivery.is_dropped:
                delivery.is_dropped = True
                self.in_progress -= 1
        self.changed.notify_all()


class _OutputConfirms:
    """The outputs of one handling on their way. `on_outcome`: on the publisher's I/O thread."""

    __slots__ = ("attempt", "left", "outcome", "processor")

    def __init__(self, processor: Processor, attempt: Attempt, outcome: Outcome, left: int) -> None:
        self.processor = processor
        self.attempt = attempt
        self.outcome = outcome
        self.left = left  # outputs that are not confirmed so far; below 0: it has failed

    def on_outcome(self, receipt: Receipt) -> None:
        if receipt.confirmed:
            self.left -= 1
            if not self.left:
                self.processor.events.tell(self.attempt.delivery, self.outcome)
        elif receipt.is_final and self.outcome.kind == "done":
            if self.left > 0:
                self.left = -1
                self.processor.handle_failure(self.attempt, Reject(str(receipt.error)))
        else:
            self.processor.send_again_later(self.attempt.delivery, receipt)

"""What a worker does with each delivery: handles it, publishes outputs and outcome, then acks it.

The order is the guarantee: a message is acked only after the broker has confirmed everything that
came of it (the outputs, the retry or the dead letter) and then its outcome. If the worker or the
broker dies in between, the message is delivered again, and its outputs have the same ids.
Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from mousetrap.amqp.consumer import Consumer, Delivery
from mousetrap.amqp.properties import AMQPProperties, kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.safe_text import class_name, safe
from mousetrap.errors import Reject
from mousetrap.model import poison_messages, retry_policy
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome, Output, outputs_to
from mousetrap.model.topology import AnyDeclaration, Queue
from mousetrap.runtime import forks, threads
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings
from mousetrap.worker.attempt import Attempt, HandlerCall
from mousetrap.worker.events import Events
from mousetrap.worker.executors import AsyncExecutor, Executor, ThreadExecutor
from mousetrap.worker.handler import Handler
from mousetrap.worker.handling import SentMessage, inherit_in_threads
from mousetrap.worker.hooks import Hooks
from mousetrap.worker.moves import ACK_DELAY, MoveRule, Moves
from mousetrap.worker.publications import Publications

log = logging.getLogger("mousetrap.worker.worker")

MAX_FAILURES = 10  # errors that are kept; each keeps its frames, and all that is in them, alive


class Processor:
    """Handles the deliveries of *consumer* and publishes what comes of them by *publisher*.

    *declarations* are declared again when the broker returns an output because its queue was
    deleted. *on_crash* is called with an exception that ends a thread of the executor: a defect.

    Threads: `submit` on the I/O thread; handlers run on `executor`; the rest from any.
    """

    def __init__(
        self,
        queue: Queue,
        handler: Handler,
        settings: Settings,
        publisher: Publisher,
        consumer: Consumer,
        declarations: Sequence[AnyDeclaration],
        *,
        writes: str | None,
        concurrency: int,
        hooks: Hooks,
        on_crash: Callable[[BaseException], object],
    ) -> None:
        self.handler = handler  # of the next message; an attempt keeps the one it began with
        self.hooks = hooks
        self.settings = settings
        self.failures: deque[tuple[str, BaseException]] = deque(maxlen=MAX_FAILURES)
        self.is_stopping = False  # messages that were not begun are left to the broker
        self.changed = Waiter()  # notified when a count changes
        self.counts = dict.fromkeys(("received", "done", "retried", "dead"), 0)
        self.in_progress = 0
        self.executor: Executor[Delivery] = (
            AsyncExecutor(self._handle_async, concurrency, handler.name, on_crash)
            if handler.is_async
            else ThreadExecutor(self._handle, concurrency, handler.name, on_crash)
        )
        self.writes = writes
        self.events = Events(publisher, self._settle)
        self._queue = queue
        self._max_kept_body = settings.keep_bodies
        self._consumer = consumer
        self.publications = Publications(publisher, consumer, declarations, hooks, self._give_up)
        self.moves = Moves(queue, consumer, self.publications, self.handle_failure, self._drop)
        inherit_in_threads()
        self._lock = forks.released_in_child(threads.Lock())  # guards the counts

    def submit(self, delivery: Delivery) -> None:
        """Have *delivery* handled when the executor is free; never blocks."""
        self.counts["received"] += 1
        if self.hooks.received:
            self.hooks.call(self.hooks.received, delivery.properties.message_id or "")
        if delivery.is_near_delivery_limit:
            self._begin(delivery)  # moved at once: more connections may break before it is handled
        else:
            self.executor.submit(delivery)

    @property
    def problem(self) -> str:
        """The last thing that went wrong; cleared by the next ack."""
        return self.publications.problem

    def snapshot(self) -> dict[str, int]:
        """Return all counts, as of one moment."""
        with self._lock:
            return {"in_progress": self.in_progress, **self.counts}

    def swap(self, handler: Handler) -> None:
        """Have *handler* called from the next message on."""
        self.handler = handler

    def stop(self) -> None:
        """Begin no more messages; those in progress are finished."""
        self.is_stopping = True
        self.changed.notify_all()

    def fail(self) -> None:
        """Publish nothing again: there is no way to go on."""
        self.publications.has_failed = True

    # ---- on the executor's threads -------------------------------------------------------------

    def _handle(self, delivery: Delivery) -> None:
        if (attempt := self._begin(delivery)) is not None:
            message, handler = attempt.message, attempt.handler
            with HandlerCall(attempt, self) as call:
                call.outputs = handler.call(message)

    async def _handle_async(self, delivery: Delivery) -> None:
        if (attempt := self._begin(delivery)) is not None:
            message, handler = attempt.message, attempt.handler
            with HandlerCall(attempt, self) as call:
                call.follow_task()
                call.outputs = await handler.call_async(message)

    def _begin(self, delivery: Delivery) -> Attempt | None:
        """Return the attempt to handle *delivery*; None if it is not to be handled here and now."""
        message = Message.from_wire(delivery.body, delivery.properties)
        with self._lock:
            if not self._consumer.is_current(delivery):
                return None  # its channel is gone: the broker will deliver it again
            rule = self._move_rule(delivery, message)
            if self.is_stopping and rule is None:
                return None  # it goes back to its queue when the connection is closed
            if self.moves.holds(message.id):
                # This is the copy, and the original is not acked yet. If handling the copy now
                # ended this process, the broker would deliver both.
                self._consumer.connection.call_later(
                    ACK_DELAY, lambda: self.executor.submit(delivery)
                )
                return None
            self.in_progress += 1
        attempt = Attempt(delivery, message, self.handler)
        if rule is not None:
            self.moves.move(attempt, rule)
            return None
        delivery.handling_started = attempt.started
        return attempt

    def _move_rule(self, delivery: Delivery, message: Message) -> MoveRule | None:
        """Return the rule by which the message is published again before it is handled, if any."""
        is_unsuspicious = not (delivery.is_possible_poison or delivery.has_ack_timed_out)
        if self.is_stopping:
            # When the connection is closed, the broker requeues the messages that were not begun
            # and marks them as redelivered, which another process counts as a loss. A message that
            # is handled alone is near the limit of losses: it is published again instead.
            can_publish = self.publications.can_publish
            return (
                poison_messages.uncounted
                if is_unsuspicious and can_publish and poison_messages.is_handled_alone(message)
                else None
            )
        if is_unsuspicious:
            return poison_messages.uncounted if delivery.is_near_delivery_limit else None
        return (
            poison_messages.after_ack_timeout
            if delivery.has_ack_timed_out
            else poison_messages.after_loss
        )

    def publish_outputs(
        self, attempt: Attempt, outputs: list[Message], sent: Sequence[SentMessage] = ()
    ) -> None:
        """Publish what the handler returned, and what it *sent* itself.

        What it returned is dropped if the worker writes to no queue.
        """
        if self.writes is None:
            outputs = []
        writes = self.writes or ""
        recorded = outputs_to(writes, len(outputs))
        if self._max_kept_body:
            recorded = tuple(
                [Output(each.id, writes, self._kept_body(each.body)) for each in outputs]
            )
        for _, queue in sent:
            self.publications.add_target(queue)
        if sent:  # after the returned ones, whose position is part of their ids
            recorded += tuple(
                [Output(each.id, queue, self._kept_body(each.body)) for each, queue in sent]
            )
        outcome = attempt.outcome(
            "done", self._queue.name, recorded, body=self._kept_job_body(attempt)
        )
        published = [*[(each, writes) for each in outputs], *sent]
        self._publish(attempt, [(each, queue, None) for each, queue in published], outcome)

    def handle_failure(self, attempt: Attempt, error: BaseException) -> None:
        """Publish the message to a retry queue or the dead queue, as `retry_policy` decides."""
        message = attempt.message
        failure = retry_policy.after_failure(message, error, self._queue)
        outcome = attempt.outcome(
            "dead" if failure.delay is None else "retried",
            self._queue.name,
            reason=failure.reason,
            traceback=failure.traceback,
            delay=failure.delay or 0.0,
            body=self._kept_job_body(attempt),
        )
        self.failures.append((message.id, error))
        # No error text here: it may quote the body, and logs are read where bodies must not be.
        log.log(
            logging.WARNING if failure.delay is None else logging.INFO,
            "%s: message %s, attempt %d: %s -> %s", safe(self._queue.name), message.short_id,
            message.attempt, class_name(error), safe(failure.target),
        )  # fmt: skip
        properties = kept_properties(attempt.delivery.properties)
        self._publish(attempt, [(failure.copy, failure.target, properties)], outcome)

    def _kept_job_body(self, attempt: Attempt) -> bytes | None:
        return None if attempt.message.parent else self._kept_body(attempt.message.body)

    def _kept_body(self, body: bytes) -> bytes | None:
        return body if 0 < self._max_kept_body >= len(body) else None

    def _publish(
        self,
        attempt: Attempt,
        outputs: list[tuple[Message, str, AMQPProperties | None]],
        outcome: Outcome,
    ) -> None:
        """Publish all *outputs*; when the last one is confirmed, publish the *outcome*."""
        if not outputs:
            self.events.publish(attempt.delivery, outcome)
            return
        confirms = _OutputConfirms(self, attempt, outcome, len(outputs))
        for output in outputs:
            if not self.publications.publish(*output, confirms.on_outcome):
                self._drop(attempt.delivery)
                return

    # ---- on the publisher's I/O thread ---------------------------------------------------------

    def _settle(self, confirmed: list[tuple[Delivery, Outcome]]) -> None:
        """Ack deliveries: the broker has everything that came of them, and their outcomes.

        Threads: the I/O thread or, if events are switched off, also the executor's.
        """
        # before they are counted, because `Worker.stop` waits for the counts and then closes
        self._consumer.ack(*[delivery for delivery, _ in confirmed])
        if self.hooks.finished:
            for _, outcome in confirmed:
                self.hooks.call(self.hooks.finished, outcome)
        with self._lock:
            for delivery, outcome in confirmed:
                if not delivery.is_dropped:
                    self.in_progress -= 1
                self.counts[outcome.kind] += 1
            self.publications.problem = ""
        self.changed.notify_all()

    def _give_up(self, delivery: Delivery) -> None:
        self.moves.give_up(delivery)
        self._drop(delivery)

    def _drop(self, delivery: Delivery) -> None:
        """Count *delivery* as in progress no more: it has no outcome here.

        The broker has the message: a copy that was moved, or the original, which is not acked.
        """
        with self._lock:
            if not delivery.is_dropped:
                delivery.is_dropped = True
                self.in_progress -= 1
        self.changed.notify_all()


class _OutputConfirms:
    """Waits for the confirms of the outputs of one attempt.

    Threads: `on_outcome` on the publisher's I/O thread.
    """

    __slots__ = ("attempt", "left", "outcome", "processor")

    def __init__(self, processor: Processor, attempt: Attempt, outcome: Outcome, left: int) -> None:
        self.processor = processor
        self.attempt = attempt
        self.outcome = outcome
        self.left = left  # outputs that are not confirmed yet; below 0: one can never be published

    def on_outcome(self, receipt: Receipt) -> None:
        processor = self.processor
        if receipt.confirmed:
            processor.publications.report(receipt)
            self.left -= 1
            if not self.left:
                processor.events.publish(self.attempt.delivery, self.outcome)
        elif receipt.is_final and self.outcome.kind == "done":
            if self.left > 0:
                self.left = -1
                processor.handle_failure(self.attempt, Reject(str(receipt.error)))
        else:
            processor.publications.send_again_later(self.attempt.delivery, receipt)

"""What a worker does with each delivery: handles it, publishes outputs and outcome, then acks it.

The order is the guarantee: a message is acked only after the broker has confirmed everything that
came of it (the outputs, the retry or the dead letter) and then its outcome. If the worker or the
broker dies in between, the message is delivered again, and its outputs have the same ids.
Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.properties import kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.display.safe_text import class_name, safe
from mousetrap.errors import Expired, HandlersStuck, HandlerTimedOut, Reject, SinkError
from mousetrap.model import retry_policy
from mousetrap.model.delays import has_expired
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome
from mousetrap.model.targets import OutputTargets, SentMessage
from mousetrap.model.topology import AnyDeclaration, Queue
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings
from mousetrap.worker.answers import Answers
from mousetrap.worker.attempt import FAILED_LINE, Attempt, HandlerCall
from mousetrap.worker.attempts import Attempts
from mousetrap.worker.consumer_discovery import ConsumerDiscovery
from mousetrap.worker.events import Events
from mousetrap.worker.executors import AsyncExecutor, Executor, OnCrash, ThreadExecutor
from mousetrap.worker.give_back import GiveBack
from mousetrap.worker.handler import Handler
from mousetrap.worker.handling import current_task, inherit_in_threads
from mousetrap.worker.hooks import Hooks
from mousetrap.worker.loss_queries import LossQueries
from mousetrap.worker.moves import ACK_DELAY, Moves
from mousetrap.worker.publications import OnOutcome, OutputConfirms, Publication, Publications
from mousetrap.worker.recorder import Recorder
from mousetrap.worker.time_limit import TimeLimit

log = logging.getLogger("mousetrap.worker.worker")

MAX_FAILURES = 10  # errors that are kept; each keeps its frames, and all that is in them, alive


class Processor:
    """Handles the deliveries of *consumer* and publishes what comes of them by *publisher*.

    *declarations* are declared again when the broker returns an output because its queue was
    deleted. *timeout* is the time limit of the handler in seconds, or None. *on_crash* is called
    with an exception that ends a thread of the executor: a defect. *on_stuck* is called when no
    handler can go on.

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
        discovery: ConsumerDiscovery,
        targets: OutputTargets,
        concurrency: int,
        timeout: float | None,
        hooks: Hooks,
        on_crash: OnCrash,
        on_stuck: Callable[[HandlersStuck], object],
    ) -> None:
        self.handler = handler  # of the next message; an attempt keeps the one it began with
        self.hooks = hooks
        self.settings = settings
        self.failures: deque[tuple[str, BaseException]] = deque(maxlen=MAX_FAILURES)
        self._sink_problem = ""  # of the last handler that could not use its sink
        self.changed = Waiter()  # notified when a count changes
        self.counts = dict.fromkeys(("received", "done", "retried", "dead"), 0)
        self.attempts = Attempts()
        self._consumer = consumer
        self.executor = self._new_executor(handler, concurrency, on_crash)
        self.time_limit = TimeLimit(
            timeout, concurrency, self.executor, call_later=consumer.connection.call_later,
            time_out=self._time_out, make_void=self._make_void, on_stuck=on_stuck,
        )  # fmt: skip
        self.targets = targets
        self.events = Events(publisher, self._settle)
        self._queue = queue
        self._recorder = Recorder(settings.keep_bodies)
        self.answers = Answers(publisher)
        self.publications = Publications(publisher, consumer, declarations, hooks, self._give_up)
        self.moves = Moves(queue, consumer, self.publications, self._fail, self._drop)
        self._loss_queries = LossQueries(consumer, discovery, self._begin, self._route)
        inherit_in_threads()
        self.give_back = GiveBack(
            queue.name, consumer, self.attempts, self.moves, self.publications, self.executor,
            lambda: self.handler,
        )  # fmt: skip

    def _new_executor(self, handler: Handler, size: int, on_crash: OnCrash) -> Executor[Delivery]:
        if handler.is_async:
            return AsyncExecutor(self._handle_async, size, handler.name, on_crash)
        return ThreadExecutor(self._handle, size, handler.name, on_crash)

    def start(self) -> None:
        """Begin to handle messages, and to check the time limit."""
        self.executor.start()
        self.time_limit.start()

    def submit(self, delivery: Delivery) -> None:
        """Have *delivery* handled when the executor is free; never blocks."""
        self.counts["received"] += 1
        if self.hooks.received:
            id = delivery.message(self._queue.name).id if delivery.properties.message_id else ""
            self.hooks.call(self.hooks.received, id)
        self._route(delivery)

    def _route(self, delivery: Delivery) -> None:
        if (
            delivery.is_possible_poison
            or delivery.has_ack_timed_out
            or delivery.is_near_delivery_limit
        ):
            # Published again or dead-lettered at once, on this thread: all handlers may hang, and
            # more connections may break before it is handled.
            if not self._loss_queries.ask(delivery):
                self._begin(delivery)
        elif self.is_stopping:
            self.give_back.waiting(delivery)
        else:
            self.executor.submit(delivery)

    def _route_again(self, delivery: Delivery) -> None:
        if not self.is_stopping:  # else it has been given back
            self._route(delivery)

    @property
    def problem(self) -> str:
        """The last thing that went wrong; cleared by the next ack, a sink's by the next success."""
        return self.publications.problem or self._sink_problem

    @property
    def in_progress(self) -> int:
        """How many messages were begun and are neither acked nor left to the broker yet."""
        return len(self.attempts)

    @property
    def unacked(self) -> int:
        """How many deliveries, begun or not, are not acked yet."""
        return self._consumer.unacked

    @property
    def is_stopping(self) -> bool:
        """Whether no more messages are begun."""
        return self.attempts.is_closed

    def snapshot(self) -> dict[str, int]:
        """Return all counts, as of one moment."""
        with self.attempts.lock:
            return {"in_progress": self.in_progress, **self.counts}

    def swap(self, handler: Handler) -> None:
        """Have *handler* called from the next message on."""
        self.handler = handler

    def stop(self) -> None:
        """Begin no more messages; those in progress are finished."""
        self.attempts.close()
        self.changed.notify_all()

    def fail(self) -> None:
        """Publish nothing again: there is no way to go on."""
        self.publications.has_failed = True

    # ---- on the executor's threads -------------------------------------------------------------

    def _handle(self, delivery: Delivery) -> None:
        if (attempt := self._begin(delivery)) is not None:
            message, handler = attempt.message, attempt.handler
            with HandlerCall(attempt, self) as call:
                call.outputs = handler.call(message, call)
            self.attempts.running.pop(delivery, None)

    async def _handle_async(self, delivery: Delivery) -> None:
        if (attempt := self._begin(delivery)) is not None:
            message, handler = attempt.message, attempt.handler
            try:
                with HandlerCall(attempt, self, asyncio.current_task()) as call:
                    call.outputs = await handler.call_async(message, call)
                if attempt.unpublished is not None:
                    await self._publish_when_there_is_room(attempt, *attempt.unpublished)
            finally:
                self.attempts.running.pop(delivery, None)

    def _begin(self, delivery: Delivery) -> Attempt | None:
        """Return the attempt to handle *delivery*; None if it is not to be handled here and now."""
        message = delivery.message(self._queue.name)
        with self.attempts.lock:
            if not self._consumer.is_current(delivery):
                return None  # its channel is gone: the broker will deliver it again
            if self.is_stopping:
                return None  # see `GiveBack`
            if self.moves.holds(message.id):
                # This is the copy, and the original is not acked yet. If handling the copy now
                # ended this process, the broker would deliver both.
                self._consumer.connection.call_later(ACK_DELAY, lambda: self._route_again(delivery))
                return None
            attempt = Attempt(delivery, message, self.handler)
            self.attempts.by_delivery[delivery] = attempt
        if (rule := self.moves.rule(delivery)) is not None:
            self.moves.move(attempt, rule)
            return None
        if message.headers and has_expired(message.headers):
            self._fail(attempt, Expired())
            return None
        self.attempts.running[delivery] = attempt
        delivery.handling_started = attempt.started
        return attempt

    def publish_outputs(
        self, attempt: Attempt, outputs: list[Message], sent: Sequence[SentMessage] = ()
    ) -> None:
        """Publish what the handler returned, and what it *sent* to other targets.

        What it returned is dropped if the worker writes to no queue; all is dropped if the attempt
        has ended before: it took too long, or its message was given back.
        """
        if not self._end(attempt):
            return
        writes = self.targets.plain
        if attempt.delivery.properties.reply_to:
            self.answers.keep(attempt.delivery, outputs, getattr(attempt, "returned", None))
        if not writes:
            outputs = []
        recorded = self._recorder.outputs(writes, outputs, sent)
        published: list[Publication] = [(each, writes, None) for each in outputs]
        if sent:  # after the returned ones, whose position is part of their ids
            published += [self.publications.of(each) for each in sent]
        outcome = attempt.outcome(
            "done", self._queue.name, recorded, body=self._recorder.job_body(attempt.message)
        )
        self._publish(attempt, published, outcome)

    def handle_failure(self, attempt: Attempt, error: BaseException) -> None:
        """Publish the message to a retry queue or the dead queue, as `retry_policy` decides.

        Nothing is published if the attempt has ended before.
        """
        failure = retry_policy.after_failure(attempt.message, error, self._queue)
        if self._end(attempt):  # after the text of the error was made: that is the user's code
            self._replace(attempt, error, failure)

    def _fail(self, attempt: Attempt, error: BaseException) -> None:
        failure = retry_policy.after_failure(attempt.message, error, self._queue)
        self._replace(attempt, error, failure)

    def _end(self, attempt: Attempt) -> bool:
        is_first = self.attempts.end(attempt)
        if not is_first:
            log.info("%s: message %s: a late result of %s is dropped", safe(self._queue.name),
                     attempt.message.short_id, safe(attempt.handler.name))  # fmt: skip
        return is_first

    def _time_out(self, delivery: Delivery) -> bool:
        """Have the message of *delivery* fail, whose handler exceeded the time limit.

        Return False if the handler has returned and its thread waits for the broker.
        """
        if (attempt := self.attempts.running.get(delivery)) is None:
            return False  # it has just ended
        if attempt.has_ended:
            return attempt.is_given_to_publisher  # then its thread hangs, in a hook
        self.handle_failure(
            attempt,
            HandlerTimedOut(
                f"{attempt.handler.name} had not returned after {self.time_limit.limit:g} s, its "
                f"timeout; it hangs, or it needs a longer one"
            ),
        )
        return True

    def _make_void(self, delivery: Delivery) -> bool:
        """Drop what the handler of *delivery* returns: the broker delivers the message again.

        Return False as `_time_out` does.
        """
        if (attempt := self.attempts.running.get(delivery)) is None:
            return False
        if not self.attempts.end(attempt):
            return attempt.is_given_to_publisher
        self._drop(delivery)
        return True

    def _replace(
        self, attempt: Attempt, error: BaseException, failure: retry_policy.Replacement
    ) -> None:
        message = attempt.message
        outcome = attempt.outcome(
            "dead" if failure.delay is None else "retried",
            self._queue.name,
            reason=failure.reason,
            traceback=failure.traceback,
            delay=failure.delay or 0.0,
            body=self._recorder.job_body(attempt.message),
        )
        self.failures.append((message.id, error))
        # by its type: `isinstance` asks the error for its class, which may be the user's code. The
        # text is ours, so no part of a body is in it.
        if issubclass(type(error), SinkError):
            self._sink_problem = str(error)
        # No error text here: it may quote the body, and logs are read where bodies must not be.
        log.log(
            logging.WARNING if failure.delay is None else logging.INFO,
            FAILED_LINE, safe(self._queue.name), message.short_id, message.attempt,
            class_name(error), safe(failure.target), extra={"of_message": message},
        )  # fmt: skip
        properties = kept_properties(attempt.delivery.properties)
        if failure.delay is None and properties.reply_to:
            self.answers.keep_failure(attempt.delivery, failure.reason)
        copy = failure.copy, failure.target, properties
        self._publish(attempt, [copy, *self.publications.death_notices(failure)], outcome)

    def _publish(
        self,
        attempt: Attempt,
        outputs: list[Publication],
        outcome: Outcome,
    ) -> None:
        """Publish all *outputs*; when the last one is confirmed, publish the *outcome*.

        A coroutine does so later if there is no room now: it must not stop its event loop.
        """
        delivery = attempt.delivery
        confirms = OutputConfirms(
            self.publications, delivery, len(outputs),
            on_all=lambda: self._publish_outcome(delivery, outcome),
            on_impossible=(lambda error: self._fail(attempt, Reject(str(error))))
            if outcome.kind == "done" else None,
        )  # fmt: skip
        if not outputs:
            self._publish_outcome(delivery, outcome)
        elif current_task() is not None and not self.publications.has_room(len(outputs)):
            attempt.unpublished = outputs, confirms.on_outcome
            return
        elif not self.publications.publish_all(outputs, confirms.on_outcome):
            self._drop(delivery)
        attempt.is_given_to_publisher = True

    def _publish_outcome(self, delivery: Delivery, outcome: Outcome) -> None:
        if self.answers.kept:
            self.answers.send(delivery)
        self.events.publish(delivery, outcome)

    async def _publish_when_there_is_room(
        self, attempt: Attempt, outputs: Sequence[Publication], on_outcome: OnOutcome
    ) -> None:
        if not await self.publications.publish_all_in_turn(outputs, on_outcome):
            self._drop(attempt.delivery)
        attempt.is_given_to_publisher = True

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
        with self.attempts.lock:
            for delivery, outcome in confirmed:
                self.attempts.by_delivery.pop(delivery, None)
                self.counts[outcome.kind] += 1
            self.publications.problem = ""
            if self._sink_problem and any(each.kind == "done" for _, each in confirmed):
                self._sink_problem = ""
        self.changed.notify_all()

    def _give_up(self, delivery: Delivery) -> None:
        self.moves.give_up(delivery)
        self._drop(delivery)

    def _drop(self, delivery: Delivery) -> None:
        """Count *delivery* as in progress no more: it has no outcome here.

        The broker has the message: a copy that was moved, or the original, which is not acked.
        """
        self.attempts.remove(delivery)
        self.answers.kept.pop(delivery, None)
        self.changed.notify_all()

"""What a join does with the messages that it holds: publishes what they become, and acks them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import msgspec

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.properties import kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError
from mousetrap.model import retry_policy
from mousetrap.model.headers import kept_headers
from mousetrap.model.join_headers import NOTICE
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome, OutcomeKind, Output
from mousetrap.model.topology import AnyDeclaration, Queue
from mousetrap.runtime import clock
from mousetrap.worker.attempt import worker_name
from mousetrap.worker.events import Events
from mousetrap.worker.hooks import Hooks
from mousetrap.worker.join_group import HeldMessage
from mousetrap.worker.publications import OutputConfirms, Publication, Publications
from mousetrap.worker.recorder import Recorder

log = logging.getLogger("mousetrap.worker.worker")


class HeldMessages:
    """Settles the messages that *consumer* received from ``queue.join``, for the stage *stage*.

    Nothing is acked before the broker has confirmed what is published in its place, and its
    outcome.

    Threads: the I/O thread.
    """

    def __init__(
        self,
        queue: Queue,
        stage: str,
        consumer: Consumer,
        publisher: Publisher,
        declarations: Sequence[AnyDeclaration],
    ) -> None:
        self.recorder = Recorder(consumer.settings.keep_bodies)
        self._queue = queue
        self._stage = stage
        self._consumer = consumer
        self._publications = Publications(
            publisher, consumer, declarations, Hooks(queue.join), lambda _: None
        )
        self._events = Events(publisher, self._on_outcomes)

    def publish(
        self,
        anchor: HeldMessage,
        publications: Sequence[Publication],
        on_all: Callable[[], object],
        on_impossible: Callable[[], object] | None = None,
    ) -> None:
        """Publish all for *anchor*; call *on_all* when the broker has confirmed the last one.

        Nothing is called if the channel of *anchor* is lost: the broker delivers it again.
        """
        confirms = OutputConfirms(
            self._publications, anchor.delivery, len(publications), on_all=on_all,
            on_impossible=None if on_impossible is None else lambda _: on_impossible(),
        )  # fmt: skip
        self._publications.publish_all(publications, confirms.on_outcome)

    def publish_again(self, held: HeldMessage) -> None:
        """Publish a copy of *held*, then ack it: the copy has its own time and delivery count."""
        held.is_published_again = True
        copy = held.message.copy(held.message.attempt, kept_headers(held.message.headers))
        properties = kept_properties(held.delivery.properties)
        self.publish(held, [(copy, self._queue.join, properties)], lambda: self.ack(held.delivery))

    def dead_letter(self, held: HeldMessage, error: MousetrapError) -> None:
        """Publish *held* to the dead queue of the join's work queue, with *error* as the reason."""
        failure = retry_policy.after_failure(held.message, error, self._queue)
        log.warning("%s: message %s: %s -> %s", safe(self._queue.join), held.message.short_id,
                    safe(failure.reason), safe(failure.target))  # fmt: skip
        properties = kept_properties(held.delivery.properties)
        self.publish(
            held, [(failure.copy, failure.target, properties)],
            lambda: self.publish_dead(held, failure),
        )  # fmt: skip

    def publish_dead(self, held: HeldMessage, failure: retry_policy.Replacement) -> None:
        """Publish the outcome of what was dead-lettered, a message or a group; then ack *held*."""
        outcome = self._outcome(failure.copy, held, "dead", self._stage, self._queue.name)
        outcome = msgspec.structs.replace(
            outcome, reason=failure.reason, traceback=failure.traceback
        )
        self._events.publish(held.delivery, outcome)

    def release(self, held: HeldMessage, outputs: tuple[Output, ...] = ()) -> None:
        """Ack *held* when its outcome is confirmed; a notice without *outputs* has none."""
        if outputs or NOTICE not in held.message.headers:
            name = self._queue.join
            outcome = self._outcome(held.message, held, "done", name, name, outputs)
            self._events.publish(held.delivery, outcome)
        else:
            self.ack(held.delivery)

    def ack(self, delivery: Delivery) -> None:
        """Ack *delivery*; safe to repeat."""
        self._consumer.ack(delivery)

    def _outcome(
        self,
        message: Message,
        held: HeldMessage,
        kind: OutcomeKind,
        stage: str,
        queue: str,
        outputs: tuple[Output, ...] = (),
    ) -> Outcome:
        return Outcome(
            message.id, kind, stage, queue, worker_name(os.getpid()), held.begun,
            clock.monotonic() - held.since, message.attempt,
            "" if message.job == message.id else message.job, message.parent, outputs,
        )  # fmt: skip

    def _on_outcomes(self, confirmed: list[tuple[Delivery, Outcome]]) -> None:
        self._consumer.ack(*[delivery for delivery, _ in confirmed])

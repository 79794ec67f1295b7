"""Gives messages back to their queue when a worker stops, so that no process counts them as lost.

When a connection is closed, the broker requeues what is not acked and marks it as redelivered. A
process that receives such a message counts a lost worker, because it cannot know how the other one
ended. A worker that stops in an orderly way publishes a copy instead, with the same id and the same
counts, and acks the original when the broker has confirmed the copy.
"""

from __future__ import annotations

from collections.abc import Callable

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.model import poison_messages
from mousetrap.worker.attempt import Attempt
from mousetrap.worker.attempts import Attempts
from mousetrap.worker.executors import Executor
from mousetrap.worker.handler import Handler
from mousetrap.worker.moves import Moves
from mousetrap.worker.publications import Publications


class GiveBack:
    """Gives back what *consumer* holds; *handler* returns the worker's present handler.

    A message that cannot be published now is left to the broker.

    Threads: the I/O thread, so that nothing waits for a handler or for room to publish.
    """

    def __init__(
        self,
        queue: str,
        consumer: Consumer,
        attempts: Attempts,
        moves: Moves,
        publications: Publications,
        executor: Executor[Delivery],
        handler: Callable[[], Handler],
    ) -> None:
        self._queue = queue
        self._consumer = consumer
        self._attempts = attempts
        self._moves = moves
        self._publications = publications
        self._executor = executor
        self._handler = handler
        self._includes_all = False
        self.begun = 0  # messages that were given back although their handler had begun

    def all_waiting(self, *, by_copy: bool) -> None:
        """Give back the messages that were not begun, and those that still arrive.

        This process does not count a redelivery of what it held itself (see
        `mousetrap.amqp.redeliveries`). So without *by_copy* most of them are left to the broker,
        which keeps their order. Messages that are handled alone are published again all the same:
        they are near the limit of losses.
        """
        self._includes_all = by_copy
        for delivery in self._consumer.held():
            has_begun = delivery.handling_started is not None
            if not has_begun and delivery not in self._attempts.by_delivery:
                self.waiting(delivery)

    def waiting(self, delivery: Delivery) -> None:
        """Give back one message that was not begun."""
        message = delivery.message(self._queue)
        if self._includes_all or poison_messages.is_handled_alone(message):
            self._publish_again(Attempt(delivery, message, self._handler()))

    def all_begun(self) -> None:
        """Give back the messages that were begun; what their handlers return is dropped."""
        held = self._consumer.held()
        left = set(self._attempts.by_delivery)
        for delivery in held:
            attempt = self._attempts.by_delivery.get(delivery)
            if attempt is not None and delivery.handling_started is not None:
                self._publish_again(attempt)
                self._executor.abandon(delivery)
                self.begun += 1
        for delivery in left.difference(held):
            self._attempts.remove(delivery)  # its channel is gone: the broker delivers it again

    def _publish_again(self, attempt: Attempt) -> None:
        delivery = attempt.delivery
        is_suspicious = delivery.is_possible_poison or delivery.has_ack_timed_out
        if self._publications.can_publish and not is_suspicious:
            self._attempts.add_ended(attempt)
            self._moves.move(attempt, poison_messages.uncounted)

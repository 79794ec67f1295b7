"""Publishes messages again before they are handled: possible poison messages and others.

A worker publishes a copy of the message, acks the original when the broker has confirmed the copy,
and handles the copy when that is delivered. `mousetrap.model.poison_messages` decides which counts
the copy has and where it goes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.properties import kept_properties
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.safe_text import safe
from mousetrap.errors import MousetrapError
from mousetrap.model import poison_messages
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.runtime import forks, threads
from mousetrap.worker.attempt import Attempt
from mousetrap.worker.publications import Publications

log = logging.getLogger("mousetrap.worker.worker")

ACK_DELAY = 0.1  # seconds after which the broker has received an ack that was sent; a guess

# Decides whether a message is published again or dead-lettered, and where to.
MoveRule: TypeAlias = Callable[[Message, Queue], poison_messages.Move | MousetrapError]


class Moves:
    """Moves messages of *queue*, which *consumer* has received.

    *on_dead* is called with an attempt, and the error for which its message is to be
    dead-lettered. *on_moved* is called with a delivery that is no longer in progress.

    Threads: any.
    """

    def __init__(
        self,
        queue: Queue,
        consumer: Consumer,
        publications: Publications,
        on_dead: Callable[[Attempt, MousetrapError], object],
        on_moved: Callable[[Delivery], object],
    ) -> None:
        self._queue = queue
        self._consumer = consumer
        self._publications = publications
        self._on_dead = on_dead
        self._on_moved = on_moved
        self.rule = move_rule  # says by which rule a delivery is published again, if any
        self._lock = forks.released_in_child(threads.Lock())  # guards `under_way`
        self.under_way: dict[str, Delivery] = {}  # by id: published again and not acked yet

    def holds(self, id: str) -> bool:
        """Return whether the original of message *id* is moved now and is not acked yet."""
        if not self.under_way:
            return False
        moved = self.under_way.get(id)
        return moved is not None and self._consumer.is_current(moved)

    def move(self, attempt: Attempt, rule: MoveRule) -> None:
        """Publish the message of *attempt* again, or have it dead-lettered, by *rule*."""
        delivery, message = attempt.delivery, attempt.message
        decision = rule(message, self._queue)
        if not isinstance(decision, poison_messages.Move):
            self._on_dead(attempt, decision)
            return

        def on_outcome(receipt: Receipt) -> None:  # on the publisher's I/O thread
            if receipt.confirmed:
                self._publications.report(receipt)
                self._consumer.ack(delivery)
                self._on_moved(delivery)
                self._publications.call_later(ACK_DELAY, lambda: self._end(message.id))
            else:
                self._publications.send_again_later(delivery, receipt)

        with self._lock:
            self.under_way[message.id] = delivery
        # A message that this worker itself gives back is no news.
        level = logging.DEBUG if rule is poison_messages.uncounted else logging.INFO
        log.log(level, "%s: message %s, %s -> %s", safe(self._queue.name), message.short_id,
                rule.__name__.replace("_", " "), safe(decision.target))  # fmt: skip
        properties = kept_properties(delivery.properties)
        if not self._publications.publish(decision.copy, decision.target, properties, on_outcome):
            self._on_moved(delivery)

    def give_up(self, delivery: Delivery) -> None:
        """Forget the move of *delivery*, if there is one: the broker will deliver it again."""
        with self._lock:
            for id, moved in list(self.under_way.items()):
                if moved is delivery:
                    del self.under_way[id]

    def _end(self, id: str) -> None:
        with self._lock:
            self.under_way.pop(id, None)


def move_rule(delivery: Delivery) -> MoveRule | None:
    """Return the rule by which a message is published again before it is handled, if any."""
    if delivery.has_ack_timed_out:
        return poison_messages.after_ack_timeout
    if delivery.is_possible_poison:
        return poison_messages.after_loss
    return poison_messages.uncounted if delivery.is_near_delivery_limit else None

"""Asks the other workers before a loss is counted: was the message held by one that is alive?

When a connection breaks, the broker delivers its messages again, to any worker of the queue. That
one cannot see whether the worker before it crashed or only lost its connection. So it asks, by
`mousetrap.worker.consumer_discovery`, and each process answers with what it held and survived (see
`mousetrap.amqp.redeliveries`). Without an answer the loss is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.properties import delivery_count
from mousetrap.display.safe_text import safe
from mousetrap.model import poison_messages
from mousetrap.runtime import clock
from mousetrap.worker.consumer_discovery import ConsumerDiscovery
from mousetrap.worker.discovery_messages import SurvivorAnswer

# Seconds for an answer. A worker whose connection broke answers when it is connected again, and the
# longest delay between two tries to connect is five seconds (see `mousetrap.model.backoff`).
SURVIVOR_TIMEOUT = 6.0
ASK_AGAIN_INTERVAL = 0.5  # seconds between two queries: one that connects now did not get the last
MAX_ASKED = 500  # messages in one query
# A quorum queue drops a message at its 21st delivery. Each connection that breaks while an answer
# is waited for is one delivery more, so from this one on the message is published again at once.
LAST_ASKED_DELIVERY = 15

log = logging.getLogger("mousetrap.worker.worker")


class LossQueries:
    """Holds back the possible poison messages of *consumer* until it is known if a worker was lost.

    They stay unacked meanwhile, so nothing is lost if this worker ends. *on_lost* is called with a
    delivery that counts as a loss, *on_survived* with one that does not.

    Threads: the I/O thread, so that nothing waits for a handler, and no handler waits.
    """

    def __init__(
        self,
        consumer: Consumer,
        discovery: ConsumerDiscovery,
        on_lost: Callable[[Delivery], object],
        on_survived: Callable[[Delivery], object],
    ) -> None:
        self._consumer = consumer
        self._discovery = discovery
        self._on_lost = on_lost
        self._on_survived = on_survived
        self._deadlines: dict[Delivery, float] = {}  # on the monotonic clock
        self._query_is_due = False
        self._is_repeating = False
        self._unknown_since: int | None = None  # generation in which nobody had a recovered message
        discovery.when_survived(self._on_answer, self._query)

    def ask(self, delivery: Delivery) -> bool:
        """Ask whether *delivery* is a loss, and return True; False if that is not to be asked.

        Not asked is what could not be answered, and what makes no difference: the first loss.
        """
        if (
            not delivery.is_possible_poison
            or not delivery.properties.message_id
            or not self._discovery.can_ask
            or delivery_count(delivery.properties) >= LAST_ASKED_DELIVERY
            or poison_messages.is_first_loss(delivery.as_held.losses)
        ):
            return False
        if delivery.was_recovered and delivery.generation == self._unknown_since:
            self._is_no_loss(delivery)
            return True
        self._deadlines[delivery] = clock.monotonic() + SURVIVOR_TIMEOUT
        if not self._query_is_due:  # one query for all that were delivered together
            self._query_is_due = True
            self._consumer.connection.call_soon(self._query)
        if not self._is_repeating:
            self._is_repeating = True
            self._consumer.connection.call_later(ASK_AGAIN_INTERVAL, self._repeat)
        return True

    def _query(self) -> None:
        self._query_is_due = False
        asked = sorted({_key(each) for each in self._current()})
        for start in range(0, len(asked), MAX_ASKED):
            self._discovery.ask_survivors(asked[start : start + MAX_ASKED])

    def _current(self) -> list[Delivery]:
        """Return the deliveries that wait, and forget those whose channel is gone."""
        for each in [each for each in self._deadlines if not self._consumer.is_current(each)]:
            del self._deadlines[each]
        return list(self._deadlines)

    def _repeat(self) -> None:
        now = clock.monotonic()
        for each in self._current():
            if not self._discovery.can_publish:  # nothing can be asked, or counted, before it can
                self._deadlines[each] = now + SURVIVOR_TIMEOUT
            if not self._discovery.can_ask or self._deadlines[each] < now:
                del self._deadlines[each]
                if each.was_recovered and self._discovery.can_ask:
                    self._unknown_since = each.generation
                    self._is_no_loss(each)
                else:
                    self._on_lost(each)
        self._is_repeating = bool(self._deadlines)
        if self._is_repeating:
            self._query()
            self._consumer.connection.call_later(ASK_AGAIN_INTERVAL, self._repeat)

    def _is_no_loss(self, delivery: Delivery) -> None:
        """Nobody had it: a restarted broker marks what waited (see `recovered_messages`)."""
        delivery.was_survived(has_ack_timed_out=delivery.has_ack_timed_out)
        self._on_survived(delivery)

    def _on_answer(self, answer: SurvivorAnswer) -> None:
        survived = {(id, losses): timed_out for id, losses, timed_out in answer.messages}
        for each in self._current():
            has_ack_timed_out = survived.get(_key(each))
            if has_ack_timed_out is not None:
                del self._deadlines[each]
                each.was_survived(has_ack_timed_out=has_ack_timed_out)
                log.info("%s: message %s was held by a worker that is alive: not counted as a loss",
                         safe(self._consumer.queue), safe(each.as_held.id[:8]))  # fmt: skip
                self._on_survived(each)


def _key(delivery: Delivery) -> tuple[str, int]:
    held = delivery.as_held
    return held.id, held.losses

"""Publishes the outcomes of messages to the events exchange, many in one body.

Outcomes that arise while the I/O thread is busy are sent together. If no queue is bound to the
exchange, the broker drops the event and confirms it as well. Prototyped in
``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mousetrap.amqp.confirming import RESEND_DELAY
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import MousetrapError
from mousetrap.model.outcome import Outcome, pack
from mousetrap.runtime import forks, randomness, threads

MAX_EVENT_BYTES = 4_000_000  # of one body; a guess well below what brokers accept

DeliveryOutcome = tuple[Delivery, Outcome]


class Events:
    """Publishes outcomes by *publisher* and calls *on_confirmed* with what the broker confirmed.

    An event that is refused or whose confirm is missing is sent again until it is confirmed. A
    ledger that receives the same outcome twice counts it once.

    Threads: `publish` from any; *on_confirmed* is called on the publisher's I/O thread or, where
    events are switched off, on the thread that called `publish`.
    """

    def __init__(
        self, publisher: Publisher, on_confirmed: Callable[[list[DeliveryOutcome]], object]
    ) -> None:
        self._publisher = publisher
        topology = publisher.settings.topology
        self._exchange = topology.events_exchange
        self._key = topology.events_key
        self._on_confirmed = on_confirmed
        self._lock = forks.released_in_child(threads.Lock())  # guards `_waiting`
        self._waiting: list[DeliveryOutcome] = []

    def publish(self, delivery: Delivery, outcome: Outcome) -> None:
        """Publish *outcome* soon, together with others that are waiting; never blocks."""
        if not self._exchange:
            self._on_confirmed([(delivery, outcome)])
            return
        with self._lock:
            self._waiting.append((delivery, outcome))
            if len(self._waiting) > 1:
                return  # the I/O thread was asked to flush when the first one came
        self._publisher.connection.call_soon(self._flush)

    def _flush(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        if batch:
            self._publish(batch)

    def _publish(self, batch: list[DeliveryOutcome]) -> None:
        body = pack([outcome for _, outcome in batch])
        if len(body) > MAX_EVENT_BYTES and len(batch) > 1:
            half = len(batch) // 2
            self._publish(batch[:half])
            self._publish(batch[half:])
            return

        def on_outcome(receipt: Receipt) -> None:
            if receipt.confirmed:
                self._on_confirmed(batch)
            else:
                delay = RESEND_DELAY * (1 + randomness.random())
                self._publisher.connection.call_later(
                    delay, lambda: self._publisher.send_again(receipt)
                )

        # It raises if the publisher has failed permanently: then the messages are not acked, and
        # the broker delivers them again.
        with suppress(MousetrapError):
            self._publisher.publish_to_exchange(body, self._exchange, self._key, on_outcome)

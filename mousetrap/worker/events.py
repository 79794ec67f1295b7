"""Telling the world what became of messages, many at a time.

Fates that come up while the I/O thread is busy travel in one body. Nobody need listen: the broker
then drops them, and confirms that as well. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mousetrap.amqp.consumer import Delivery
from mousetrap.amqp.publisher import RESEND_DELAY, Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import MousetrapError
from mousetrap.model.outcome import Outcome, pack
from mousetrap.runtime import randomness, threads

MAX_SIZE = 4_000_000  # bytes of one body; a guess well below what brokers take

Told = tuple[Delivery, Outcome]


class Events:
    """Publishes fates through *publisher* and calls *on_told* with what the broker has confirmed.

    What is refused or becomes unknown is told again until it is confirmed: the same facts twice
    are one fact for whoever counts them.

    Threads: `tell` from any; *on_told* is called on the publisher's I/O thread, or, where events
    are switched off, in the thread that told.
    """

    def __init__(self, publisher: Publisher, on_told: Callable[[list[Told]], object]) -> None:
        self._publisher = publisher
        topology = publisher.settings.topology
        self._exchange = topology.events_exchange
        self._key = topology.events_key
        self._on_told = on_told
        self._lock = threads.Lock()
        self._waiting: list[Told] = []

    def tell(self, delivery: Delivery, outcome: Outcome) -> None:
        """Tell *fate* soon, together with its neighbours; never blocks."""
        if not self._exchange:
            self._on_told([(delivery, outcome)])
            return
        with self._lock:
            self._waiting.append((delivery, outcome))
            if len(self._waiting) > 1:
                return  # the I/O thread is coming for the first one already
        self._publisher.connection.call_soon(self._flush)

    def _flush(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        if batch:
            self._publish(batch)

    def _publish(self, batch: list[Told]) -> None:
        body = pack([outcome for _, outcome in batch])
        if len(body) > MAX_SIZE and len(batch) > 1:
            half = len(batch) // 2
            self._publish(batch[:half])
            self._publish(batch[half:])
            return

        def on_outcome(receipt: Receipt) -> None:
            if receipt.confirmed:
                self._on_told(batch)
            else:
                delay = RESEND_DELAY * (1 + randomness.random())
                self._publisher.connection.call_later(
                    delay, lambda: self._publisher.send_again(receipt)
                )

        with suppress(MousetrapError):  # it has failed for good: what is not acked comes again
            self._publisher.publish_to_exchange(body, self._exchange, self._key, on_outcome)

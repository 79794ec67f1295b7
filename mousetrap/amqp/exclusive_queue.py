"""A queue that belongs to one connection and receives from an exchange, for requests and replies.

Prototyped in ``notebooks/03_worker.ipynb``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import ChannelClosedByBroker, NoFreeChannels

from mousetrap.amqp.error_translation import declare
from mousetrap.amqp.properties import AMQPProperties
from mousetrap.display.safe_text import safe
from mousetrap.model.topology import ExchangeDeclaration
from mousetrap.runtime import randomness

log = logging.getLogger("mousetrap.amqp.exclusive_queue")


class ExclusiveQueue:
    """Declares an exclusive queue, binds it to a topic exchange and consumes it.

    It uses a channel of its own, because the broker closes a channel on which it refuses
    something: if the broker forbids such a queue, the connection's other channel stays open. The
    broker deletes the queue when the connection ends.

    *on_message* is called with each body and its reply-to property; *on_change* when the queue is
    consumed and when its channel was closed. Both are called on the I/O thread. A message expires
    in the queue after *ttl* milliseconds.

    Threads: `open` on the I/O thread; the attributes can be read from any.
    """

    def __init__(
        self,
        stem: str,
        exchange: str,
        key: str,
        *,
        ttl: int,
        on_message: Callable[[bytes, str | None], object],
        on_change: Callable[[], object],
    ) -> None:
        self.name = ""  # *stem* and a random id; "" while the queue is not consumed
        self.is_refused = False  # its channel was closed, for example because the broker forbids it
        self.refusal: Exception | None = None  # why the latest channel was closed
        self._stem = stem
        self._exchange = exchange
        self._key = key
        self._ttl = ttl
        self._on_message = on_message
        self._on_change = on_change
        self._channel: Channel | None = None
        self._is_reported = False  # that the broker forbids it
        self._declares_exchange = True  # until the broker forbids it: then it exists, or not

    @property
    def is_forbidden(self) -> bool:
        """The broker refused the queue, as it does without the permission to make one."""
        return self.is_refused and isinstance(self.refusal, (ChannelClosedByBroker, NoFreeChannels))

    def open(self, connection: Connection) -> None:
        """Consume on a new channel of *connection*, unless a channel is still open."""
        if self._channel is None or self._channel.is_closed:
            self.name, self.is_refused = "", False
            try:
                self._channel = connection.channel(on_open_callback=self._consume)
            except NoFreeChannels as error:  # the broker's channel_max: the others are needed more
                self._channel, self.is_refused, self.refusal = None, True, error
                self._on_change()
                return
            self._channel.add_on_close_callback(self._on_closed)

    def _consume(self, channel: Channel) -> None:
        name = f"{self._stem}{randomness.new_id()}"

        def on_consuming(_: Any) -> None:
            self.name = name
            self._on_change()

        channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": self._ttl})
        if self._declares_exchange:
            declare(channel, ExchangeDeclaration(self._exchange))
        channel.queue_bind(name, self._exchange, self._key)
        channel.basic_consume(name, self._on_delivery, auto_ack=True, callback=on_consuming)

    def _on_delivery(self, _: Channel, __: Any, properties: AMQPProperties, body: bytes) -> None:
        self._on_message(body, properties.reply_to)

    def _on_closed(self, channel: Channel, reason: Exception) -> None:
        is_about_exchange = f"exchange '{self._exchange}'" in str(reason)
        if self._declares_exchange and is_about_exchange and channel.connection.is_open:
            self._declares_exchange = False
            self.open(channel.connection)
            return
        self.name, self.is_refused, self.refusal = "", True, reason
        if "ACCESS_REFUSED" in str(reason) and not self._is_reported:
            self._is_reported = True
            log.warning(
                "this user may declare no queue %s*, for questions and answers, so workers of this "
                "queue do not know of each other, only their number. Everything else works",
                safe(self._stem),
            )
        self._on_change()

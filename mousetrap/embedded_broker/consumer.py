"""A consumer of a channel: whether it can receive a message now, and how it gets one.

Threads: the server's own.
"""

from __future__ import annotations

import itertools

from mousetrap.embedded_broker import methods
from mousetrap.embedded_broker.channel_output import ChannelConnection, ChannelOutput
from mousetrap.embedded_broker.deliveries import Deliveries
from mousetrap.embedded_broker.message import QueuedMessage
from mousetrap.embedded_broker.queue import Queue, QueueConsumer

_numbers = itertools.count()


class Consumer:
    """A consumer that a client started with basic.consume."""

    def __init__(
        self,
        connection: ChannelConnection,
        output: ChannelOutput,
        deliveries: Deliveries,
        consumers: dict[str, QueueConsumer],
        queue: Queue,
        tag: str,
    ) -> None:
        self.queue = queue
        self.tag = tag
        self.number = next(_numbers)  # the order in which consumers began
        self.unacked = 0
        self._connection = connection
        self._output = output
        self._writer = output.writer
        self._deliveries = deliveries
        self._consumers = consumers  # of the channel, by tag

    def configure(self, *, no_ack: bool, exclusive: bool, priority: int, prefetch: int) -> None:
        """Set its options; *prefetch* is the channel's when the consumer begins, 0 for no limit."""
        self.no_ack = no_ack
        self.is_exclusive = exclusive
        self.priority = priority
        self.prefetch = prefetch

    def can_receive(self) -> bool:
        """Whether its prefetch has room, and its connection accepts bytes."""
        has_room = self.no_ack or not self.prefetch or self.unacked < self.prefetch
        return has_room and self._writer.can_write

    def deliver(self, queue: Queue, queued: QueuedMessage) -> None:
        """Send a basic.deliver."""
        # With no_ack, the channel settles a delivery of a quorum queue. While its connection ends,
        # it no longer does that, and the delivery is requeued.
        is_settled = self.no_ack and not (queue.is_quorum and self._connection.is_ending)
        tag = self._deliveries.add(queued, queue, self, is_settled=is_settled)
        message = queued.message
        address = (message.exchange, message.routing_key)
        method = methods.encode("basic.deliver", self.tag, tag, queued.is_redelivered, *address)
        self._output.send_content(method, queue.properties_to_send(queued), message.body)

    def cancel(self) -> None:
        """End because the queue is deleted; send a basic.cancel to a client that supports it."""
        self._consumers.pop(self.tag, None)
        if self._connection.client_supports("consumer_cancel_notify"):
            self._output.send("basic.cancel", self.tag, True)

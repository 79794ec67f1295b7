"""A consumer: who was promised what comes into a queue, and whether it can take more now.

Threads: the server's own.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mousetrap.embedded_broker import methods
from mousetrap.embedded_broker.queue import Entry, Queue

if TYPE_CHECKING:
    from mousetrap.embedded_broker.channel import Channel

_places = itertools.count()  # so that they can be told by who began first


class Consumer:
    """Who was promised what comes into a queue."""

    def __init__(self, channel: Channel, queue: Queue, tag: str) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.place = next(_places)
        self.held = 0

    def begin(self, *, no_ack: bool, exclusive: bool, priority: int) -> None:
        """Set what it asks for; the prefetch is the channel's of that moment."""
        self.no_ack = no_ack
        self.is_exclusive = exclusive
        self.priority = priority
        self.prefetch = self.channel.prefetch

    def can_take(self) -> bool:
        """Whether it has room, and its connection takes bytes."""
        has_room = self.no_ack or not self.prefetch or self.held < self.prefetch
        return has_room and self.channel.is_flowing and self.channel.connection.can_write

    def take(self, queue: Queue, entry: Entry) -> None:
        """Send a delivery."""
        channel = self.channel
        # what a quorum queue wants no ack for is settled by the channel: an ending one does not
        is_settled = self.no_ack and not (queue.is_quorum and channel.connection.is_ending)
        tag = channel.given(entry, queue, self, is_settled=is_settled)
        message = entry.message
        place = (message.exchange, message.routing_key)
        deliver = ("basic.deliver", self.tag, tag, entry.is_redelivered, *place)
        channel.send_content(methods.encode(*deliver), channel.outgoing(queue, entry), message.body)

    def cancelled(self) -> None:
        """Tell the client that the queue is gone, if it wants to know."""
        self.channel.consumers.pop(self.tag, None)
        if self.channel.connection.client_can("consumer_cancel_notify"):
            self.channel.send("basic.cancel", self.tag, True)

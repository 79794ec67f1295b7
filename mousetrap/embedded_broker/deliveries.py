"""The deliveries of a channel that are not settled, and the methods that settle them.

A method of AMQP named ``basic.ack`` is the method ``basic_ack`` here, with the arguments of the
specification.
Threads: the server's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from mousetrap.embedded_broker.amqp_error import AmqpError
from mousetrap.embedded_broker.channel_output import ChannelOutput
from mousetrap.embedded_broker.message import QueuedMessage
from mousetrap.embedded_broker.queue import Queue, QueueConsumer


class UnackedDelivery(NamedTuple):
    """A message that was delivered and is not settled; *consumer* is None after a basic.get."""

    tag: int
    queued: QueuedMessage
    queue: Queue
    consumer: QueueConsumer | None

    @property
    def settle_order(self) -> tuple[str, bool, int, str]:
        """The sort key among deliveries that are settled together: queue, then consumer by tag."""
        if self.consumer is None:
            return self.queue.name, False, self.tag, ""
        return self.queue.name, True, 0, self.consumer.tag

    @property
    def requeue_order(self) -> tuple[bool, int, str]:
        """The sort key among the deliveries of a quorum queue when their channel closes.

        It follows from RabbitMQ's internal names of consumers: first consumers, in the order in
        which they began, then what basic.get took, sorted by the text of the delivery tag.
        """
        if self.consumer is None:
            return True, 0, str(self.tag)
        return False, self.consumer.number, ""


_SETTLE_ORDER = attrgetter("settle_order")


class Deliveries:
    """Numbers the deliveries of one channel, and settles them.

    *consumers* are the channel's, by tag; the channel adds and removes them.
    """

    def __init__(self, output: ChannelOutput, consumers: Mapping[str, QueueConsumer]) -> None:
        self._output = output
        self._consumers = consumers
        self._unacked: dict[int, UnackedDelivery] = {}  # by delivery tag
        self._last_tag = 0

    def add(
        self,
        queued: QueuedMessage,
        queue: Queue,
        consumer: QueueConsumer | None,
        *,
        is_settled: bool,
    ) -> int:
        """Return the delivery tag of a new delivery; keep it unless it *is_settled* already."""
        self.next_tag()
        if is_settled:
            queue.ack([queued])
        else:
            self._unacked[self._last_tag] = UnackedDelivery(self._last_tag, queued, queue, consumer)
            if consumer is not None:
                consumer.unacked += 1
            else:
                queue.unacked_gets += 1
        return self._last_tag

    def next_tag(self) -> int:
        """Return the delivery tag of a delivery that needs no ack."""
        self._last_tag += 1
        return self._last_tag

    def consumer_of(self, queue: Queue, tag: str) -> QueueConsumer | None:
        """Return a consumer with *tag* that holds a message of *queue*, cancelled or not."""
        holders = (each.consumer for each in self._unacked.values() if each.queue is queue)
        return next((each for each in holders if each is not None and each.tag == tag), None)

    def basic_ack(self, delivery_tag: int, multiple: bool) -> None:
        """Drop messages that the client has handled."""
        self._settle(self._remove(delivery_tag, multiple), Queue.ack)

    def basic_nack(self, delivery_tag: int, multiple: bool, requeue: bool) -> None:
        """Requeue or dead-letter messages; it does not count as a failed delivery."""
        action = Queue.requeue if requeue else Queue.reject
        self._settle(self._remove(delivery_tag, multiple), partial(action, has_failed=False))

    def basic_reject(self, delivery_tag: int, requeue: bool) -> None:
        """Requeue or dead-letter one message; it counts as a failed delivery."""
        action = Queue.requeue if requeue else Queue.reject
        self._settle(self._remove(delivery_tag, False), partial(action, has_failed=True))

    def basic_recover(self, requeue: bool) -> None:
        """Requeue all messages that are not settled, and answer."""
        self.basic_recover_async(requeue)
        self._output.send("basic.recover_ok")

    def basic_recover_async(self, requeue: bool) -> None:
        """Requeue all messages that are not settled, without an answer."""
        if not requeue:
            raise AmqpError(540, "requeue=false")
        self._settle(self._remove(0, True), partial(Queue.requeue, has_failed=False))

    def remove_all(self) -> list[UnackedDelivery]:
        """Remove and return all deliveries and free their prefetch, because the channel closes."""
        removed = self._remove(0, True)
        self._free_prefetch(removed)
        return removed

    def _remove(self, tag: int, multiple: bool) -> list[UnackedDelivery]:
        """Remove and return what a client names by *tag*, in the order of the tags.

        Raises:
            AmqpError: 406, no delivery with this tag waits for an ack.
        """
        if multiple:
            if tag and tag not in self._unacked:
                raise AmqpError(406, f"unknown delivery tag {tag}")
            tags = []
            for each in self._unacked:
                if tag and each > tag:
                    break
                tags.append(each)
        elif tag in self._unacked:
            tags = [tag]
        else:
            raise AmqpError(406, f"unknown delivery tag {tag}")
        return [self._unacked.pop(each) for each in tags]

    def _settle(
        self, removed: list[UnackedDelivery], action: Callable[[Queue, list[QueuedMessage]], None]
    ) -> None:
        """Settle deliveries queue by queue: first those of basic.get, then consumer by consumer.

        As in RabbitMQ, a consumer may get new messages before the next one's are settled.
        """
        for _, group in groupby(sorted(removed, key=_SETTLE_ORDER), key=_SETTLE_ORDER):
            deliveries = list(group)
            queue = deliveries[0].queue
            self._free_prefetch(deliveries)
            queue.recheck_full_consumers()
            apply(action, queue, deliveries)
            queue.deliver()

    def _free_prefetch(self, deliveries: list[UnackedDelivery]) -> None:
        for delivery in deliveries:
            if delivery.consumer is None:
                delivery.queue.unacked_gets -= 1
                continue
            # A classic queue identifies consumers by their tags: if the consumer was cancelled and
            # a new one has its tag, the new one gets the room in its prefetch.
            current = None
            if not delivery.queue.is_quorum:
                current = self._consumers.get(delivery.consumer.tag)
            is_current = current is not None and current.queue is delivery.queue
            consumer = current if current is not None and is_current else delivery.consumer
            consumer.unacked -= 1


def apply(
    action: Callable[[Queue, list[QueuedMessage]], None],
    queue: Queue,
    deliveries: list[UnackedDelivery],
) -> None:
    """Run *action* on the messages of *deliveries*; if the queue is deleted, drop them instead."""
    if queue.is_deleted:
        action = Queue.ack
    action(queue, [delivery.queued for delivery in deliveries])

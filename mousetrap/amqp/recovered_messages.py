"""The messages that were in a classic queue when its broker was restarted: most had no consumer.

After an unclean restart RabbitMQ marks all messages of a classic queue as redelivered, also those
that no consumer has ever had. A worker that was connected before knows how many there were when it
was connected again. If no other worker says that it had one of these, that is no sign of a loss
(see `mousetrap.worker.loss_queries`), except for those that had the mark before. The loss of a
worker that crashed at the same time may so be missed; a message that crashes workers is counted at
its next redelivery. A process that was not connected before counts all of them: it may take the
place of one that crashed.
"""

from __future__ import annotations

from collections.abc import Iterable

from pika.channel import Channel

from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.properties import AMQPProperties, delivery_count


class RecoveredMessages:
    """Those in *queues* (names on the wire), as far as they were not delivered to this worker yet.

    `is_due`: `count` is to be called. `are_left`: `includes` may be true.

    Threads: the I/O thread.
    """

    def __init__(self, queues: Iterable[str]) -> None:
        self.is_due = False
        self.are_left = False
        self._left = dict.fromkeys(queues, 0)  # at most so many, by queue
        self._had_mark: set[str | None] = set()  # ids of those with a mark from before

    def connection_lost(self, outstanding: Iterable[Delivery]) -> None:
        """Note which of the *outstanding* deliveries had the mark before the restart."""
        if not self.are_left:
            self._had_mark.clear()
        self._had_mark |= {each.properties.message_id for each in outstanding
                           if each.is_possible_poison}  # fmt: skip
        self.is_due = True

    def count(self, channel: Channel) -> None:
        """Ask for the messages in each queue; to be called before the queues are consumed again."""
        self.is_due = False
        for queue in self._left:
            self._ask(channel, queue)

    def _ask(self, channel: Channel, queue: str) -> None:
        channel.queue_declare(
            queue, passive=True, callback=lambda frame: self._set(queue, frame.method.message_count)
        )

    def includes(self, queue: str, properties: AMQPProperties, is_redelivered: bool) -> bool:
        """Return whether a delivery of *queue* was there at the restart, and count it.

        The first message without the mark was sent after it, so all of them were delivered. A
        quorum queue counts deliveries itself, and its mark can be believed.
        """
        left = self._left[queue]
        is_included = (
            is_redelivered
            and left > 0
            and properties.message_id not in self._had_mark
            and not delivery_count(properties)
        )
        if left:
            self._set(queue, left - 1 if is_redelivered else 0)
        return is_included

    def _set(self, queue: str, left: int) -> None:
        self._left[queue] = left
        self.are_left = any(self._left.values())

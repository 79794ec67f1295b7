"""A message as the broker delivered it, and which deliveries' acks have timed out."""

from __future__ import annotations

from collections.abc import Collection

from mousetrap.amqp.properties import AMQPProperties
from mousetrap.amqp.redeliveries import Held
from mousetrap.model.message import Message
from mousetrap.runtime import clock

# When the broker closes a channel because an ack timed out, it does not say of which delivery. A
# handler that has run for at least this fraction of the oldest delivery's age is suspected.
ACK_TIMEOUT_FRACTION = 0.9


class Delivery:
    """One message as the broker delivered it; `generation` and `tag` identify it for the ack.

    `is_possible_poison`: it was delivered before to a consumer that was lost, as far as this
    process knows; the message may be what crashed it.
    `has_ack_timed_out`: a process that is alive handled it for longer than the broker allows,
    before or in this delivery.
    `is_near_delivery_limit`: its quorum queue will soon drop it because of its delivery count.
    """

    __slots__ = (
        "body", "exchange", "generation", "handling_started", "has_ack_timed_out",
        "is_near_delivery_limit", "is_possible_poison", "properties", "received", "tag",
        "was_recovered",
    )  # fmt: skip

    def __init__(
        self,
        generation: int,
        tag: int,
        properties: AMQPProperties,
        body: bytes,
        *,
        is_possible_poison: bool = False,
        has_ack_timed_out: bool = False,
        is_near_delivery_limit: bool = False,
        exchange: str = "",
    ) -> None:
        self.generation = generation
        self.tag = tag
        self.properties = properties
        self.body = body
        self.is_possible_poison = is_possible_poison
        self.has_ack_timed_out = has_ack_timed_out
        self.is_near_delivery_limit = is_near_delivery_limit
        self.exchange = exchange  # that it was published to; "": to its queue
        self.received = clock.monotonic()
        self.was_recovered = False  # by a restarted broker; see `recovered_messages`
        self.handling_started: float | None = None  # when its handler started, on the same clock

    @property
    def as_held(self) -> Held:
        """The message as it is held here, for `mousetrap.amqp.redeliveries`."""
        losses = Message.from_wire(self.body, self.properties).losses
        return Held(str(self.properties.message_id), losses, self.has_ack_timed_out)

    def was_survived(self, *, has_ack_timed_out: bool) -> None:
        """Note that the process which held the message before is alive: it is no loss."""
        self.is_possible_poison, self.has_ack_timed_out = False, has_ack_timed_out

    def message(self, queue: str) -> Message:
        """Return the message that *queue* (plain name) has delivered.

        One that came through an exchange has an id of its own there (see `Message.in_queue`), in
        whatever way it is handled or published again.
        """
        message = Message.from_wire(self.body, self.properties)
        if self.exchange and self.properties.message_id:
            return message.in_queue(queue)
        return message


def mark_ack_timeouts(
    outstanding: Collection[Delivery], being_handled: Collection[Delivery]
) -> None:
    """Mark the deliveries whose acks may have timed out, when their channel was closed.

    *outstanding* are the deliveries of that channel that were not acked. *being_handled* are those
    whose handlers run now, also of channels that were lost before: a handler that hangs outlives
    its channel, and the message that the broker delivers again may wait for that very handler.

    The broker does not say which ack has timed out. It cannot be the one of a message that only
    waited here, however old it is: it is that of a message whose handler has run for nearly as long
    as the oldest delivery is here, or the messages wait because such a handler does not end.
    """
    if not outstanding:
        return
    now = clock.monotonic()
    oldest = min(each.received for each in outstanding)
    started_before = now - ACK_TIMEOUT_FRACTION * (now - oldest)
    late = {
        each
        for each in (*outstanding, *being_handled)
        if each.handling_started is not None and each.handling_started <= started_before
    }
    ids = {each.properties.message_id for each in late} - {None}
    late.update(each for each in outstanding if each.properties.message_id in ids)
    for each in late:
        each.has_ack_timed_out = True

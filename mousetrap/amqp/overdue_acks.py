"""Makes RabbitMQ 4.3 look for acks that are overdue, if it has forgotten to.

A quorum queue of RabbitMQ 4.3 takes back a message whose ack has timed out when a timer fires. The
timer belongs to the oldest message that it has delivered. If that one was acked in the meantime,
the queue sets the timer again, for the next one, unless it handles all this in the very millisecond
for which the timer was set: then no timer is set (``LastConTimeout0 < Ts`` in ``rabbit_fifo.erl``).
How often that happens depends on the fraction of a millisecond in a node's clock, which is another
one after each start: 21 of 100 queues at 0.04 ms, none of 400 from 0.5 ms on (measured on 4.3.6).

The queue sets its timer at the next command: a publish, an ack, a consumer that begins or ends. But
a quarantine queue may get none for ever, while a handler that hangs keeps its worker from all other
messages. So a consumer that holds a message for long sends a command that changes nothing: it gets
a message from a queue that has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from pika import spec
from pika.channel import Channel

from mousetrap.model.topology import AnyDeclaration, Declaration

# Seconds for which a message is held before the broker is made to look, and between two times: a
# small part of RabbitMQ's own limit (30 minutes), and longer than nearly all handlers take.
INTERVAL = 60.0


class OverdueAcks:
    """Asks one of *queues* at a time, in turn, for a message that it does not have.

    A message that comes all the same, because it was published just now, is for *on_message*, like
    any other delivery. *is_wanted* returns whether the consumer still takes messages.

    Threads: the I/O thread.
    """

    def __init__(
        self,
        queues: Iterable[str],
        on_message: Callable[..., object],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._queues = itertools.cycle(queues)
        self._on_message = on_message
        self._is_wanted = is_wanted
        self._asked: Channel | None = None  # an answer is awaited on this channel

    def look(self, channel: Channel) -> None:
        """Make one queue look now, if no message is ready in it and the last one has answered."""
        if channel is self._asked:
            return
        self._asked = channel
        queue = next(self._queues)

        def on_counts(frame: Any) -> None:
            # a quorum queue without a leader says that it has no messages and no consumers
            counts = frame.method
            if counts.message_count or not counts.consumer_count or not self._is_wanted():
                self._asked = None
                return
            channel.add_callback(on_empty, [spec.Basic.GetEmpty])
            channel.basic_get(queue, on_message)

        def on_empty(_: Any) -> None:
            self._asked = None

        def on_message(channel: Channel, got: spec.Basic.GetOk, *content: Any) -> None:
            self._asked = None
            delivered: Any = spec.Basic.Deliver(  # type: ignore[no-untyped-call]  # pika's
                "", got.delivery_tag, got.redelivered, got.exchange, got.routing_key
            )
            self._on_message(channel, delivered, *content)

        channel.queue_declare(queue, passive=True, callback=on_counts)


def quorum_queues(declarations: Iterable[AnyDeclaration], names: Iterable[str]) -> list[str]:
    """Return those of *names* that *declarations* declare as quorum queues.

    The broker refuses such a declaration if the queue has a single active consumer, from which no
    message can be got: that would close the channel.
    """
    declared = {
        each.name
        for each in declarations
        if isinstance(each, Declaration) and each.arguments.get("x-queue-type") == "quorum"
    }
    return [name for name in names if name in declared]

"""A channel: its consumers, how it opens and closes, and which part carries out a method.

The other parts are modules: `declarations` declares and binds, `publishes` publishes and confirms,
`deliveries` settles. A method of AMQP named ``basic.consume`` is the method ``basic_consume`` of
the channel or of one of these parts, with the arguments of the specification; it sends its own
answer.
Threads: the server's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from mousetrap.embedded_broker import codec, methods
from mousetrap.embedded_broker.amqp_error import AmqpError
from mousetrap.embedded_broker.arguments import priority_of_consumer
from mousetrap.embedded_broker.channel_output import ChannelConnection, ChannelOutput
from mousetrap.embedded_broker.consumer import Consumer
from mousetrap.embedded_broker.declarations import Declarations
from mousetrap.embedded_broker.deliveries import Deliveries, UnackedDelivery, apply
from mousetrap.embedded_broker.direct_reply import REPLY_TO, DirectReply
from mousetrap.embedded_broker.frames import FrameWriter
from mousetrap.embedded_broker.publishes import Publishes
from mousetrap.embedded_broker.queue import Queue, QueueConsumer
from mousetrap.embedded_broker.vhost import VirtualHost

OVERVIEW_QUEUE = "amq.mousetrap.overview"  # basic.get from it returns the server's state as JSON
HANDLER_NAMES = [(name, name.replace(".", "_")) for name in methods.ARGUMENTS]


class Channel:
    """One channel of a connection."""

    def __init__(
        self, connection: ChannelConnection, vhost: VirtualHost, writer: FrameWriter, number: int
    ) -> None:
        self.connection = connection
        self.vhost = vhost
        self.number = number
        self.is_closing = False  # the broker has closed it; only the answer to that is handled
        self.prefetch = 0
        self.consumers: dict[str, QueueConsumer] = {}  # by tag
        self.output = ChannelOutput(writer, number)
        self._deliveries = Deliveries(self.output, self.consumers)
        self._replies = DirectReply(vhost, self.output, self._deliveries)
        self.publishes = Publishes(connection, vhost, self.output, self._replies)
        self._declarations = Declarations(connection, vhost, self.output)
        self._handlers = self._find_handlers()

    def _find_handlers(self) -> dict[str, Callable[..., None]]:
        parts = (self, self._declarations, self.publishes, self._deliveries)
        return {
            name: getattr(part, attribute)
            for name, attribute in HANDLER_NAMES
            for part in parts
            if hasattr(part, attribute)
        }

    def on_method(self, payload: bytes) -> None:
        """Carry out a method.

        Raises:
            AmqpError: it failed; the error closes the channel or the connection.
        """
        try:
            name, arguments = methods.decode(payload)
        except KeyError:
            raise AmqpError(540, f"there is no method {payload[:4]!r}") from None
        except codec.Malformed as error:
            raise AmqpError(error.code, str(error)) from None
        if self.is_closing:
            if name == "channel.close":
                self.output.send("channel.close_ok")
            elif name != "channel.close_ok":
                return
            self.connection.remove_channel(self.number)
            return
        if self.publishes.expects_content:
            raise AmqpError(505, f"expected content header for class 60, got {name} instead")
        handler = self._handlers.get(name)
        if handler is None:
            raise AmqpError(503, f"a client does not send {name}")
        arguments.pop("ticket", None)
        handler(**arguments)

    # consuming

    def basic_qos(
        self,
        prefetch_size: int,
        prefetch_count: int,
        global_qos: bool,  # noqa: ARG002 -- RabbitMQ 4.3 does not permit global QoS; it ignores it
    ) -> None:
        """Set the prefetch of consumers that begin later."""
        if prefetch_size:
            raise AmqpError(540, f"prefetch_size!=0 ({prefetch_size})")
        self.prefetch = prefetch_count
        self.output.send("basic.qos_ok")

    def basic_consume(
        self,
        queue: str,
        consumer_tag: str,
        no_local: bool,  # noqa: ARG002 -- RabbitMQ ignores it, too
        no_ack: bool,
        exclusive: bool,
        nowait: bool,
        arguments: dict[str, Any],
    ) -> None:
        """Start a consumer of *queue*."""
        if consumer_tag in self.consumers:
            raise AmqpError(530, f"attempt to reuse consumer tag '{consumer_tag}'")
        if queue == REPLY_TO:
            tag = self._replies.consume(consumer_tag, no_ack=no_ack)
            if not nowait:
                self.output.send("basic.consume_ok", tag)
            return
        found = self._declarations.usable_queue(queue)
        priority = priority_of_consumer(
            arguments, found.arguments.type, found.name, self.vhost.name
        )
        is_taken = any(consumer.is_exclusive for consumer in found.consumers)
        if (is_taken or (exclusive and found.consumers)) and not found.is_quorum:
            where = f"queue '{found.name}' in vhost '{self.vhost.name}'"
            raise AmqpError(403, f"{where} in exclusive use")
        if exclusive and found.arguments.single_active:
            raise AmqpError(403, f"queue '{found.name}' has a single active consumer")
        tag = consumer_tag or f"amq.ctag-{self.vhost.random_token()}"
        consumer = self._cancelled_consumer(found, tag) or Consumer(
            self.connection, self.output, self._deliveries, self.consumers, found, tag
        )
        consumer.configure(
            no_ack=no_ack, exclusive=exclusive, priority=priority, prefetch=self.prefetch
        )
        self.consumers[tag] = consumer
        if not nowait:
            self.output.send("basic.consume_ok", tag)
        found.add_consumer(consumer)
        found.deliver()

    def _cancelled_consumer(self, queue: Queue, tag: str) -> Consumer | None:
        """Return a cancelled consumer of a quorum queue with this tag that still holds messages.

        RabbitMQ uses it again, so the messages that it holds take room in the prefetch.
        """
        if not queue.is_quorum:
            return None
        consumer = self._deliveries.consumer_of(queue, tag)
        if not isinstance(consumer, Consumer):
            return None
        if consumer in queue.cancelled:
            queue.cancelled.remove(consumer)
        return consumer

    def basic_cancel(self, consumer_tag: str, nowait: bool) -> None:
        """End a consumer; the client can still settle what was delivered to it."""
        if consumer_tag == self._replies.tag:
            self._replies.cancel()
        consumer = self.consumers.pop(consumer_tag, None)
        if not nowait:
            self.output.send("basic.cancel_ok", consumer_tag)
        if consumer is not None:
            if consumer.unacked:
                consumer.queue.cancelled.append(consumer)
            consumer.queue.remove_consumer(consumer)
            consumer.queue.deliver()

    def basic_cancel_ok(self, consumer_tag: str) -> None:
        """Do nothing: the client confirms that its consumer has ended."""

    def channel_flow(self, active: bool) -> None:
        """Answer; as in RabbitMQ, a client cannot stop the flow."""
        if not active:
            raise AmqpError(540, "active=false")
        self.output.send("channel.flow_ok", True)

    def basic_get(self, queue: str, no_ack: bool) -> None:
        """Send one message, or basic.get_empty; `OVERVIEW_QUEUE` returns the broker's state."""
        if queue == OVERVIEW_QUEUE:
            state = json.dumps(self.connection.overview(), default=str).encode()
            method = methods.encode("basic.get_ok", 0, False, "", OVERVIEW_QUEUE, 0)
            self.output.send_content(method, b"\0\0", state)
            return
        found = self._declarations.usable_queue(queue)
        queued = found.get()
        if queued is None:
            self.output.send("basic.get_empty", "")
            return
        is_redelivered, message = queued.is_redelivered, queued.message
        properties = found.properties_to_send(queued)
        tag = self._deliveries.add(queued, found, None, is_settled=no_ack)
        address = (message.exchange, message.routing_key)
        method = methods.encode("basic.get_ok", tag, is_redelivered, *address, found.ready)
        self.output.send_content(method, properties, message.body)

    # opening and closing

    def channel_open(self, out_of_band: str) -> None:  # noqa: ARG002 -- an argument of channel.open
        """Fail: the channel is open already."""
        raise AmqpError(504, "second 'channel.open' seen")

    def channel_close(self, **_: Any) -> None:
        """Close because the client asks for it; nothing is sent on the channel after the answer."""
        self.publishes.flush_confirms()
        self.release()
        self.output.send("channel.close_ok")
        self.connection.remove_channel(self.number)

    def close_with(self, error: AmqpError, method: bytes) -> None:
        """Close because *method* failed with *error*; the client has to answer."""
        self.publishes.flush_confirms()
        self.release()
        self.is_closing = True
        self.publishes.discard_content()
        ids = int.from_bytes(method[:2], "big"), int.from_bytes(method[2:4], "big")
        self.output.send("channel.close", error.code, error.text, *ids)

    def release(self) -> None:
        """Remove all consumers and requeue what is not settled, in RabbitMQ's order."""
        self._replies.cancel()
        consumers = list(self.consumers.values())
        self.consumers.clear()
        by_queue: dict[Queue, list[UnackedDelivery]] = {}
        for delivery in self._deliveries.remove_all():
            by_queue.setdefault(delivery.queue, []).append(delivery)
        for consumer in consumers:
            by_queue.setdefault(consumer.queue, [])
        with self.vhost.deferring_dead_letters():
            for consumer in consumers:
                if consumer in consumer.queue.consumers:
                    consumer.queue.remove_consumer(consumer)
            for queue, deliveries in by_queue.items():
                if queue.is_quorum:
                    deliveries.sort(key=lambda delivery: delivery.requeue_order)
                if deliveries:
                    apply(partial(Queue.requeue, has_failed=True), queue, deliveries)
            for queue in by_queue:
                queue.deliver()

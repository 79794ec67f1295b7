"""Direct reply-to: a client receives answers on its channel, without a queue.

It consumes from ``amq.rabbitmq.reply-to`` and publishes requests with that name in ``reply_to``.
The broker replaces the name by one that stands for the channel; an answer that is published to it
by the default exchange is delivered at once, or dropped if the consumer is gone. As in RabbitMQ
4.3, such an answer is never returned.
Threads: the server's own.
"""

from __future__ import annotations

from mousetrap.embedded_broker import methods
from mousetrap.embedded_broker.amqp_error import AmqpError
from mousetrap.embedded_broker.channel_output import ChannelOutput
from mousetrap.embedded_broker.deliveries import Deliveries
from mousetrap.embedded_broker.message import Message
from mousetrap.embedded_broker.vhost import VirtualHost

REPLY_TO = "amq.rabbitmq.reply-to"
_ENCODED = REPLY_TO.encode()


class DirectReply:
    """The consumer of answers of one channel, if it has one."""

    def __init__(self, vhost: VirtualHost, output: ChannelOutput, deliveries: Deliveries) -> None:
        self.tag: str | None = None  # of the consumer
        self._name = ""  # that stands for this channel in requests
        self._vhost = vhost
        self._output = output
        self._deliveries = deliveries

    def consume(self, tag: str, *, no_ack: bool) -> str:
        """Begin to receive answers; return the consumer's tag, a new one if *tag* is empty.

        Raises:
            AmqpError: 406, answers cannot be acked, or the channel has such a consumer already.
        """
        if self.tag is not None:
            raise AmqpError(406, "reply consumer already set")
        if not no_ack:
            raise AmqpError(406, "reply consumer cannot acknowledge")
        self.tag = tag or f"amq.ctag-{self._vhost.random_token()}"
        self._name = f"{REPLY_TO}.{self._vhost.random_token()}"
        self._vhost.reply_consumers[self._name] = self._deliver
        return self.tag

    def cancel(self) -> None:
        """Receive no more answers; those that still come are dropped."""
        self._vhost.reply_consumers.pop(self._name, None)
        self.tag, self._name = None, ""

    def addressed(self, message: Message) -> Message:
        """Return *message*; if it asks for an answer here, with the name of this channel.

        Raises:
            AmqpError: 406, the channel does not consume answers.
        """
        if _ENCODED not in message.properties or message.get("reply_to") != REPLY_TO:
            return message
        if self.tag is None:
            raise AmqpError(406, "fast reply consumer does not exist")
        return message.with_reply_to(self._name)

    def _deliver(self, message: Message) -> None:
        address = (message.exchange, message.routing_key)
        number = self._deliveries.next_tag()
        method = methods.encode("basic.deliver", self.tag, number, False, *address)
        self._output.send_content(method, message.properties, message.body)


def is_direct(message: Message) -> bool:
    """Return whether *message* is published to a name that stands for a channel."""
    return message.exchange == "" and message.routing_key.startswith(f"{REPLY_TO}.")


def answer(vhost: VirtualHost, message: Message) -> None:
    """Deliver *message* to the channel that it is published to, or drop it."""
    if (deliver := vhost.reply_consumers.get(message.routing_key)) is not None:
        deliver(message)

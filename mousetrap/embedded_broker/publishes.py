"""What a channel does with published messages: receives contents, returns, confirms.

A method of AMQP named ``basic.publish`` is the method ``basic_publish`` here, with the arguments of
the specification.
Threads: the server's own.
"""

from __future__ import annotations

import re
from typing import Any

from mousetrap.embedded_broker import arguments as queue_arguments
from mousetrap.embedded_broker import codec, methods
from mousetrap.embedded_broker.amqp_error import AmqpError
from mousetrap.embedded_broker.channel_output import ChannelConnection, ChannelOutput
from mousetrap.embedded_broker.direct_reply import DirectReply, answer, is_direct
from mousetrap.embedded_broker.message import Message
from mousetrap.embedded_broker.vhost import VirtualHost


class Publishes:
    """Receives the messages that are published on one channel, routes and confirms them."""

    def __init__(
        self,
        connection: ChannelConnection,
        vhost: VirtualHost,
        output: ChannelOutput,
        direct_reply: DirectReply,
    ) -> None:
        self._direct_reply = direct_reply
        self._connection = connection
        self._vhost = vhost
        self._output = output
        self._method: dict[str, Any] | None = None  # arguments of the basic.publish in progress
        self._message: Message | None = None  # once its content header has come
        self._missing = 0  # bytes of its body that have not come
        self._parts: list[bytes] = []
        self._confirms = False  # the channel is in confirm mode
        self._published = 0
        self._confirmed = 0

    @property
    def expects_content(self) -> bool:
        """Whether a basic.publish has come and its content is not complete."""
        return self._method is not None

    def discard_content(self) -> None:
        """Drop the publish in progress."""
        self._method, self._message, self._parts = None, None, []

    def on_header(self, payload: bytes) -> None:
        """Handle the content header that follows a basic.publish."""
        if self._method is None or self._message is not None:
            raise AmqpError(505, "expected method frame, got content header instead")
        if len(payload) < 14 or payload[:2] != b"\x00\x3c":
            raise AmqpError(505, "expected content header for class 60")
        message = Message(self._method["exchange"], self._method["routing_key"], payload[12:], b"")
        try:
            message.property_offsets()
            if message.has("headers"):
                codec.read_table(message.properties, message.property_offsets()["headers"][0])
        except codec.Malformed as error:
            raise AmqpError(502, str(error)) from None
        self._message, self._missing = message, int.from_bytes(payload[4:12], "big")
        limit = self._connection.limits.message
        if self._missing > limit:
            why = f"message size {self._missing} is larger than configured max size {limit}"
            raise AmqpError(406, why)
        if self._missing == 0:
            self._finish()

    def on_body(self, payload: bytes) -> None:
        """Handle a part of the body."""
        if self._message is None:
            raise AmqpError(505, "expected method frame, got content body instead")
        self._missing -= len(payload)
        if self._missing < 0:
            raise AmqpError(501, "the content is longer than its header said")
        self._parts.append(payload)
        if self._missing == 0:
            self._finish()

    def _finish(self) -> None:
        message, method = self._message, self._method
        assert message is not None
        assert method is not None
        message.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.discard_content()
        self._publish(message, method["mandatory"])
        self._connection.block_if_memory_is_short()

    def basic_publish(
        self, exchange: str, routing_key: str, mandatory: bool, immediate: bool
    ) -> None:
        """Expect the content; the message is checked and routed when that is complete."""
        if immediate:
            raise AmqpError(540, "immediate=true")
        self._method = {
            "exchange": exchange, "routing_key": routing_key, "mandatory": mandatory,
        }  # fmt: skip

    def _publish(self, message: Message, mandatory: bool) -> None:
        exchange = self._vhost.exchange(message.exchange)
        if exchange.internal:
            where = f"exchange '{exchange.name}' in vhost '{self._vhost.name}'"
            raise AmqpError(403, f"cannot publish to internal {where}")
        self._check(message)
        message = self._direct_reply.addressed(message)
        if is_direct(message):
            self._output_answer(message)
            return
        queues = self._vhost.route(message)
        if b"BCC" in message.properties and "BCC" in message.headers:
            message = message.replace(headers={"BCC": None})
        if mandatory and not queues:
            address = (message.exchange, message.routing_key)
            returned = methods.encode("basic.return", 312, "NO_ROUTE", *address)
            self._output.send_content(returned, message.properties, message.body)
        if self._confirms:
            self._published += 1
        accepted = [queue.publish(message) for queue in queues]
        if self._confirms:
            if not all(accepted):
                self.flush_confirms(self._published - 1)
                self._confirmed = self._published
                self._output.send("basic.nack", self._published, False, False)
            elif self._published - self._confirmed == 1:
                self._connection.confirm_later(self.flush_confirms)

    def _output_answer(self, message: Message) -> None:
        answer(self._vhost, message)
        if self._confirms:
            self._published += 1
            self._connection.confirm_later(self.flush_confirms)

    def _check(self, message: Message) -> None:
        if message.has("user_id") and message.get("user_id") != self._connection.user:
            user = message.get("user_id")
            raise AmqpError(
                406,
                f"user_id property set to '{user}' but authenticated user was "
                f"'{self._connection.user}'",
            )
        if message.has("expiration"):
            given = message.get("expiration")
            is_number = re.fullmatch(r"[+-]?[0-9]{1,30}", given)
            if not (is_number and 0 <= int(given) <= queue_arguments.MAX_MILLISECONDS):
                raise AmqpError(406, f"invalid expiration '{given}'")
        if b"CC" in message.properties:
            for name in ("CC", "BCC"):
                if not isinstance(message.headers.get(name, []), list):
                    why = f'invalid message: {{unacceptable_type_in_header,"{name}"}}'
                    raise AmqpError(406, why)

    def flush_confirms(self, upto: int | None = None) -> None:
        """Confirm all publishes up to number *upto* (default: all) with one basic.ack."""
        upto = self._published if upto is None else upto
        if upto > self._confirmed:
            self._output.send("basic.ack", upto, upto - self._confirmed > 1)
            self._confirmed = upto

    def confirm_select(self, nowait: bool) -> None:
        """Put the channel into confirm mode."""
        self._confirms = True
        if not nowait:
            self._output.send("confirm.select_ok")

    def tx_select(self) -> None:
        """Fail: the embedded broker has no transactions."""
        raise AmqpError(540, "the embedded broker has no transactions: use confirms")

    def tx_commit(self) -> None:
        """Fail: no channel is transactional."""
        raise AmqpError(406, "channel is not transactional")

    tx_rollback = tx_commit

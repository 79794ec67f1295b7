"""What a channel does with what is published on it: contents, returns, confirms.

Threads: the server's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mousetrap.embedded_broker import arguments as queue_arguments
from mousetrap.embedded_broker import codec, methods
from mousetrap.embedded_broker.message import Message
from mousetrap.embedded_broker.refusal import Refusal

if TYPE_CHECKING:
    from mousetrap.embedded_broker.connection import Connection
    from mousetrap.embedded_broker.vhost import VirtualHost


class Publishing:
    """Contents that come in, and what is said about them."""

    connection: Connection
    vhost: VirtualHost
    is_closing: bool

    def __init__(self) -> None:
        self._publishing: dict[str, Any] | None = None
        self._content: Message | None = None
        self._size = 0
        self._parts: list[bytes] = []
        self._confirms = False
        self._published = 0
        self._confirmed = 0

    def send(self, name: str, *values: Any) -> None:
        """Send a method."""
        raise NotImplementedError

    def send_content(self, method: bytes, properties: bytes, body: bytes) -> None:
        """Send a method with content."""
        raise NotImplementedError

    @property
    def expects_content(self) -> bool:
        """Whether a publish has begun and its content is not complete."""
        return self._publishing is not None

    def forget_content(self) -> None:
        """Give up what is not complete."""
        self._publishing, self._content, self._parts = None, None, []

    def on_header(self, payload: bytes) -> None:
        """Begin the content that a publish announced."""
        if self.is_closing:
            return
        if self._publishing is None or self._content is not None:
            raise Refusal(505, "expected method frame, got content header instead")
        if len(payload) < 14 or payload[:2] != b"\x00\x3c":
            raise Refusal(505, "expected content header for class 60")
        message = Message(
            self._publishing["exchange"], self._publishing["routing_key"], payload[12:], b""
        )
        try:
            message.places()
            if message.has("headers"):
                codec.read_table(message.properties, message.places()["headers"][0])
        except codec.Malformed as error:
            raise Refusal(502, str(error)) from None
        self._content, self._size = message, int.from_bytes(payload[4:12], "big")
        most = self.connection.limits.message
        if self._size > most:
            why = f"message size {self._size} is larger than configured max size {most}"
            raise Refusal(406, why)
        if self._size == 0:
            self._finish()

    def on_body(self, payload: bytes) -> None:
        """Take a part of the content."""
        if self.is_closing:
            return
        if self._content is None:
            raise Refusal(505, "expected method frame, got content body instead")
        self._size -= len(payload)
        if self._size < 0:
            raise Refusal(501, "the content is longer than its header said")
        self._parts.append(payload)
        if self._size == 0:
            self._finish()

    def _finish(self) -> None:
        message, publishing = self._content, self._publishing
        assert message is not None
        assert publishing is not None
        message.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.forget_content()
        self._publish(message, publishing["mandatory"])
        self.connection.has_published()

    def basic_publish(
        self, exchange: str, routing_key: str, mandatory: bool, immediate: bool
    ) -> None:
        """Expect the content; whether it can go anywhere is looked at when it is complete."""
        if immediate:
            raise Refusal(540, "immediate=true")
        self._publishing = {
            "exchange": exchange, "routing_key": routing_key, "mandatory": mandatory,
        }  # fmt: skip

    def _publish(self, message: Message, mandatory: bool) -> None:
        exchange = self.vhost.exchange(message.exchange)
        if exchange.internal:
            where = f"exchange '{exchange.name}' in vhost '{self.vhost.name}'"
            raise Refusal(403, f"cannot publish to internal {where}")
        self._check(message)
        queues = self.vhost.route(message)
        if b"BCC" in message.properties and "BCC" in message.headers:
            message = message.but(headers={"BCC": None})
        if mandatory and not queues:
            place = (message.exchange, message.routing_key)
            returned = methods.encode("basic.return", 312, "NO_ROUTE", *place)
            self.send_content(returned, message.properties, message.body)
        if self._confirms:
            self._published += 1
        taken = [queue.publish(message) for queue in queues]
        if self._confirms:
            if not all(taken):
                self.flush_confirms(self._published - 1)
                self._confirmed = self._published
                self.send("basic.nack", self._published, False, False)
            elif self._published - self._confirmed == 1:
                self.connection.confirm_later(self)

    def _check(self, message: Message) -> None:
        if message.has("user_id") and message.get("user_id") != self.connection.user:
            user = message.get("user_id")
            raise Refusal(
                406,
                f"user_id property set to '{user}' but authenticated user was "
                f"'{self.connection.user}'",
            )
        if message.has("expiration"):
            given = message.get("expiration")
            is_number = re.fullmatch(r"[+-]?[0-9]{1,30}", given)
            if not (is_number and 0 <= int(given) <= queue_arguments.LONGEST):
                raise Refusal(406, f"invalid expiration '{given}'")
        if b"CC" in message.properties:
            for name in ("CC", "BCC"):
                if not isinstance(message.headers.get(name, []), list):
                    why = f'invalid message: {{unacceptable_type_in_header,"{name}"}}'
                    raise Refusal(406, why)

    def flush_confirms(self, upto: int | None = None) -> None:
        """Confirm everything up to a tag in one ack: all that came with one read, usually."""
        upto = self._published if upto is None else upto
        if upto > self._confirmed:
            self.send("basic.ack", upto, upto - self._confirmed > 1)
            self._confirmed = upto

    def confirm_select(self, nowait: bool) -> None:
        """Confirm what is published from now on."""
        self._confirms = True
        if not nowait:
            self.send("confirm.select_ok")

    def tx_select(self) -> None:
        """Refuse: there are no transactions here."""
        raise Refusal(540, "the embedded broker has no transactions: use confirms")

    def tx_commit(self) -> None:
        """Refuse: the channel is not transactional, as none is."""
        raise Refusal(406, "channel is not transactional")

    tx_rollback = tx_commit

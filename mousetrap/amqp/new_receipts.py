"""Makes the receipts of messages that are to be published: the names on the wire, the deadline."""

from __future__ import annotations

from collections.abc import Callable

from mousetrap.amqp.properties import AMQPProperties
from mousetrap.amqp.receipt import ExchangeReceipt, Receipt
from mousetrap.model.exchanges import RoutingKey
from mousetrap.model.message import Message
from mousetrap.model.targets import Address
from mousetrap.runtime import clock
from mousetrap.settings import Settings


class NewReceipts:
    """Makes receipts for the publishes of one publisher with *settings*.

    Threads: any.
    """

    def __init__(self, settings: Settings) -> None:
        self._confirm_timeout = settings.confirm_timeout
        self._topology = settings.topology
        self._wire_names: dict[Address, str] = {}  # of queues, by the plain name; checked

    def make(
        self,
        message: Message,
        target: Address,
        base: AMQPProperties | None,
        callback: Callable[[Receipt], None] | None,
    ) -> Receipt:
        """Return the receipt of *message* for *target*; the message is encoded.

        Raises:
            TypeError, ValueError: the data cannot be JSON, or the queue cannot have that name.
        """
        # encode the body here: a value that cannot be JSON is an error in the caller's thread
        message.body  # noqa: B018 -- the property caches the encoded body
        deadline = clock.monotonic() + self._confirm_timeout
        name = self._wire_names.get(target)
        if name is None:
            if isinstance(target, RoutingKey):
                exchange = self._topology.wire_name(target.exchange.name)
                return ExchangeReceipt(message, str(target.key), int(clock.time()), base, deadline,
                                       callback, exchange)  # fmt: skip
            name = self._wire_names[target] = self._checked_name(target)
        return Receipt(message, name, int(clock.time()), base, deadline, callback)

    def _checked_name(self, queue: str) -> str:
        name = self._topology.wire_name(queue)
        if not 0 < len(name.encode()) <= 255:  # a lone surrogate is a ValueError here as well
            raise ValueError(
                f"queue name {name[:60]!r} is empty or longer than 255 bytes: give a shorter one"
            )
        return name

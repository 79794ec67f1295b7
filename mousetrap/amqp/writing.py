"""Writing one publish to a channel, and what to do with headers that do not fit."""

from __future__ import annotations

from pika.channel import Channel

from mousetrap.amqp.fast_connection import FrameTooLarge, publish
from mousetrap.amqp.receipt import Receipt
from mousetrap.model.headers import MAX_DROPPED, entry_size, fit, unsendable


def write(channel: Channel, receipt: Receipt) -> None:
    """Write the message of *receipt*; raise if it cannot be sent as it is.

    The copy of a message that the broker has already, with properties of its first sender, must not
    fail because ours do not fit beside its headers: what does not fit is left out, and named.
    """
    try:
        publish(channel, receipt.exchange, receipt.queue, receipt.message, receipt.sent,
                receipt.base, mandatory=receipt.is_mandatory)  # fmt: skip
    except FrameTooLarge as error:
        if receipt.base is None:
            raise
        headers = dict(receipt.message.headers)
        sizes = (entry_size(*each) or 0 for each in headers.items())
        limit = sum(sizes) - error.excess - 2 * MAX_DROPPED  # with room for the names
        receipt.message = receipt.message.copy(receipt.message.attempt, fit(headers, limit))
        publish(channel, receipt.exchange, receipt.queue, receipt.message, receipt.sent,
                receipt.base, mandatory=receipt.is_mandatory)  # fmt: skip


def why_unsent(receipt: Receipt, error: Exception) -> str:
    """Return why `write` could not send the message of *receipt*, and what to change."""
    if isinstance(error, FrameTooLarge):
        return str(error)
    if name := unsendable(receipt.message.headers):
        return f"AMQP cannot encode the value of its header {name!r}: give a text instead"
    return f"a header or property cannot be sent: {type(error).__name__}"

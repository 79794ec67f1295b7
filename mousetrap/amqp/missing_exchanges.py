"""Declares exchanges that do not exist yet, and leaves those that exist as they are.

An exchange that somebody else has declared may have arguments that a flow does not name, and a user
may lack the permission to declare. So the client first asks whether the exchange exists. If it does
not, the broker closes the channel of the question: each question has a channel of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, NoFreeChannels
from pika.exchange_type import ExchangeType

from mousetrap.amqp.error_translation import declare
from mousetrap.model.topology import ExchangeDeclaration

_NOT_FOUND = 404


def declare_missing(
    channel: Channel, exchanges: Sequence[ExchangeDeclaration], then: Callable[[], object]
) -> None:
    """Declare on *channel* those of *exchanges* that do not exist, then call *then*.

    Without *exchanges* it is called at once. It is not called if the channel is lost meanwhile.
    If the broker does not say whether an exchange exists, it counts as existing.

    Threads: the I/O thread.
    """
    if not exchanges:
        then()
        return
    first, others = exchanges[0], exchanges[1:]
    is_answered = False

    def answered(*, is_missing: bool = False) -> None:
        nonlocal is_answered
        if is_answered or not channel.is_open:
            return
        is_answered = True
        if is_missing:
            declare(channel, dataclasses.replace(first, is_checked=False))
        declare_missing(channel, others, then)

    def ask(extra: Channel) -> None:
        kind = ExchangeType[first.type]
        extra.exchange_declare(first.name, kind, passive=True, callback=lambda _: on_found(extra))

    def on_found(extra: Channel) -> None:
        answered()
        if extra.is_open:
            extra.close()

    def on_closed(_: Channel, reason: Any) -> None:
        refused = isinstance(reason, ChannelClosedByBroker)
        answered(is_missing=refused and reason.reply_code == _NOT_FOUND)

    try:
        extra = channel.connection.channel(on_open_callback=ask)
        extra.add_on_close_callback(on_closed)
    except NoFreeChannels:  # the broker allows no second channel: it can only be declared
        answered(is_missing=True)

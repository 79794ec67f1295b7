"""Declares queues over a blocking channel, because a person asks for it.

So the broker compares them with those that exist, with or without arguments. If the user may not
declare them, they must exist.
"""

from __future__ import annotations

from collections.abc import Iterable

from pika.exceptions import ChannelClosedByBroker

from mousetrap.amqp.blocking_channel import JobChannel
from mousetrap.amqp.declared_queues import note
from mousetrap.amqp.declarer import missing_error
from mousetrap.amqp.new_queues import FORGETFUL, is_quorum, is_waiting_queue
from mousetrap.model.topology import Declaration
from mousetrap.settings import Settings

_REFUSED, _NOT_FOUND = 403, 404


def declare_all(
    channel: JobChannel, declarations: Iterable[Declaration], settings: Settings
) -> None:
    """Declare *declarations*, unless they only have to exist or the user may not declare them.

    After a refusal *channel* is another channel of the same connection.

    Raises:
        QueueMissing: queues do not exist that are not declared; names all of them.
        ChannelClosedByBroker: the broker refuses a declaration for another reason.
    """
    missing: list[str] = []
    is_denied = False
    for each in declarations:
        may_declare = each.how != "exists"
        if may_declare and _is_refused(channel, each, _REFUSED, passive=False):
            may_declare, is_denied = False, True
        if not may_declare and _is_refused(channel, each, _NOT_FOUND, passive=True):
            missing.append(f"queue {each.name!r}")
    if missing:
        raise missing_error(settings, missing, is_denied=is_denied)


def lacks_quorum_queue(channel: JobChannel, declarations: Iterable[Declaration]) -> bool:
    """Return whether one of *declarations* is of a quorum queue that RabbitMQ does not have yet.

    Queues where messages only wait do not count: a publisher knows that they are new. If there is
    one, *channel* is another channel of the same connection afterwards.
    """
    if not channel.connection.product.startswith(FORGETFUL):
        return False
    quorum = [
        each
        for each in declarations
        if is_quorum(each) and not is_waiting_queue(each) and each.how != "exists"
    ]
    return any(_is_refused(channel, each, _NOT_FOUND, passive=True) for each in quorum)


def exclusive_queue(channel: JobChannel) -> str:
    """Declare an exclusive queue; return its name, or "" if the user may not declare one."""
    try:
        return str(channel.queue_declare("", exclusive=True).method.queue)
    except ChannelClosedByBroker as closed:
        if closed.reply_code != _REFUSED:
            raise
        return ""


def _is_refused(channel: JobChannel, each: Declaration, code: int, *, passive: bool) -> bool:
    """Declare *each*, or only ask for it; return whether the broker refuses it with *code*.

    A question that it refuses because the user has no permission for the queue has no answer.
    """
    try:
        if passive:
            channel.queue_declare(each.name, passive=True)
        else:
            note(each.name)
            channel.queue_declare(each.name, durable=True, arguments=dict(each.arguments) or None)
    except ChannelClosedByBroker as closed:
        if closed.reply_code not in ((_REFUSED, code) if passive or each.how != "now" else ()):
            raise
        channel.reopen()
        return bool(closed.reply_code == code)
    return False

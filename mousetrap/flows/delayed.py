"""Finds out, before a delayed message is sent, whether it can arrive and how old its queue is.

A message in a delay queue whose target does not exist would wait there for ever, and nobody would
learn it. And the confirms of a new quorum queue count only two seconds later (see
`mousetrap.amqp.new_queues`), which would make each call of `send` take two seconds: so the queues
that were new before are remembered here.
"""

from __future__ import annotations

from contextlib import suppress

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import AccessRefused, MousetrapError, QueueMissing
from mousetrap.job_queue import depths, short_channel
from mousetrap.model.delays import waiting_time
from mousetrap.model.outcome import pack_declared
from mousetrap.model.topology import ExchangeDeclaration
from mousetrap.settings import Settings

_old: set[tuple[str, int, str, str]] = set()  # delay queues that this process has waited for
_forbidden: set[tuple[str, int, str, str]] = set()  # those that exist and it may not declare


def waiting_queue(publisher: Publisher, queue: str, delay: float) -> str:
    """Return the queue where *publisher*, which is open, has messages to *queue* wait *delay* s.

    In a run's namespace the run learns its name, because it deletes the queue.

    Raises:
        QueueMissing: there is no queue *queue*.
        BrokerUnreachable, ConnectionLost: the broker did not answer.
    """
    settings = publisher.settings
    name = publisher.delayed(queue, delay)
    target, waiting = depths([queue, name], settings, timeout=settings.confirm_timeout)
    if target is None:
        raise QueueMissing(
            f"there is no queue {queue!r}, so a message could not reach it later; nothing was "
            f"sent. Declare it (mousetrap.declare) or start its worker, and check the namespace"
        )
    # It is no new queue even if it was deleted and declared again meanwhile, unless that was less
    # than two seconds ago, and the broker is killed in the next two.
    if waiting is not None and _is_forbidden(settings, name, queue, waiting_time(delay)):
        publisher.on_demand.use(settings.topology.wire_name(name))
    elif waiting is not None and _key(settings, name) in _old:
        publisher.on_demand.new.known(settings.topology.wire_name(name))
    if settings.queues_expire:
        announce(publisher, name)
    return name


def _is_forbidden(settings: Settings, name: str, queue: str, waits: float) -> bool:
    """Return whether the user may not declare the delay queue *name*, which exists.

    The broker closes the channel on which it refuses that, and this message would be unknown.
    """
    key = _key(settings, name)
    if key in _old or key in _forbidden:  # it was declared, or refused, before
        return key in _forbidden
    declaration = settings.topology.waiting_queue(name, queue, waits)
    try:
        with short_channel(settings, settings.confirm_timeout) as channel:
            channel.queue_declare(
                declaration.name, durable=True, arguments=dict(declaration.arguments)
            )
    except AccessRefused:
        _forbidden.add(key)
    except MousetrapError:  # other arguments, a limit: the publisher says what it does about it
        pass
    return key in _forbidden


def remember(settings: Settings, name: str) -> None:
    """Remember that the delay queue *name* (plain name) is not new: its confirms have counted."""
    _old.add(_key(settings, name))


def announce(publisher: Publisher, name: str) -> None:
    """Let the run of this namespace know the delay queue *name*, which it deletes."""
    topology = publisher.settings.topology
    if topology.events_exchange:
        with suppress(MousetrapError):  # what is published next fails for the same reason
            publisher.declare([ExchangeDeclaration(topology.events_exchange)])
            publisher.publish_to_exchange(
                pack_declared(name), topology.events_exchange, topology.events_key, lambda _: None
            )


def _key(settings: Settings, name: str) -> tuple[str, int, str, str]:
    return settings.host, settings.port, settings.vhost, settings.topology.wire_name(name)

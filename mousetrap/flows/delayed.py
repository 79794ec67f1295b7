"""Finds out, before a delayed message is sent, whether it can arrive and how old its queue is.

A message in a delay queue whose target does not exist would wait there for ever, and nobody would
learn it. And the confirms of a new quorum queue count only two seconds later (see
`mousetrap.amqp.new_queues`), which would make each call of `send` take two seconds: so the queues
that were new before are remembered here.
"""

from __future__ import annotations

from contextlib import suppress

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError, QueueMissing
from mousetrap.job_queue import depths
from mousetrap.model.outcome import pack_declared
from mousetrap.model.topology import ExchangeDeclaration
from mousetrap.settings import Settings

_old: set[tuple[str, int, str, str]] = set()  # delay queues that this process has waited for


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
    if waiting is not None and _key(settings, name) in _old:
        publisher.on_demand.new.known(settings.topology.wire_name(name))
    if settings.queues_expire:
        announce(publisher, name)
    return name


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

"""What a flow needs on a broker, as a definitions file that RabbitMQ imports.

``rabbitmqctl import_definitions`` and the management plugin take such a file
(https://www.rabbitmq.com/docs/definitions). They leave queues and exchanges alone that exist.
Nothing here talks to a broker. Prototyped in ``notebooks/10_their_queues.ipynb``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.flows.stage import with_delays
from mousetrap.model.delays import MIN_SEND_DELAY, SendOptions, delay_queue, waiting_time
from mousetrap.model.topology import AnyDeclaration, Binding, Declaration, ExchangeDeclaration
from mousetrap.settings import Settings

NOTHING = "^$"  # the pattern of a permission for nothing
DEFAULT_EXCHANGE = "amq.default"  # what the default exchange is called in a permission


@dataclass
class Definitions:
    """Queues, exchanges and bindings to be made, and the permissions that workers need.

    `existing` are queues and exchanges that are expected to exist already: ``queue 'orders'``.
    """

    queues: dict[str, Declaration] = field(default_factory=dict)
    exchanges: dict[str, ExchangeDeclaration] = field(default_factory=dict)
    bindings: list[Binding] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    write: str = NOTHING
    read: str = NOTHING

    def as_file(self, vhost: str, user: str | None = None) -> dict[str, Any]:
        """Return the content of a definitions file for *vhost*, to be written as JSON.

        With *user* it gives that user the permissions to work on these queues, and no others.
        """
        place = {"vhost": vhost}
        lasting = {"durable": True, "auto_delete": False}
        content: dict[str, Any] = {
            "queues": [
                {"name": each.name, **place, **lasting, "arguments": dict(each.arguments)}
                for each in self.queues.values()
            ],
            "exchanges": [
                {"name": each.name, **place, "type": each.type, **lasting, "internal": False,
                 "arguments": {}}
                for each in self.exchanges.values()
            ],
            "bindings": [
                {"source": each.exchange, **place, "destination": each.queue,
                 "destination_type": "queue", "routing_key": each.key, "arguments": {}}
                for each in self.bindings
            ],
        }  # fmt: skip
        if user is not None:
            content["permissions"] = [{"user": user, **place, **self.permissions}]
        return content

    @property
    def permissions(self) -> dict[str, str]:
        """The three patterns of ``rabbitmqctl set_permissions``."""
        return {"configure": NOTHING, "write": self.write, "read": self.read}


def definitions(
    flow: Flow,
    settings: Settings,
    *,
    retry_delays: tuple[float, ...] | None = None,
    delays: Sequence[float] = (),
) -> Definitions:
    """Return what workers of *flow* need, in the namespace and with the queue type of *settings*.

    *retry_delays* (seconds) replace those of the stages. *delays* are those, in seconds, by which
    messages are sent later (``delay=``): each queue that a stage reads or writes gets their queues.

    Raises:
        SettingsError: the queue type does not fit the arguments of a queue, or a delay is none
            that a message can have.
    """
    waits = list(dict.fromkeys(map(_waiting_time, delays)))
    settings = settings.replace(queues_expire=False, declare="missing")
    topology = settings.topology
    found = Definitions()
    written = {DEFAULT_EXCHANGE}
    names: dict[str, None] = {}  # of queues and exchanges that are read, in order
    for stage in flow.stages:
        known = [flow.known_queues.get(name, name) for name in stage.targets.queues]
        exchanges = stage.targets.exchanges
        read = with_delays(stage.queue, retry_delays)
        needed = topology.of_worker(read, known, exchanges)
        waiting = {delay_queue(to, seconds): (to, seconds)
                   for to in (read.name, *stage.targets.queues) for seconds in waits}  # fmt: skip
        later = [topology.waiting_queue(name, *each) for name, each in waiting.items()]
        _add(found, [*needed, *topology.failure_queues(read), *later])
        written |= {topology.wire_name(each.name) for each in exchanges}
        queues = [*map(topology.wire_name, [*read.names(), *stage.targets.queues, *waiting])]
        names |= dict.fromkeys(queues)
    for each in found.bindings:  # a worker binds its queue again
        written.add(each.queue)
        names |= {each.exchange: None}
    if settings.events_exchange:
        _add(found, [topology.events()])
        written.add(settings.events_exchange)
    made = {*map(repr, found.queues), *map(repr, found.exchanges)}
    found.existing = [each for each in found.existing if each.partition(" ")[2] not in made]
    found.write, found.read = _pattern(sorted(written)), _pattern(names)
    return found


def _waiting_time(delay: float) -> float:
    try:
        return waiting_time(SendOptions.checked(delay=delay).delay or MIN_SEND_DELAY)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _add(found: Definitions, declarations: Iterable[AnyDeclaration]) -> None:
    for each in declarations:
        if isinstance(each, Binding):
            if each not in found.bindings:
                found.bindings.append(each)
            continue
        is_queue = isinstance(each, Declaration)
        if each.how == "exists":
            text = f"{'queue' if is_queue else 'exchange'} {each.name!r}"
            if text not in found.existing:
                found.existing.append(text)
        elif isinstance(each, Declaration):
            # named by itself and as the target of dead letters: that has no arguments
            before = found.queues.get(each.name)
            found.queues[each.name] = before if before and before.arguments else each
        else:
            found.exchanges.setdefault(each.name, each)


def _pattern(names: Iterable[str]) -> str:
    escaped = [re.sub(r"[][.^$*+?{}()|\\]", r"\\\g<0>", name) for name in names]
    return f"^({'|'.join(escaped)})$"

"""How stages are connected: which queue may get an output of a stage, and which stage reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mousetrap.flows.stage import Stage
from mousetrap.model.exchanges import Exchange, RoutingKey
from mousetrap.model.topology import unrouted

AnyStage = Stage[..., Any]


@dataclass(frozen=True)
class Edge:
    """Outputs of the stage *writer* that go to *target* may get into *queue*.

    *reader* is the stage that reads the queue, or None. *is_route* says that only a `Send` goes
    there, and *is_certain* that each message to the target gets into the queue: with a routing key
    that is a function, or with any key, it depends on the message.
    """

    writer: AnyStage
    target: str | Exchange | RoutingKey
    queue: str
    reader: AnyStage | None
    is_route: bool
    is_certain: bool

    @property
    def exchange(self) -> Exchange | None:
        """The exchange in between, if there is one."""
        return exchange_of(self.target)


def edges(stages: Sequence[AnyStage]) -> list[Edge]:
    """Return the edges of all *stages*, in their order."""
    readers = {each.queue.name: each for each in stages}
    return [
        Edge(stage, target, queue, readers.get(queue), target not in stage.targets.writes,
                   is_certain)
        for stage in stages for target in stage.targets.all
        for queue, is_certain in _queues(stages, target)
    ]  # fmt: skip


def routed(stages: Iterable[AnyStage], exchange: str, key: str) -> list[str]:
    """Return the queues of *stages* that *exchange* passes a message with *key* to."""
    bindings = [(each.queue.name, binding) for each in stages for binding in each.queue.bindings]
    found = [q for q, each in bindings if each.exchange.name == exchange and each.matches(key)]
    return list(dict.fromkeys(found))


def exchange_of(target: str | Exchange | RoutingKey) -> Exchange | None:
    """Return the exchange that *target* names; None for a queue."""
    if isinstance(target, str):
        return None
    return target if isinstance(target, Exchange) else target.exchange


def bound_to(stages: Iterable[AnyStage], exchange: Exchange) -> list[AnyStage]:
    """Return the stages whose queue is bound to *exchange*."""
    return [each for each in stages if any(b.exchange == exchange for b in each.queue.bindings)]


def _queues(
    stages: Sequence[AnyStage], target: str | Exchange | RoutingKey
) -> Iterator[tuple[str, bool]]:
    """Yield the queues that may get a message to *target*, and whether each message gets there."""
    exchange = exchange_of(target)
    if exchange is None:
        yield str(target), True
        return
    key = target.key if isinstance(target, RoutingKey) else None
    if isinstance(key, str) or exchange.type == "fanout":
        found = routed(stages, exchange.name, str(key))
        yield from [(each, True) for each in found or [unrouted(exchange.name)]]
    else:  # any key
        yield from [(each.queue.name, False) for each in bound_to(stages, exchange)]
        yield unrouted(exchange.name), False

"""What a flow consists of, as plain values: stages, queues, exchanges, types, and findings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, get_args

from mousetrap.flows.connected_types import plain_type, sent_type, type_name
from mousetrap.flows.edges import AnyStage, Edge, edges
from mousetrap.flows.flow import Flow
from mousetrap.model.composed_types import is_union
from mousetrap.model.exchanges import UNROUTED, Exchange, RoutingKey
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue


@dataclass(frozen=True)
class QueueRow:
    """One queue of a flow: who reads and writes it, and how it is declared.

    *kind* is ``entry`` (no stage writes it), ``result`` (no stage reads it) or ``between``.
    """

    name: str
    kind: str
    read_by: str | None
    written_by: tuple[str, ...]
    bindings: tuple[str, ...] = ()  # "orders[order.*.paid]"
    arguments: dict[str, Any] = field(default_factory=dict)
    is_declared: bool = True  # False: it exists already


@dataclass(frozen=True)
class StageRow:
    """One stage: its queue and targets as text, the types as people write them, its options."""

    name: str
    reads: str
    writes: tuple[str, ...]
    routes: tuple[str, ...]
    takes: str
    returns: str
    retry_delays: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)  # those that are not the default


@dataclass(frozen=True)
class ExchangeRow:
    """One exchange: which stages send to it, and which queues are bound by which key."""

    name: str
    type: str
    written_by: tuple[str, ...]
    bound: tuple[tuple[str, str], ...]  # queue and key


def stage_rows(flow: Flow) -> list[StageRow]:
    """Return a row for each stage."""
    return [
        StageRow(
            each.name, each.queue.name, tuple(map(str, each.targets.writes)),
            tuple(map(str, each.targets.routes)), shown_type(each.message_type),
            _returned(each), each.queue.retry_delays, _options(each),
        )
        for each in flow.stages
    ]  # fmt: skip


def queue_rows(flow: Flow) -> list[QueueRow]:
    """Return a row for each queue that exists outside of a run, those that are read first."""
    found = edges(flow.stages)
    readers = {each.queue.name: each for each in flow.stages}
    written: dict[str, list[str]] = {}
    for each in found:
        if not is_unrouted(each):
            written.setdefault(each.queue, []).append(each.writer.name)
    rows = []
    for name in dict.fromkeys([*readers, *written]):
        reader = readers.get(name)
        queue = reader.queue if reader else Queue(name)
        kind = "result" if reader is None else "between" if name in written else "entry"
        rows.append(
            QueueRow(
                name, kind, reader.name if reader else None,
                tuple(dict.fromkeys(written.get(name, ()))), tuple(map(str, queue.bindings)),
                dict(getattr(queue, "arguments", None) or {}), getattr(queue, "declare", True),
            )
        )  # fmt: skip
    return rows


def exchange_rows(flow: Flow) -> list[ExchangeRow]:
    """Return a row for each exchange that stages write, or to which their queues are bound."""
    return [
        ExchangeRow(
            exchange.name, exchange.type,
            tuple(each.name for each in flow.stages if exchange in each.targets.exchanges),
            tuple(
                (each.queue.name, str(binding.key)) for each in flow.stages
                for binding in each.queue.bindings if binding.exchange == exchange
            ),
        )
        for exchange in flow.exchanges
    ]  # fmt: skip


def is_unrouted(edge: Edge) -> bool:
    """Return whether the queue of *edge* exists in a run only, for what matches no binding."""
    return edge.exchange is not None and edge.queue == edge.exchange.name + UNROUTED


def written_types(stage: AnyStage, target: str | Exchange | RoutingKey) -> Any:
    """Return the type of what *stage* sends to *target*; Any if it is not known."""
    return plain_type(stage) if target in stage.targets.writes else sent_type(stage)


def shown_type(type: Any) -> str:
    """Return *type* as people write it, without modules: ``list[Visit]``; ``Any``."""
    if type is Message:
        return "Message"
    if is_union(type):
        return " | ".join(map(shown_type, get_args(type)))
    return re.sub(r"(?<![\w.])(?:\w+\.|<locals>\.)+(?=\w)", "", type_name(type))


def _returned(stage: AnyStage) -> str:
    if stage.handler.returned_type in (None, NoneType):
        return "None"
    return shown_type(stage.handler.output_type)


def _options(stage: AnyStage) -> dict[str, Any]:
    left = ("queue", "writes", "routes")
    defaults = {"concurrency": 1}
    found = {key: each for key, each in stage.options.items() if key not in left}
    found["carry"] = stage.handler.carry
    return {k: each for k, each in found.items() if each and each != defaults.get(k)}

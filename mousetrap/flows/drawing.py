"""Draws a flow as text: queues, stages and exchanges below each other, branches side by side.

    ○ raw  entry
    ■ parse  str → Visit
    ├─○ archive  result
    ○ visits
    ■ score  Visit → Score | Send; retries after 1, 5, 25 s
    ├┈○ errors  result
    ○ scored  result

A line to the right leads to one of several targets, a dotted one to a route. The last target stands
below its stage. What is drawn above already is named again, with an arrow.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mousetrap.display.safe_text import safe
from mousetrap.flows.description import (
    QueueRow,
    StageRow,
    exchange_rows,
    is_unrouted,
    queue_rows,
    stage_rows,
)
from mousetrap.flows.edges import AnyStage, edges, exchange_of
from mousetrap.flows.flow import Flow
from mousetrap.model.batch import Batch
from mousetrap.model.exchanges import Exchange, RoutingKey
from mousetrap.model.join_groups import Join
from mousetrap.model.topology import DEFAULT_RETRY_DELAYS

QUEUE, STAGE, EXCHANGE = "○", "■", "◇"
MIN_WIDTH = 30  # characters of a line with its branches; narrower ones are not wrapped
_ASCII = str.maketrans({"○": "o", "■": "#", "◇": "<", "├": "+", "─": "-", "┈": ".", "│": "|",
                        "→": ">", "↑": "^", "…": "~"})  # fmt: skip
_Target = str | Exchange | RoutingKey


def draw(flow: Flow, width: int = 80, *, ascii: bool = False) -> str:
    """Return the picture, in lines of at most *width* characters where names allow it."""
    text = "\n".join(_Drawing(flow, width).lines())
    return text.translate(_ASCII) if ascii else text


class _Drawing:
    def __init__(self, flow: Flow, width: int) -> None:
        self._width = width
        self._stages = {each.queue.name: each for each in flow.stages}
        self._rows = {each.name: each for each in stage_rows(flow)}
        self._queues = {each.name: each for each in queue_rows(flow)}
        self._exchanges = exchange_rows(flow)
        self._edges = edges(flow.stages)
        self._drawn: set[str] = set()

    def lines(self) -> list[str]:
        """Draw from each entry, then what only a circle leads to."""
        lines: list[str] = []
        for each in self._exchanges:
            if not each.written_by:
                lines += ["", *self._exchange_of_others(each.name, each.type, each.bound)]
        entries = [e.name for e in self._queues.values() if e.kind == "entry"]
        first = [each for each in entries if not self._is_bound(each)]
        for name in [*first, *self._stages]:
            if name not in self._drawn:
                lines += ["", *self._queue(name, "", "")]
        return lines[1:]

    def _is_bound(self, queue: str) -> bool:
        """Return whether a stage writes an exchange to which the queue is bound: drawn there."""
        return any(
            each.written_by and queue in [name for name, _ in each.bound]
            for each in self._exchanges
        )

    def _exchange_of_others(
        self, name: str, type: str, bound: tuple[tuple[str, str], ...]
    ) -> Iterator[str]:
        yield from self._line(
            EXCHANGE, name, [f"{type} exchange", "other programs write it"], "", ""
        )
        keys: dict[str, list[str]] = {}
        for queue, key in bound:
            keys.setdefault(queue, []).append(key)
        for number, queue in enumerate(keys):
            is_last = number == len(keys) - 1
            mark, ahead = ("", "") if is_last else ("├─", "│ ")
            note = f"bound by {', '.join(keys[queue])}" if any(keys[queue]) else ""
            yield from self._queue(queue, mark, ahead, note)

    def _queue(self, name: str, mark: str, ahead: str, note: str = "") -> Iterator[str]:
        """Draw a queue and what follows; *mark* is before its line, *ahead* before the others."""
        row, stage = self._queues[name], self._stages.get(name)
        if name in self._drawn and stage is not None:
            yield from self._line(QUEUE, name, ["↑ above"], mark, ahead)
            return
        self._drawn.add(name)
        yield from self._line(QUEUE, name, [*_of_queue(row), note], mark, ahead)
        if stage is not None:
            yield from self._stage(stage, ahead)

    def _stage(self, stage: AnyStage, ahead: str) -> Iterator[str]:
        # the targets in `writes` last: the line of plain outputs goes on below
        targets = [*stage.targets.routes, *stage.targets.writes]
        targets = list(dict.fromkeys(targets))
        yield from self._line(
            STAGE, stage.name, _of_stage(self._rows[stage.name]), ahead, ahead, more=bool(targets)
        )
        for number, target in enumerate(targets):
            is_last = number == len(targets) - 1
            is_route = target not in stage.targets.writes
            line = "├┈" if is_route else "├─"
            mark, inner = (ahead, ahead) if is_last and not is_route else (
                ahead + line, ahead + ("  " if is_last else "│ ")
            )  # fmt: skip
            yield from self._target(stage, target, mark, inner)

    def _target(self, stage: AnyStage, target: _Target, mark: str, ahead: str) -> Iterator[str]:
        exchange = exchange_of(target)
        if exchange is None:
            yield from self._queue(str(target), mark, ahead)
            return
        queues = [
            each.queue for each in self._edges
            if each.writer is stage and each.target == target and not is_unrouted(each)
        ]  # fmt: skip
        notes = [f"{exchange.type} exchange", "" if queues else "no queue of the flow is bound"]
        yield from self._line(EXCHANGE, str(target), notes, mark, ahead, more=bool(queues))
        for number, queue in enumerate(queues):
            is_last = number == len(queues) - 1
            bindings = [b for b in self._queues[queue].bindings if b.startswith(exchange.name)]
            note = f"bound by {', '.join(bindings)}" if exchange.type == "topic" else ""
            line, inner = ("", "") if is_last else ("├─", "│ ")
            yield from self._queue(queue, ahead + line, ahead + inner, note)

    def _line(
        self, sign: str, name: str, notes: list[str], mark: str, ahead: str, *, more: bool = False
    ) -> Iterator[str]:
        """Draw one node with its *notes*, in further lines if they do not fit."""
        text = "; ".join(filter(None, notes))
        first = f"{mark}{sign} {safe(name)}"
        if len(f"{first}  {safe(text)}") <= self._width or not text:
            yield f"{first}  {safe(text)}".rstrip()
            return
        yield first
        below = ahead + ("│   " if more else "    ")
        for line in textwrap.wrap(safe(text), max(MIN_WIDTH, self._width - len(below))):
            yield below + line


def _of_queue(row: QueueRow) -> list[str]:
    arguments = ", ".join(f"{key}: {each}" for key, each in row.arguments.items())
    declared = "" if row.is_declared else "exists already"
    return [row.kind if row.kind != "between" else "", arguments, declared]


def _of_stage(row: StageRow) -> list[str]:
    types = f"{row.takes} → {row.returns}" if row.writes or row.routes else row.takes
    options = [f"{key} {_option(each)}" for key, each in row.options.items()]
    return [types, *options, retries(row.retry_delays)]


def _option(value: object) -> str:
    if isinstance(value, Batch):
        return f"of {value.size:,} within {value.within:g} s"
    if isinstance(value, Join):
        return f"what {value.stage} made of one message"
    if isinstance(value, float):
        return f"{value:g} s"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def retries(delays: tuple[float, ...]) -> str:
    """Return when a message is retried, as people read it; empty for the default."""
    if delays == DEFAULT_RETRY_DELAYS:
        return ""
    return f"retries after {', '.join(f'{each:g}' for each in delays)} s" if delays else "no retry"

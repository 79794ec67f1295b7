"""`describe` shows a flow: as text in a terminal, as a picture and tables in a notebook."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from types import ModuleType
from typing import Any

from mousetrap.display.safe_text import NO_FORMULAS, safe
from mousetrap.flows.asyncapi import asyncapi
from mousetrap.flows.description import exchange_rows, queue_rows, stage_rows
from mousetrap.flows.drawing import draw, retries
from mousetrap.flows.flow import Flow
from mousetrap.flows.stage import Stage
from mousetrap.model.topology import DEFAULT_RETRY_DELAYS
from mousetrap.runs.diagram import Diagram

DEFAULT_TITLE = "A flow of messages"


class FlowDescription:
    """What a flow consists of: its stages, queues, exchanges, types, and what its checks found.

    A terminal shows it as text, a notebook as a picture. Nothing here talks to a broker.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        flow = self.flow
        return {
            "entries": flow.entries,
            "stages": [asdict(each) for each in stage_rows(flow)],
            "queues": [asdict(each) for each in queue_rows(flow)],
            "exchanges": [asdict(each) for each in exchange_rows(flow)],
            "findings": [asdict(each) for each in flow.findings],
        }

    def asyncapi(self, title: str = DEFAULT_TITLE, version: str = "1.0.0") -> dict[str, Any]:
        """Return it as an AsyncAPI 3 document: plain values, ready for JSON."""
        return asyncapi(self.flow, title, version)

    def text(self, width: int = 80, *, ascii: bool = False) -> str:
        """Return it as text in lines of at most *width* characters, where names allow it."""
        return "\n".join([draw(self.flow, width, ascii=ascii), "", *self._notes()])

    def _notes(self) -> list[str]:
        notes = [f"Jobs go to {', '.join(self.flow.entries)}."] if self.flow.entries else []
        if any(each.queue.retry_delays == DEFAULT_RETRY_DELAYS for each in self.flow.stages):
            default = ", ".join(f"{each:g}" for each in DEFAULT_RETRY_DELAYS)
            notes.append(f"Retries after {default} s, where no others are named.")
        return notes + [safe(f"{each.level}: {each.text}") for each in self.flow.findings]

    def __repr__(self) -> str:
        return self.text(shutil.get_terminal_size((80, 24)).columns if _is_terminal() else 80)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        picture = Diagram(self.flow.steps, {}, {}, is_counted=False).image()
        rows = [
            (each.name, each.reads, each.takes, each.returns,
             ", ".join([*each.writes, *(f"{route} (route)" for route in each.routes)]) or "–",
             retries(each.retry_delays) or "after 1, 5, 25 s")
            for each in stage_rows(self.flow)
        ]  # fmt: skip
        table = _table(("stage", "reads", "takes", "returns", "writes", "retries"), rows)
        notes = "".join(f"<div>{html.escape(each)}</div>" for each in self._notes())
        return {
            "text/plain": self.text(),
            "text/html": f"<div class='{NO_FORMULAS}'>{picture}{table}{notes}</div>",
        }


def describe(
    flow: Flow | Stage[..., Any] | Iterable[Stage[..., Any]] | ModuleType,
) -> FlowDescription:
    """Describe *flow*: a list of stages, a single stage, or a module that contains stages.

    A notebook shows a picture of it; ``print`` shows the same as text. No broker is needed.

    Raises:
        SettingsError: the stages cannot be a flow (see `mousetrap.flows.flow_checks`).
    """
    return FlowDescription(Flow(flow))


def _is_terminal() -> bool:
    try:
        return os.isatty(1)
    except OSError:
        return False


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    left = "style='text-align:left'"
    top = "".join(f"<th scope='col' {left}>{name}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td {left}>{html.escape(safe(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"

"""Draws a flow with counts as SVG, for the output of a notebook cell.

The picture consists of plain shapes and text on a transparent background. It is legible on white
and on black, and follows a dark theme where the page says that it has one. It contains no script
and no font. Names are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mousetrap.display import design_tokens as tokens
from mousetrap.display.formats import counted
from mousetrap.display.inline_pictures import embedded
from mousetrap.display.safe_text import NO_FORMULAS, safe
from mousetrap.display.text_width import name_in_lines, text_width
from mousetrap.flows.flow import Step
from mousetrap.model.exchanges import UNROUTED
from mousetrap.model.summary import StageSummary
from mousetrap.runs.diagram_layout import Box, Node, edges_of, layout

# pixels
QUEUE_WIDTH, STAGE_WIDTH, EXCHANGE_WIDTH = 104, 124, 104
QUEUE_HEIGHT, STAGE_HEIGHT = 44, 64
PLAIN_HEIGHT, LINE = 34, 14  # of a box without counts; of a further line of text
BESIDE = 12  # of a box, that its words leave free
MAX_NAME_LINES = 3

# In a dark theme, by the class of a shape or a text
_DARK = (
    "<style>@media(prefers-color-scheme:dark){"
    f".q{{fill:{tokens.QUEUE_GROUND.dark}}}.x{{fill:{tokens.EXCHANGE_GROUND.dark}}}"
    f".s{{fill:{tokens.STAGE_GROUND.dark};stroke:{tokens.ACCENT_MARK}}}"
    f".l,.stage{{fill:{tokens.TEXT.dark}}}"
    f".d{{fill:{tokens.MUTED.dark}}}.done{{fill:{tokens.ACCENT.dark}}}"
    f".retried{{fill:{tokens.RETRIED.dark}}}.dead{{fill:{tokens.DEAD.dark}}}}}</style>"
)
_BACK, _ROUTE = ' stroke-dasharray="4 3"', ' stroke-dasharray="1.5 2.5"'
_NO_COUNTS = StageSummary(0, 0, 0, {}, {})


class Diagram:
    """A picture of a flow: queues are rounded boxes, stages are square ones, exchanges are oblique.

    *stages* has the counts of each step. *queues* has the number of messages in each queue, or
    None if it is unknown; for a queue that no step reads, it is the number of messages that were
    sent to it, and *end* is the word for them. With *is_counted* False it has no counts at all.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        stages: Mapping[str, StageSummary],
        queues: Mapping[str, int | None],
        *,
        end: str = "out",
        is_counted: bool = True,
    ) -> None:
        self.steps = steps
        self.stages = stages
        self.queues = queues
        self.end = end
        self.is_counted = is_counted
        self._reads = {step.reads for step in steps}

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {
            "text/plain": repr(self),
            "text/html": f"<div class='{NO_FORMULAS}'>{self.image()}</div>",
            "image/svg+xml": self.svg(),
        }

    def __repr__(self) -> str:
        lines = []
        for step in self.steps:
            now = self.stages.get(step.name, _NO_COUNTS)
            path = f"{self._queue(step.reads)} → {step.name}"
            targets = [self._queue(name) for name in step.writes if not self._is_hidden(name)]
            targets += [f"exchange {name}" for name in step.exchanges]
            if targets:
                path += f" → {', '.join(targets)}"
            counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
            lines.append(safe(path) + f": {counts}" * self.is_counted)
        return "\n".join(lines)

    def _queue(self, name: str) -> str:
        return f"{name} ({self.queues.get(name) or 0:,})" if self.is_counted else name

    def _is_hidden(self, name: str) -> bool:
        """Return whether *name* is the queue for what matches no binding, and nothing is in it."""
        is_unrouted = any(name == f"{x}{UNROUTED}" for step in self.steps for x in step.exchanges)
        return is_unrouted and not self.queues.get(name)

    def image(self) -> str:
        """Return the picture as an image in HTML, which is shown in a notebook without trust.

        Where there is less room it is scrolled: made smaller, its words could not be read.
        """
        words = f"{self.finding()}. {repr(self)[:500]}".replace("\n", "; ")
        return f'<div style="overflow-x:auto" tabindex="0">{embedded(self.svg(), words)}</div>'

    def finding(self) -> str:
        """Return in a sentence what the picture shows."""
        words = f"A flow of {counted(len(self.steps), 'stage')}"
        if not self.is_counted:
            return words
        now = [self.stages.get(step.name, _NO_COUNTS) for step in self.steps]
        waiting = sum(self.queues.get(name) or 0 for name in self._reads)
        done, retried, dead = (
            sum(getattr(each, name) for each in now) for name in ("done", "retried", "dead")
        )
        return f"{words}: {done:,} done, {waiting:,} waiting, {retried:,} retried, {dead:,} dead"

    def svg(self) -> str:
        """Return the picture as an SVG document, at most 848 pixels wide."""
        edges = edges_of(self.steps, self._is_hidden)
        found = layout(edges, self._size)
        routes = {
            (("stage", step.name), ("queue", name)) for step in self.steps for name in step.routes
        }
        arrows = "".join(
            f'<path d="{each.path}" fill="none" stroke="{tokens.MUTED_MARK}" stroke-width="1.5"'
            f"{_BACK if each.is_back else _ROUTE if edge in routes else ''}/>"
            f'<path d="M{each.tip[0] - 7:g} {each.tip[1] - 4:g}l7 4l-7 4Z" '
            f'fill="{tokens.MUTED_MARK}"/>'
            for each, edge in zip(found.arrows, edges, strict=True)
        )
        shapes = "".join(self._draw(node, box) for node, box in found.boxes.items())
        width, height = found.width, found.height
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="12">'
            f"{_DARK}{arrows}{shapes}</svg>"
        )

    def _size(self, node: Node) -> tuple[float, float]:
        kind, name = node
        width = {"queue": QUEUE_WIDTH, "stage": STAGE_WIDTH, "exchange": EXCHANGE_WIDTH}[kind]
        height = {"queue": QUEUE_HEIGHT, "stage": STAGE_HEIGHT, "exchange": QUEUE_HEIGHT}[kind]
        if not self.is_counted and kind != "exchange":
            height = PLAIN_HEIGHT
        if kind == "stage" and self._shape(name):
            height += LINE
        if kind == "stage" and self.is_counted:
            height += LINE * max(0, len(self._counts(name)) - 2)
        lines = _label(name, width, is_bold=kind == "stage")
        return width, height + LINE * (len(lines) - 1)

    def _shape(self, stage: str) -> list[str]:
        """Return in one line that *stage* takes batches, or joins; in none if it does neither."""
        shape = next((each.shape for each in self.steps if each.name == stage), "")
        return _label(shape, STAGE_WIDTH, 11, most=1) if shape else []

    # ---- boxes -----------------------------------------------------------------------------------

    def _draw(self, node: Node, box: Box) -> str:
        kind, name = node
        return f"<g>{_title(name)}{getattr(self, f'_draw_{kind}')(name, box)}</g>"

    def _draw_queue(self, name: str, box: Box) -> str:
        lines = [_Line(_label(name, QUEUE_WIDTH), "l", is_name=True)]
        if self.is_counted:
            number = self.queues.get(name, 0)
            word = "waiting" if name in self._reads else self.end
            count = "–" if number is None else f"{number:,}"
            lines.append(_Line(_label(f"{count} {word}", QUEUE_WIDTH, 11, most=1), "d", 11))
        shape = (
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" '
            f'rx="{min(box.height, QUEUE_HEIGHT) / 2:g}" fill="{tokens.QUEUE_GROUND.light}" '
            f'stroke="{tokens.MUTED_MARK}" class="q"/>'
        )
        return shape + _lines(lines, box, _centered(lines, box))

    def _draw_exchange(self, name: str, box: Box) -> str:
        lines = [
            _Line(_label(name, EXCHANGE_WIDTH), "l", is_name=True),
            _Line(["exchange"], "d", 11),
        ]
        x, y, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
        shape = (
            f'<path d="M{x + 9:g} {y:g}H{right:g}L{right - 9:g} {bottom:g}H{x:g}Z" '
            f'fill="{tokens.EXCHANGE_GROUND.light}" stroke="{tokens.MUTED_MARK}" class="x"/>'
        )
        return shape + _lines(lines, box, _centered(lines, box))

    def _draw_stage(self, name: str, box: Box) -> str:
        lines = [_Line(_label(name, STAGE_WIDTH, is_bold=True), "stage", is_name=True)]
        lines.append(_Line(self._shape(name), "d", 11))
        if self.is_counted:
            lines += self._counts(name)
        return (
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" '
            f'rx="6" fill="{tokens.STAGE_GROUND.light}" stroke="{tokens.ACCENT.light}" '
            f'stroke-width="1.5" class="s"/>{_lines(lines, box, _centered(lines, box))}'
        )

    def _counts(self, name: str) -> list[_Line]:
        """Return the counts of a stage in two lines, or in three if they are very large."""
        now = self.stages.get(name, _NO_COUNTS)
        lines = [_Line(_label(f"{now.done:,} done", STAGE_WIDTH, 11, most=1), "done", 11)]
        words = [(f"{now.retried:,} retried", "retried")] * bool(now.retried)
        words += [(f"{now.dead:,} dead", "dead")] * bool(now.dead)
        signs = [(f"{tokens.RETRIED_SIGN} {now.retried:,}", "retried"),
                 (f"{tokens.DEAD_SIGN} {now.dead:,}", "dead")]  # fmt: skip
        for parts in (words, signs) if len(words) == 2 else ():
            if text_width(" · ".join(text for text, _ in parts), 11) <= STAGE_WIDTH - BESIDE:
                dot = f'<tspan class="d" fill="{tokens.MUTED.light}"> · </tspan>'
                line = dot.join(
                    f'<tspan class="{kind}" fill="{_COLORS[kind]}">{text}</tspan>'
                    for text, kind in parts
                )
                return [*lines, _Line([line], "d", 11, is_ready=True)]
        return lines + [
            _Line(_label(text, STAGE_WIDTH, 11, most=1), kind, 11) for text, kind in words
        ]


# ---- text ----------------------------------------------------------------------------------------

_COLORS = {
    "l": tokens.TEXT.light, "stage": tokens.TEXT.light, "d": tokens.MUTED.light,
    "done": tokens.ACCENT.light, "retried": tokens.RETRIED.light, "dead": tokens.DEAD.light,
}  # fmt: skip


@dataclass(frozen=True)
class _Line:
    """A text in a box, perhaps in two lines; *kind* is its class. *is_ready*: it is SVG."""

    parts: Sequence[str]
    kind: str
    size: int = 12
    is_name: bool = False
    is_ready: bool = False


def _centered(lines: Sequence[_Line], box: Box) -> float:
    """Return the y of the first line if all of them stand in the middle of *box*."""
    number = sum(len(each.parts) for each in lines if any(each.parts))
    return box.middle - (number - 1) * LINE / 2 + 4


def _lines(lines: Sequence[_Line], box: Box, y: float) -> str:
    x, found = box.x + box.width / 2, ""
    for each in lines:
        parts = [part if each.is_ready else html.escape(part) for part in each.parts]
        if not any(parts):
            continue
        if each.is_name:  # the same elements, whatever the name is
            parts += [""] * (MAX_NAME_LINES - len(parts))
        inner = "".join(
            part if not n else f'<tspan x="{x:g}" dy="{LINE}">{part}</tspan>'
            for n, part in enumerate(parts)
        )
        weight = ' font-weight="bold"' if each.kind == "stage" else ""
        found += (
            f'<text x="{x:g}" y="{y:g}" text-anchor="middle" class="{each.kind}" '
            f'fill="{_COLORS[each.kind]}" font-size="{each.size}"{weight}>{inner}</text>'
        )
        y += LINE * len(each.parts)
    return found


def _label(
    name: str, width: float, size: int = 12, most: int = MAX_NAME_LINES, *, is_bold: bool = False
) -> list[str]:
    """Return *name* in lines that fit a box of this width, cut in its middle if it is too long."""
    return name_in_lines(safe(name, 80), width - BESIDE, size, most, is_bold=is_bold)


def _title(name: str) -> str:
    return f"<title>{html.escape(safe(name, 80))}</title>"

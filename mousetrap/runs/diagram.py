"""A flow as a picture with counts, drawn as SVG: in a notebook's cell, and in its saved output.

Plain shapes and text on no background of its own, legible on white and on black: no script, no
style sheet, no font of its own. Names are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mousetrap.display import sparkline
from mousetrap.display.safe_text import safe
from mousetrap.flows.flow import Step
from mousetrap.model.summary import StageSummary

BOX, PILL, GAP = 150, 130, 46  # pixels: width of a stage, of a queue, and of the way between
LIVE_BOX = 190  # pixels: width of a stage that shows what it is doing
HEIGHT, LIVE_HEIGHT, MARGIN = 62, 104, 30  # pixels: of a box, a live one, and between two rows
BLUE, ORANGE, RED, GREY, INK = "#2b6cb0", "#c05621", "#c53030", "#718096", "#1a202c"
_NOTHING = StageSummary(0, 0, 0, {}, {})
_Node = tuple[str, str]  # "queue" or "stage", and its name


@dataclass(frozen=True)
class Activity:
    """What a stage is doing: messages settled per second, now and in each second of late."""

    rate: float
    minute: Sequence[float] = ()
    in_progress: int | None = None  # taken and without a fate; None: nobody here knows
    trouble: str = ""  # a word or two: "reconnecting"


class Diagram:
    """Queues as pills, stages as boxes, in the direction of the messages.

    *stages* tells what each step did so far, *queues* how many messages are in each queue or, for
    one that no step reads, have come out there: *end* is the word for it; None is not known. With
    *activity* the boxes show what each step is doing, with *oldest* the queues how old their oldest
    message is.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        stages: Mapping[str, StageSummary],
        queues: Mapping[str, int | None],
        *,
        activity: Mapping[str, Activity] | None = None,
        oldest: Mapping[str, str] | None = None,
        end: str = "out",
    ) -> None:
        self.steps = steps
        self.stages = stages
        self.queues = queues
        self.activity = activity or {}
        self.oldest = oldest or {}
        self.end = end
        self._reads = {step.reads for step in steps}
        self._box, self._height = (LIVE_BOX, LIVE_HEIGHT) if activity else (BOX, HEIGHT)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "image/svg+xml": self.svg()}

    def __repr__(self) -> str:
        lines = []
        for step in self.steps:
            now = self.stages.get(step.name, _NOTHING)
            way = f"{self._queue(step.reads)} → {step.name}"
            if step.writes is not None:
                way += f" → {self._queue(step.writes)}"
            counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
            lines.append(f"{safe(way)}: {counts}")
        return "\n".join(lines)

    def _queue(self, name: str) -> str:
        return f"{name} ({self.queues.get(name) or 0:,})"

    def svg(self) -> str:
        """Return the picture as an SVG document."""
        columns = self._columns()
        places: dict[_Node, tuple[float, float, float]] = {}  # x, y of the middle, width
        shapes: list[str] = []
        row_height = self._height + MARGIN
        x = 4.0
        for number, column in enumerate(columns):
            width = PILL if number % 2 == 0 else self._box
            for row, (kind, name) in enumerate(column):
                y = 4.0 + row * row_height
                places[kind, name] = (x, y + self._height / 2, width)
                shapes.append(
                    self._pill(name, x, y) if kind == "queue" else self._stage(name, x, y)
                )
            x += width + GAP
        ways = [
            _way(places[start], places[end], is_back=places[start][0] >= places[end][0])
            for start, end in self._edges()
        ]
        right, bottom = x - GAP + 4, 8 + row_height * max(map(len, columns)) - MARGIN
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:g}" height="{bottom:g}" '
            f'viewBox="0 0 {right:g} {bottom:g}" font-family="sans-serif" font-size="12">'
            f"{''.join(ways)}{''.join(shapes)}</svg>"
        )

    def _edges(self) -> list[tuple[_Node, _Node]]:
        edges: list[tuple[_Node, _Node]] = []
        for step in self.steps:
            edges.append((("queue", step.reads), ("stage", step.name)))
            if step.writes is not None:
                edges.append((("stage", step.name), ("queue", step.writes)))
        return edges

    def _columns(self) -> list[list[_Node]]:
        """Queues in even columns, stages in odd ones, each as far right as its longest way."""
        written = [step.writes for step in self.steps if step.writes is not None]
        queues = dict.fromkeys([*(step.reads for step in self.steps), *written])
        rank: dict[_Node, int] = {("queue", name): 0 for name in queues}
        rank |= {("stage", step.name): 1 for step in self.steps}
        for _ in rank:  # longest ways settle in so many rounds; a circle is cut by the cap
            for start, end in self._edges():
                rank[end] = max(rank[end], min(rank[start] + 1, 2 * len(self.steps)))
        columns: list[list[_Node]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
        for node, column in rank.items():
            if (column % 2 == 0) != (node[0] == "queue"):  # where a circle was cut
                column -= 1
            columns[column].append(node)
        return [column for column in columns if column] or [[]]

    def _pill(self, name: str, x: float, y: float) -> str:
        number = self.queues.get(name, 0)
        words = ["–" if number is None else f"{number:,}"]
        words.append("waiting" if name in self._reads else self.end)
        oldest = self.oldest.get(name, "")
        height = HEIGHT - 16 + (14 if oldest else 0)
        top = y + (self._height - height) / 2
        label = _text(x + PILL / 2, top + 20, html.escape(safe(name, 19)), INK)
        count = _text(x + PILL / 2, top + 36, " ".join(words), "#4a5568", 11)
        if oldest:
            count += _text(
                x + PILL / 2, top + 50, f"oldest {html.escape(safe(oldest, 12))}", ORANGE, 10
            )
        return (
            f'<g>{_title(name)}<rect x="{x:g}" y="{top:g}" width="{PILL}" height="{height}" '
            f'rx="{(HEIGHT - 16) / 2:g}" fill="#edf2f7" stroke="{GREY}"/>{label}{count}</g>'
        )

    def _stage(self, name: str, x: float, y: float) -> str:
        now = self.stages.get(name, _NOTHING)
        parts = [(f"{now.done:,} done", BLUE)]
        parts += [(f"{now.retried:,} retried", ORANGE)] if now.retried else []
        parts += [(f"{now.dead:,} dead", RED)] if now.dead else []
        counts = '<tspan fill="#718096"> · </tspan>'.join(
            f'<tspan fill="{color}">{text}</tspan>' for text, color in parts
        )
        length = sum(len(text) + 3 for text, _ in parts)
        size = next((size for size in (11, 10) if length * size * 0.55 < self._box), 9)
        middle = x + self._box / 2
        label = _text(middle, y + (20 if self.activity else 26), _name(name), INK, 13, bold=True)
        inside = _text(middle, y + self._height - (10 if self.activity else 16), counts, INK, size)
        doing = self.activity.get(name)
        edge = RED if doing is not None and doing.trouble else BLUE
        if doing is not None:
            inside += self._doing(doing, x, y)
        return (
            f'<g>{_title(name)}<rect x="{x:g}" y="{y:g}" width="{self._box}" '
            f'height="{self._height}" rx="6" fill="#ebf8ff" stroke="{edge}" stroke-width="1.5"/>'
            f"{label}{inside}</g>"
        )

    def _doing(self, doing: Activity, x: float, y: float) -> str:
        """The rate, what is in hand, and a sparkline of the last minute."""
        words = f"{format_rate(doing.rate)}/s"
        if doing.in_progress is not None:
            words += f" · {doing.in_progress:,} in progress"
        color = "#4a5568"
        if doing.trouble:
            words, color = html.escape(safe(doing.trouble, 24)), RED
        left, top, width, height = x + 10, y + 46, self._box - 20, 32
        shapes = _text(x + self._box / 2, y + 37, words, color, 11)
        if corners := sparkline.points(doing.minute, left, top, width, height):
            line = " ".join(f"{cx:.0f},{cy:.1f}" for cx, cy in corners)
            area = f"{left:g},{top + height:g} {line} {corners[-1][0]:.0f},{top + height:g}"
            shapes += (
                f'<polygon points="{area}" fill="#bee3f8"/>'
                f'<polyline points="{line}" fill="none" stroke="#4299e1" stroke-width="1.5"/>'
            )
        return shapes


def format_rate(value: float) -> str:
    """Say a rate in as many digits as people read: ``0.2``, ``3.1``, ``48``, ``1,204``."""
    return f"{value:.1f}" if 0 < value < 10 else f"{value:,.0f}"


def _name(name: str) -> str:
    return html.escape(safe(name, 20))


def _title(name: str) -> str:
    return f"<title>{html.escape(safe(name, 80))}</title>"


def _text(x: float, y: float, text: str, color: str, size: int = 12, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" fill="{color}" '
        f'font-size="{size}"{weight}>{text}</text>'
    )


def _way(
    start: tuple[float, float, float], end: tuple[float, float, float], *, is_back: bool
) -> str:
    """An arrow from the right edge of *start* to the left edge of *end*."""
    x1, y1 = start[0] + start[2], start[1]
    x2, y2 = end[0] - 2, end[1]
    dash = ' stroke-dasharray="4 3"' if is_back else ""
    bend = GAP / 2 if not is_back else GAP
    path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 6:g} {y2:g}"
    head = f"M{x2 - 7:g} {y2 - 4:g}L{x2:g} {y2:g}L{x2 - 7:g} {y2 + 4:g}Z"
    return (
        f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="1.5"{dash}/>'
        f'<path d="{head}" fill="{GREY}"/>'
    )

"""Draws a flow with counts as SVG, for the output of a notebook cell.

The picture consists of plain shapes and text on a transparent background, legible on white and on
black. It contains no script, no style sheet and no font. Names are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mousetrap.display import sparkline
from mousetrap.display.safe_text import safe
from mousetrap.flows.flow import Step
from mousetrap.model.summary import StageSummary

# pixels
STAGE_WIDTH, STAGE_HEIGHT = 150, 62
LIVE_STAGE_WIDTH, LIVE_STAGE_HEIGHT = 190, 104  # of a stage that shows its activity
QUEUE_WIDTH, QUEUE_HEIGHT = 130, 46
COLUMN_GAP, ROW_GAP = 46, 30

DONE_COLOR, RETRIED_COLOR, DEAD_COLOR = "#2b6cb0", "#c05621", "#c53030"
LINE_COLOR, LABEL_COLOR, DETAIL_COLOR = "#718096", "#1a202c", "#4a5568"
_NO_COUNTS = StageSummary(0, 0, 0, {}, {})
_Node = tuple[str, str]  # "queue" or "stage", and its name


@dataclass(frozen=True)
class Activity:
    """What a stage is doing now."""

    rate: float  # messages settled per second
    minute: Sequence[float] = ()  # messages settled in each interval of the last minute
    in_progress: int | None = (
        None  # messages that a worker has taken and not settled; None: unknown
    )
    trouble: str = ""  # a word or two: "reconnecting"


class Diagram:
    """A picture of a flow: queues are rounded boxes, stages are square ones, from left to right.

    *stages* has the counts of each step. *queues* has the number of messages in each queue, or
    None if it is unknown; for a queue that no step reads, it is the number of messages that were
    sent to it, and *end* is the word for them. With *activity* each stage shows what it is doing
    now, and with *oldest* each queue shows the age of its oldest message.
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
        self._stage_width, self._stage_height = (
            (LIVE_STAGE_WIDTH, LIVE_STAGE_HEIGHT) if activity else (STAGE_WIDTH, STAGE_HEIGHT)
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "image/svg+xml": self.svg()}

    def __repr__(self) -> str:
        lines = []
        for step in self.steps:
            now = self.stages.get(step.name, _NO_COUNTS)
            path = f"{self._queue(step.reads)} → {step.name}"
            if step.writes:
                path += f" → {', '.join(map(self._queue, step.writes))}"
            counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
            lines.append(f"{safe(path)}: {counts}")
        return "\n".join(lines)

    def _queue(self, name: str) -> str:
        return f"{name} ({self.queues.get(name) or 0:,})"

    def svg(self) -> str:
        """Return the picture as an SVG document."""
        columns = self._columns()
        places: dict[_Node, tuple[float, float, float]] = {}  # x, y of the middle, width
        shapes: list[str] = []
        row_height = self._stage_height + ROW_GAP
        x = 4.0
        for number, column in enumerate(columns):
            width = QUEUE_WIDTH if number % 2 == 0 else self._stage_width
            for row, (kind, name) in enumerate(column):
                y = 4.0 + row * row_height
                places[kind, name] = (x, y + self._stage_height / 2, width)
                shapes.append(
                    self._draw_queue(name, x, y)
                    if kind == "queue"
                    else self._draw_stage(name, x, y)
                )
            x += width + COLUMN_GAP
        arrows = [
            _arrow(places[start], places[end], is_back=places[start][0] >= places[end][0])
            for start, end in self._edges()
        ]
        right, bottom = x - COLUMN_GAP + 4, 8 + row_height * max(map(len, columns)) - ROW_GAP
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{right:g}" height="{bottom:g}" '
            f'viewBox="0 0 {right:g} {bottom:g}" font-family="sans-serif" font-size="12">'
            f"{''.join(arrows)}{''.join(shapes)}</svg>"
        )

    def _edges(self) -> list[tuple[_Node, _Node]]:
        edges: list[tuple[_Node, _Node]] = []
        for step in self.steps:
            edges.append((("queue", step.reads), ("stage", step.name)))
            edges += [(("stage", step.name), ("queue", name)) for name in step.writes]
        return edges

    def _columns(self) -> list[list[_Node]]:
        """Return the nodes by column: queues in even ones, stages in odd ones.

        The column of a node is the length of the longest path to it.
        """
        written = [name for step in self.steps for name in step.writes]
        queues = dict.fromkeys([*(step.reads for step in self.steps), *written])
        rank: dict[_Node, int] = {("queue", name): 0 for name in queues}
        rank |= {("stage", step.name): 1 for step in self.steps}
        # the longest path is found after as many rounds as there are nodes; a circle is cut off
        for _ in rank:
            for start, end in self._edges():
                rank[end] = max(rank[end], min(rank[start] + 1, 2 * len(self.steps)))
        columns: list[list[_Node]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
        for node, column in rank.items():
            if (column % 2 == 0) != (node[0] == "queue"):  # where a circle was cut
                column -= 1
            columns[column].append(node)
        return [column for column in columns if column] or [[]]

    def _draw_queue(self, name: str, x: float, y: float) -> str:
        number = self.queues.get(name, 0)
        words = ["–" if number is None else f"{number:,}"]
        words.append("waiting" if name in self._reads else self.end)
        oldest = self.oldest.get(name, "")
        height = QUEUE_HEIGHT + (14 if oldest else 0)
        top = y + (self._stage_height - height) / 2
        label = _text(x + QUEUE_WIDTH / 2, top + 20, html.escape(safe(name, 19)), LABEL_COLOR)
        count = _text(x + QUEUE_WIDTH / 2, top + 36, " ".join(words), DETAIL_COLOR, 11)
        if oldest:
            age = f"oldest {html.escape(safe(oldest, 12))}"
            count += _text(x + QUEUE_WIDTH / 2, top + 50, age, RETRIED_COLOR, 10)
        return (
            f'<g>{_title(name)}<rect x="{x:g}" y="{top:g}" width="{QUEUE_WIDTH}" '
            f'height="{height}" rx="{QUEUE_HEIGHT / 2:g}" fill="#edf2f7" stroke="{LINE_COLOR}"/>'
            f"{label}{count}</g>"
        )

    def _draw_stage(self, name: str, x: float, y: float) -> str:
        now = self.stages.get(name, _NO_COUNTS)
        parts = [(f"{now.done:,} done", DONE_COLOR)]
        parts += [(f"{now.retried:,} retried", RETRIED_COLOR)] if now.retried else []
        parts += [(f"{now.dead:,} dead", DEAD_COLOR)] if now.dead else []
        counts = '<tspan fill="#718096"> · </tspan>'.join(
            f'<tspan fill="{color}">{text}</tspan>' for text, color in parts
        )
        length = sum(len(text) + 3 for text, _ in parts)
        size = next((size for size in (11, 10) if length * size * 0.55 < self._stage_width), 9)
        middle = x + self._stage_width / 2
        top, bottom = (20, 10) if self.activity else (26, 16)
        label = _text(middle, y + top, _name(name), LABEL_COLOR, 13, bold=True)
        inside = _text(middle, y + self._stage_height - bottom, counts, LABEL_COLOR, size)
        activity = self.activity.get(name)
        edge = DEAD_COLOR if activity is not None and activity.trouble else DONE_COLOR
        if activity is not None:
            inside += self._draw_activity(activity, x, y)
        return (
            f'<g>{_title(name)}<rect x="{x:g}" y="{y:g}" width="{self._stage_width}" '
            f'height="{self._stage_height}" rx="6" fill="#ebf8ff" stroke="{edge}" '
            f'stroke-width="1.5"/>{label}{inside}</g>'
        )

    def _draw_activity(self, activity: Activity, x: float, y: float) -> str:
        """Draw the rate, the number of messages in progress, and a sparkline of the last minute."""
        words = f"{format_rate(activity.rate)}/s"
        if activity.in_progress is not None:
            words += f" · {activity.in_progress:,} in progress"
        color = DETAIL_COLOR
        if activity.trouble:
            words, color = html.escape(safe(activity.trouble, 24)), DEAD_COLOR
        left, top, width, height = x + 10, y + 46, self._stage_width - 20, 32
        shapes = _text(x + self._stage_width / 2, y + 37, words, color, 11)
        if corners := sparkline.points(activity.minute, left, top, width, height):
            line = " ".join(f"{cx:.0f},{cy:.1f}" for cx, cy in corners)
            area = f"{left:g},{top + height:g} {line} {corners[-1][0]:.0f},{top + height:g}"
            shapes += (
                f'<polygon points="{area}" fill="#bee3f8"/>'
                f'<polyline points="{line}" fill="none" stroke="#4299e1" stroke-width="1.5"/>'
            )
        return shapes


def format_rate(value: float) -> str:
    """Return a rate with as many digits as are useful: ``0.2``, ``3.1``, ``48``, ``1,204``."""
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


def _arrow(
    start: tuple[float, float, float], end: tuple[float, float, float], *, is_back: bool
) -> str:
    """Draw an arrow from the right edge of *start* to the left edge of *end*."""
    x1, y1 = start[0] + start[2], start[1]
    x2, y2 = end[0] - 2, end[1]
    dash = ' stroke-dasharray="4 3"' if is_back else ""
    bend = COLUMN_GAP / 2 if not is_back else COLUMN_GAP
    path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 6:g} {y2:g}"
    head = f"M{x2 - 7:g} {y2 - 4:g}L{x2:g} {y2:g}L{x2 - 7:g} {y2 + 4:g}Z"
    return (
        f'<path d="{path}" fill="none" stroke="{LINE_COLOR}" stroke-width="1.5"{dash}/>'
        f'<path d="{head}" fill="{LINE_COLOR}"/>'
    )

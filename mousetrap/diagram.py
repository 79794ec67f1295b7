"""A flow as a picture with counts, drawn as SVG: in a notebook's cell, and in its saved output.

Plain shapes and text: no script, no style sheet, no font of its own. Names are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

from mousetrap.flow import Flow
from mousetrap.record import StageRecord
from mousetrap.table import safe

BOX, PILL, GAP = 150, 130, 46  # pixels: width of a stage, of a queue, and of the way between
HEIGHT, ROW = 62, 92  # pixels: of a box, and from one row to the next
BLUE, ORANGE, RED, GREY, INK = "#2b6cb0", "#c05621", "#c53030", "#718096", "#1a202c"
_NOTHING = StageRecord(0, 0, 0, {}, {})


class Diagram:
    """Queues as pills, stages as boxes, in the direction of the messages.

    *stages* tells what each stage did so far, *queues* how many messages are in each queue or, for
    one that no stage reads, have come out there.
    """

    def __init__(
        self, flow: Flow, stages: Mapping[str, StageRecord], queues: Mapping[str, int]
    ) -> None:
        self.flow = flow
        self.stages = stages
        self.queues = queues

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "image/svg+xml": self.svg()}

    def __repr__(self) -> str:
        lines = []
        for stage in self.flow.stages:
            now = self.stages.get(stage.name, _NOTHING)
            way = f"{self._queue(stage.queue.name)} → {stage.name}"
            if stage.writes is not None:
                way += f" → {self._queue(stage.writes)}"
            counts = f"{now.done:,} done, {now.retried:,} retried, {now.dead:,} dead"
            lines.append(f"{safe(way)}: {counts}")
        return "\n".join(lines)

    def _queue(self, name: str) -> str:
        return f"{name} ({self.queues.get(name, 0):,})"

    def svg(self) -> str:
        """Return the picture as an SVG document."""
        columns = self._columns()
        places: dict[tuple[str, str], tuple[float, float, float]] = {}  # node -> x, y, width
        shapes: list[str] = []
        x = 10.0
        for number, column in enumerate(columns):
            width = PILL if number % 2 == 0 else BOX
            for row, (kind, name) in enumerate(column):
                y = 10.0 + row * ROW
                places[kind, name] = (x, y, width)
                shapes.append(self._shape(kind, name, x, y))
            x += width + GAP
        ways = [
            _way(places[start], places[end], is_back=places[start][0] >= places[end][0])
            for start, end in self._edges()
        ]
        height = 20 + ROW * (max(map(len, columns)) - 1) + HEIGHT
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - GAP + 10:g}" height="{height}" '
            f'viewBox="0 0 {x - GAP + 10:g} {height}" font-family="sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(ways)}{"".join(shapes)}</svg>'
        )

    def _edges(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        edges = []
        for stage in self.flow.stages:
            edges.append((("queue", stage.queue.name), ("stage", stage.name)))
            if stage.writes is not None:
                edges.append((("stage", stage.name), ("queue", stage.writes)))
        return edges

    def _columns(self) -> list[list[tuple[str, str]]]:
        """Queues in even columns, stages in odd ones, each as far right as its longest way."""
        rank = {("queue", name): 0 for name in [*self.flow.reads, *self.flow.writes]}
        rank |= {("stage", stage.name): 1 for stage in self.flow.stages}
        for _ in rank:  # longest ways settle in so many rounds; a circle is cut by the cap
            for start, end in self._edges():
                rank[end] = max(rank[end], min(rank[start] + 1, 2 * len(self.flow.stages)))
        columns: list[list[tuple[str, str]]] = [[] for _ in range(max(rank.values()) + 1)]
        for node, column in rank.items():
            if (column % 2 == 0) != (node[0] == "queue"):  # where a circle was cut
                column -= 1
            columns[column].append(node)
        return [column for column in columns if column] or [[]]

    def _shape(self, kind: str, name: str, x: float, y: float) -> str:
        label = html.escape(safe(name, 20))
        title = f"<title>{html.escape(safe(name))}</title>"
        if kind == "queue":
            count = self.queues.get(name, 0)
            is_read = name in self.flow.reads
            words = f"{count:,} waiting" if is_read else f"{count:,} out"
            return (
                f'<g>{title}<rect x="{x:g}" y="{y + 8:g}" width="{PILL}" height="{HEIGHT - 16}" '
                f'rx="{HEIGHT / 2 - 8:g}" fill="#edf2f7" stroke="{GREY}"/>'
                f"{_text(x + PILL / 2, y + 28, label, INK)}"
                f"{_text(x + PILL / 2, y + 44, words, GREY, 11)}</g>"
            )
        now = self.stages.get(name, _NOTHING)
        parts = [(f"{now.done:,} done", BLUE)]
        parts += [(f"{now.retried:,} retried", ORANGE)] if now.retried else []
        parts += [(f"{now.dead:,} dead", RED)] if now.dead else []
        spans = '<tspan fill="#718096"> · </tspan>'.join(
            f'<tspan fill="{color}">{text}</tspan>' for text, color in parts
        )
        size = 11 if len(parts) < 3 else 9
        return (
            f'<g>{title}<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="6" '
            f'fill="#ebf8ff" stroke="{BLUE}" stroke-width="1.5"/>'
            f"{_text(x + BOX / 2, y + 26, label, INK, 13, bold=True)}"
            f"{_text(x + BOX / 2, y + 46, spans, INK, size)}</g>"
        )


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
    x1, y1 = start[0] + start[2], start[1] + HEIGHT / 2
    x2, y2 = end[0] - 2, end[1] + HEIGHT / 2
    dash = ' stroke-dasharray="4 3"' if is_back else ""
    bend = GAP / 2 if not is_back else GAP
    path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 6:g} {y2:g}"
    head = f"M{x2 - 7:g} {y2 - 4:g}L{x2:g} {y2:g}L{x2 - 7:g} {y2 + 4:g}Z"
    return (
        f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="1.5"{dash}/>'
        f'<path d="{head}" fill="{GREY}"/>'
    )

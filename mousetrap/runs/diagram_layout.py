"""Where the boxes of a diagram stand, and the arrows between them: numbers only, no drawing.

Boxes stand in columns, from left to right; the column of a box is the length of the longest path
to it. When a row of columns is as wide as a notebook's cell, the next columns stand below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mousetrap.flows.flow import Step
from mousetrap.model.exchanges import UNROUTED

# pixels
MAX_WIDTH = 848  # of the picture: it fits into a notebook's cell of 860 without being scaled
COLUMN_GAP, ROW_GAP, BAND_GAP = 24, 16, 30
MARGIN = 18  # left and right, where arrows from and to other rows of columns pass

Node = tuple[str, str]  # "queue", "stage" or "exchange", and its name
Edge = tuple[Node, Node]


@dataclass(frozen=True)
class Box:
    """The place of one node, in pixels, and in which row of columns it stands."""

    x: float
    y: float
    width: float
    height: float
    band: int
    column: int

    @property
    def middle(self) -> float:
        """The y of its middle, where arrows begin and end."""
        return self.y + self.height / 2


@dataclass(frozen=True)
class Arrow:
    """An arrow: its path in SVG, its tip, and whether it leads back to an earlier column."""

    path: str
    tip: tuple[float, float]
    is_back: bool


@dataclass(frozen=True)
class Layout:
    """The places of all nodes, the arrows, and the size of the picture."""

    boxes: dict[Node, Box]
    arrows: list[Arrow]
    width: float
    height: float


def edges_of(steps: Sequence[Step], hidden: Callable[[str], bool]) -> list[Edge]:
    """Return what leads to what; queues for which *hidden* is true are left out."""
    edges: list[Edge] = []
    for step in steps:
        stage, queue = ("stage", step.name), ("queue", step.reads)
        edges += [(("exchange", name), queue) for name in step.bound]
        edges.append((queue, stage))
        edges += [
            (stage, ("queue", name)) for name in step.writes
            if name not in step.routed and not hidden(name)
        ]  # fmt: skip
        for name in step.exchanges:
            edges.append((stage, ("exchange", name)))
            rest = f"{name}{UNROUTED}"
            if rest in step.routed and not hidden(rest):
                edges.append((("exchange", name), ("queue", rest)))
    return list(dict.fromkeys(edges))


def columns_of(edges: Sequence[Edge]) -> list[list[Node]]:
    """Return the nodes by column; an edge that closes a circle is left out of account."""
    nodes = list(dict.fromkeys(node for edge in edges for node in edge))
    ahead: dict[Node, list[Node]] = {node: [] for node in nodes}
    for start, end in edges:
        ahead[start].append(end)
    forward = _without_circles(nodes, ahead)
    rank = dict.fromkeys(nodes, 0)
    for _ in nodes:  # the longest path has no more edges than there are nodes
        changed = False
        for start, end in forward:
            if rank[end] <= rank[start]:
                rank[end], changed = rank[start] + 1, True
        if not changed:
            break
    columns: list[list[Node]] = [[] for _ in range(max(rank.values(), default=0) + 1)]
    for node in nodes:
        columns[rank[node]].append(node)
    return columns


def _without_circles(nodes: Sequence[Node], ahead: dict[Node, list[Node]]) -> list[Edge]:
    """Return the edges without those that lead back, as a search in depth finds them."""
    kept: list[Edge] = []
    done: set[Node] = set()
    entered = {end for start in nodes for end in ahead[start] if end != start}
    for root in [*(node for node in nodes if node not in entered), *nodes]:
        path = [root] if root not in done else []
        rest = [iter(ahead[root])] if path else []
        done.add(root)
        while rest:
            end = next(rest[-1], None)
            if end is None:
                rest.pop()
                path.pop()
            elif end not in path:
                kept.append((path[-1], end))
                if end not in done:
                    done.add(end)
                    path.append(end)
                    rest.append(iter(ahead[end]))
    return kept


def layout(edges: Sequence[Edge], size: Callable[[Node], tuple[float, float]]) -> Layout:
    """Return the places of all nodes of *edges*; *size* is the width and height of a node."""
    bands = _bands(columns_of(edges), size)
    boxes: dict[Node, Box] = {}
    bottoms: list[float] = []
    y, right = 4.0, 0.0
    for band, columns in enumerate(bands):
        row_height = max(size(node)[1] for column in columns for node in column)
        x = float(MARGIN)
        for number, column in enumerate(columns):
            width = max(size(node)[0] for node in column)
            for row, node in enumerate(column):
                own, height = size(node)
                top = y + row * (row_height + ROW_GAP) + (row_height - height) / 2
                boxes[node] = Box(x + (width - own) / 2, top, own, height, band, number)
            x += width + COLUMN_GAP
        right = max(right, x - COLUMN_GAP)
        y += max(map(len, columns)) * (row_height + ROW_GAP) - ROW_GAP
        bottoms.append(y)
        y += BAND_GAP
    arrows = [_arrow(boxes[start], boxes[end], bottoms, n) for n, (start, end) in enumerate(edges)]
    gutter = any(each.is_back and boxes[s].band == len(bands) - 1
                 for each, (s, _) in zip(arrows, edges, strict=True))  # fmt: skip
    return Layout(boxes, arrows, right + MARGIN, y - BAND_GAP + (22 if gutter else 4))


def _bands(
    columns: Sequence[list[Node]], size: Callable[[Node], tuple[float, float]]
) -> list[list[list[Node]]]:
    """Return the columns in rows that are no wider than the picture."""
    bands: list[list[list[Node]]] = []
    width = 0.0
    for column in columns:
        own = max(size(node)[0] for node in column) + COLUMN_GAP
        if not bands or width + own - COLUMN_GAP > MAX_WIDTH - 2 * MARGIN:
            bands.append([])
            width = 0.0
        bands[-1].append(column)
        width += own
    return bands


def _arrow(start: Box, end: Box, bottoms: Sequence[float], number: int) -> Arrow:
    """Return the arrow from the right edge of *start* to the left edge of *end*.

    To another row of columns, and back to an earlier column, it passes below the row of *start*.
    """
    x1, y1, x2, y2 = start.x + start.width, start.middle, end.x - 2, end.middle
    is_back = (end.band, end.column) <= (start.band, start.column)
    if end.band == start.band and not is_back:
        bend = COLUMN_GAP / 2
        path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 6:g} {y2:g}"
        return Arrow(path, (x2, y2), is_back)
    shift = 3 * (number % 3)  # arrows that pass at the same place stay apart
    below, right, left = bottoms[start.band] + 8 + shift, x1 + 7 + shift, x2 - 8 - shift
    path = f"M{x1:g} {y1:g}H{right:g}V{below:g}H{left:g}V{y2:g}H{x2 - 6:g}"
    return Arrow(path, (x2, y2), is_back)

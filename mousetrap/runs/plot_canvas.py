"""What all pictures of a run share: the figure, its colours, headings, ticks, and labels of lines.

A picture has a light ground of its own, because a page may change its theme after it was drawn, and
no colour of words is legible on white and on JupyterLab's dark ground (see `design_tokens`). A line
has its name at its end, in place of a legend: the words are dark, the line between has the colour.
The figure has the same size whatever is
drawn in it. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from mousetrap.display import design_tokens as tokens
from mousetrap.display.formats import number, shortened
from mousetrap.display.safe_text import safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 840  # pixels at the usual 100 per inch: a notebook's cell of 860 does not scale it
PIXELS_PER_INCH, POINTS_PER_INCH = 100, 72
TEXT, HEADING = 9.5, 12.0  # points: 13 and 17 pixels; with a cell of 720 pixels still above 11
LABEL_HEIGHT = 16  # pixels from one label to the next
GAP = 14  # pixels from the end of a line to its label
MAX_STEPS = 2000  # of a line, which is some 700 pixels wide
MAX_LABEL_NAME = 22  # characters of a stage's name
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 2, 2)))

Band = tuple[float, float]  # pixels from the top of the figure to those of the axes and their end


@dataclass(frozen=True)
class Label:
    """The words at the end of a line, which ends at the height *y*, in units of the axes."""

    text: str
    y: float
    color: str


def import_pyplot() -> Any:
    """Return ``matplotlib.pyplot``.

    Raises:
        ImportError: it is not installed; says what to install.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(
            "matplotlib, which draws the picture, is not installed: "
            "pip install 'mousetrap-mq[notebook]'"
        ) from None
    return pyplot


def new_figure(
    height: int, bands: Sequence[Band], left: float, right: float
) -> tuple[Figure, list[Axes]]:
    """Return a figure of this height, and axes in *bands* of it, below each other.

    *left* and *right* are the pixels beside the axes, for ticks and for labels.
    """
    pyplot = import_pyplot()
    size = (WIDTH / PIXELS_PER_INCH, height / PIXELS_PER_INCH)
    figure: Figure = pyplot.figure(figsize=size)
    figure.patch.set_facecolor(tokens.GROUND.light)
    width = max(200.0, WIDTH - left - right)
    for top, bottom in bands:
        place = (left / WIDTH, 1 - bottom / height, width / WIDTH, (bottom - top) / height)
        dress(figure.add_axes(place))
    return figure, list(figure.axes)


def dress(axes: Axes) -> None:
    """Give *axes* the colours and the type of our pictures."""
    axes.patch.set_alpha(0)
    axes.grid(axis="y", color=tokens.MUTED.light, alpha=0.3, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(tokens.MUTED.light)
    axes.tick_params(color=tokens.MUTED.light, labelcolor=tokens.MUTED.light, labelsize=TEXT)
    axes.tick_params(axis="y", length=0)


def write_heading(axes: Axes, heading: str, below: str = "") -> None:
    """Write *heading* above the axes, and *below* in a line of its own under it."""
    points = POINTS_PER_INCH / PIXELS_PER_INCH
    beside = (6 - axes.get_position().x0 * WIDTH) * points
    heading_style = {"fontsize": HEADING, "fontweight": "bold", "color": tokens.TEXT.light}
    lines: list[tuple[str, dict[str, Any]]] = [(heading, heading_style)]
    lines += [(below, {"fontsize": TEXT, "color": tokens.MUTED.light})] * bool(below)
    for row, (text, style) in enumerate(reversed(lines)):
        axes.annotate(
            safe(text), (0, 1), (beside, (11 + row * (LABEL_HEIGHT + 3)) * points), "axes fraction",
            "offset points", annotation_clip=False, parse_math=False, **style,
        )  # fmt: skip


def write_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label beside the end of its line, so far apart that all can be read.

    If there are more than have room, those in the middle are left out.
    """
    points = POINTS_PER_INCH / PIXELS_PER_INCH
    _, height = size_of(axes)
    most = int(height / LABEL_HEIGHT) + 1
    if (left_out := len(labels) - most + 1) > 1:
        head = most // 2
        middle = labels[head : head + left_out]
        more = Label(f"{left_out:,} more", middle[left_out // 2].y, tokens.MUTED.light)
        labels = [*labels[:head], more, *labels[head + left_out :]]
    low, high = axes.get_ylim()
    ends = [(each.y - low) / (high - low) * height for each in labels]
    for each, end, at in zip(
        labels, ends, spread(ends, LABEL_HEIGHT, height + LABEL_HEIGHT / 2), strict=True
    ):
        axes.annotate(
            each.text, (1, end / height), (GAP * points, (at - end) * points),
            "axes fraction", "offset points", va="center_baseline", fontsize=TEXT,
            color=tokens.TEXT.light, annotation_clip=False, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": each.color, "shrinkA": 0, "shrinkB": 1,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(wanted: Sequence[float], distance: float, highest: float) -> list[float]:
    """Return places that are *distance* apart and as near to *wanted*, in any order, as possible.

    Of two that are wanted at one place, the first is above. They are in 0..*highest* if there is
    room for all. Labels that would overlap become a group
    around their mean: the isotonic regression of what is left of a place when the labels below it
    are taken away.
    """
    order = sorted(range(len(wanted)), key=lambda n: (wanted[n], -n))
    groups: list[list[float]] = []  # sum and number of labels
    for rank, place in enumerate(order):
        groups.append([wanted[place] - rank * distance, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] >= groups[-1][0] / groups[-1][1]:
            total, number = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += number
    room = highest - (len(wanted) - 1) * distance
    bases = [max(0.0, min(room, total / n)) for total, n in groups for _ in range(int(n))]
    found = [0.0] * len(wanted)
    for rank, (place, base) in enumerate(zip(order, bases, strict=True)):
        found[place] = base + rank * distance
    return found


def size_of(axes: Axes) -> tuple[float, float]:
    """Return the width and the height of *axes* in pixels."""
    box = axes.get_window_extent()
    scale = PIXELS_PER_INCH / axes.figure.dpi
    return box.width * scale, box.height * scale


def text_width(text: str) -> float:
    """Return how many pixels *text* takes as a label."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(size=TEXT), ismath=False
    )
    return width * PIXELS_PER_INCH / POINTS_PER_INCH


def named(name: str) -> str:
    """Return the name of a stage or a fault as it fits beside a picture."""
    return shortened(safe(name), MAX_LABEL_NAME)


def styles() -> Iterator[tuple[str, Any]]:
    """Yield the colour and the dashes of each line; the first 24 differ."""
    colors = tokens.SERIES_MARKS
    for n in count():
        rounds = n // (2 * len(colors))  # after so many, each colour has its dashes again
        yield colors[n % len(colors)], DASHES[(n + rounds) % len(DASHES)]


def unit_of_time(seconds: float) -> tuple[float, str]:
    """Return the seconds of the unit in which times up to *seconds* are shown, and its name."""
    for least, unit, name in ((10_800, 3600, "hours"), (600, 60, "minutes"), (0.5, 1, "seconds")):
        if seconds >= least:
            return float(unit), name
    return (0.001, "milliseconds") if seconds >= 0.000_5 else (0.000_001, "microseconds")


def count_ticks(axes: Axes, largest: float) -> None:
    """Let the y axis go from 0 to *largest*, with a few whole numbers beside it."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(0, max(1.0, largest))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def number_ticks(axes: Axes) -> None:
    """Write the numbers on the x axis as people read them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def thinned(moments: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return at most `MAX_STEPS` of *moments*, with the number of moments up to each.

    The first and the last are among them. More steps than pixels change nothing but the time.
    """
    step = max(1, -(-len(moments) // MAX_STEPS))
    ranks = [*range(1, len(moments), step), *([len(moments)] if moments else [])]
    return [moments[rank - 1] for rank in ranks], ranks

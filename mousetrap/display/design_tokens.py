"""The colours and signs of everything that is shown: HTML, SVG, matplotlib and the terminal.

Words have the page's own colour wherever there is one. A colour marks, and always together with a
sign or a word, because some people do not see it (WCAG 2.2, 1.4.1). Two grounds are drawn on:

- one of our own (a page, a picture that names its ground): a `Pair`, one colour for the light and
  one for the dark theme. As text each has a contrast of at least 4.5 with its ground (WCAG 1.4.3);
- the page's, which may be white or JupyterLab's dark ``#111`` and may change later: a mark, with a
  contrast of at least 3 with both (WCAG 1.4.11). No hue reaches 4.5 with both, so marks are no
  text.

`tests/display/test_design_tokens.py` computes each contrast.
"""

from __future__ import annotations

from typing import NamedTuple

LIGHT_GROUND, DARK_GROUND = "#ffffff", "#111111"


class Pair(NamedTuple):
    """A colour for the light and one for the dark theme."""

    light: str
    dark: str


TEXT = Pair("#1f2328", "#e6e9ef")
MUTED = Pair("#57606a", "#a3adba")
OK = Pair("#0a6e4f", "#3fc79a")
RETRIED = Pair("#8f4700", "#f2a44b")
DEAD = Pair("#b3261e", "#ff8a80")
ACCENT = Pair("#0b5cad", "#78b4ff")

# Grounds of our own, on which the colours above are legible, too: of a page, of boxes, of bars.
GROUND = Pair(LIGHT_GROUND, DARK_GROUND)
WASH = Pair("#f6f7f9", "#1c2027")
QUEUE_GROUND = Pair("#edf2f7", "#20242b")
STAGE_GROUND = Pair("#ebf4ff", "#12233a")
EXCHANGE_GROUND = Pair("#f3eefb", "#2a2338")
BAR_GROUND = Pair("#dbe7ff", "#23395f")
LINE = Pair("#e4e7ec", "#2d333d")  # between rows: it says nothing

# Marks on either ground.
MUTED_MARK = "#767d88"
OK_MARK = "#1f8a63"
RETRIED_MARK = "#b86a00"
DEAD_MARK = "#d3453d"
ACCENT_MARK = "#3b7fd4"

SERIES = (
    Pair("#0072b2", "#56b4e9"),
    Pair("#b35900", "#e69f00"),
    Pair("#00795a", "#2fc597"),
    Pair("#a6457f", "#e39bc2"),
)
"""Colours of lines on a ground of our own, after Okabe and Ito. Label each line directly and vary
the dashes: the third and fourth are close to each other for colour-blind readers."""

SERIES_MARKS = (ACCENT_MARK, RETRIED_MARK, OK_MARK, "#b5589a", "#8a7a2f", "#2a8a96")
"""Colours of lines on either ground."""

RUNNING_SIGN, ENDED_SIGN, RETRIED_SIGN, DEAD_SIGN = "●", "■", "↻", "✕"

MIN_FONT = 11  # px, after scaling: no text is smaller

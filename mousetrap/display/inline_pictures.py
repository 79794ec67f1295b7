"""Pictures as small as a word, for HTML: how much of a whole is done, and a minute of a rate.

They are images with their data in the address, because JupyterLab removes SVG elements from the
output of a notebook that it does not trust, and keeps images. Each has a fixed size, so that
nothing moves when it is replaced, and is legible on white and on black.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence

from mousetrap.display import design_tokens as tokens

BAR_WIDTH, BAR_HEIGHT = 560, 12  # pixels, as are all sizes here
MIN_PART = 3.0  # width of a part that is not empty
SECOND_WIDTH, MINUTE_HEIGHT = 1.5, 20  # of one bar; of the picture


def image(svg: str, width: int, height: int, alt: str, *, shrinks: bool = False) -> str:
    """Return *svg*, the content of an SVG document, as an image in HTML that reads *alt*.

    If it *shrinks*, it is never wider than its cell, and as high as ever.
    """
    document = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" preserveAspectRatio="none">{svg}</svg>'
    )
    return embedded(document, alt, shrinks=shrinks)


def embedded(document: str, alt: str, *, shrinks: bool = False) -> str:
    """Return *document*, an SVG document with a width and a height, as `image` does.

    Its size is that of the image, too: so the page does not move when the image is loaded.
    """
    data = base64.b64encode(document.encode()).decode()
    size = " ".join(re.findall(r'(?:width|height)="[\d.]+"', document)[:2])
    return (
        f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}" {size} '
        f'decoding="sync" style="display:inline-block;vertical-align:middle;'
        f'max-width:{"100%" if shrinks else "none"};margin:0">'
    )


def part_of_whole(done: float, dead: float, whole: float, alt: str) -> str:
    """Return a bar that is full at *whole*: *done* in blue, then *dead* in red and hatched."""
    blue, red = (_width(part, whole) for part in (done, dead))
    blue = min(blue, BAR_WIDTH - red)
    parts = f'<rect width="{blue:.1f}" height="12" fill="{tokens.ACCENT_MARK}"/>' if blue else ""
    if red:  # the lines begin with the part, so that a narrow one has one, too
        parts += (
            f'<defs><pattern id="h" width="6" height="12" patternUnits="userSpaceOnUse" '
            f'patternTransform="translate({blue:.1f})">'
            f'<path d="M0 12L6 0" stroke="{tokens.LIGHT_GROUND}"/></pattern></defs>'
            f'<rect x="{blue:.1f}" width="{red:.1f}" height="12" fill="{tokens.DEAD_MARK}"/>'
            f'<rect x="{blue:.1f}" width="{red:.1f}" height="12" fill="url(#h)"/>'
        )
    frame = (
        f'<rect x=".5" y=".5" width="{BAR_WIDTH - 1}" height="{BAR_HEIGHT - 1}" rx="3" '
        f'fill="none" stroke="{tokens.MUTED_MARK}"/>'
    )
    clip = f'<clipPath id="c"><rect width="{BAR_WIDTH}" height="{BAR_HEIGHT}" rx="3"/></clipPath>'
    drawn = f'{clip}<g clip-path="url(#c)">{parts}</g>{frame}'
    return image(drawn, BAR_WIDTH, BAR_HEIGHT, alt, shrinks=True)


def _width(part: float, whole: float) -> float:
    """Return the width of *part*: something is never invisible, and all of it fills the bar."""
    if not part or not whole:
        return 0.0
    return max(MIN_PART, BAR_WIDTH * min(1.0, part / whole))


def seconds(values: Sequence[float], top: float, alt: str, number: int = 60) -> str:
    """Return a bar for each of the latest *number* of *values*; one as high as *top* is full.

    The newest value is at the right end. A value above 0 is always visible.
    """
    width, base = round(SECOND_WIDTH * number), MINUTE_HEIGHT - 1
    latest = list(values)[-number:]
    path, at = "", 0.0
    for value in [0.0] * (number - len(latest)) + latest:
        height = max(1.0, (base - 1) * min(1.0, value / top)) if value > 0 and top else 0.0
        if round(height - at, 1):
            path += f"v{at - height:.1f}"
            at = round(height, 1)
        path += f"h{SECOND_WIDTH}"
    bars = f'<path d="M0 {base}{path}V{base}Z" fill="{tokens.ACCENT_MARK}"/>' if any(latest) else ""
    line = f'<path d="M0 {base + 0.5}H{width}" stroke="{tokens.MUTED_MARK}"/>'
    return image(line + bars, width, MINUTE_HEIGHT, alt)


def scale_of(values: Sequence[float]) -> float:
    """Return the round number, 1, 2 or 5 times a power of ten, that no value exceeds."""
    top = max(values, default=0.0)
    found = 1.0
    while found < top:
        for step in (2, 2.5, 2):
            if found < top:
                found *= step
    return found

"""The marks of a panel that say by themselves when its updates have stopped.

No code of ours runs after a kernel was killed, and JupyterLab drops what a kernel sends while it
restarts. So the mark of a live state is a picture that fades: each update replaces it and starts it
again. What moves is SVG inside an image: it needs no script, sanitizers of HTML keep it, and where
nothing moves (a saved notebook as PDF) the faded state is shown.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

VALID = 10.0  # seconds for which a state counts as live; more than two `live.HEARTBEAT`
# legible on white and on black
LIVE_COLOR, STALE_COLOR = "#1f8a63", "#767d88"


@dataclass(frozen=True)
class AsOf:
    """The time of a state, and why it is the last one that is shown; "" if updates follow.

    *end* is None for a picture that was never to be updated.
    """

    at: str
    end: str | None

    def __str__(self) -> str:
        return f"as of {self.at}" + (f", {self.end}" if self.end else "")

    def dot(self) -> str:
        """Return a dot as HTML: full for `VALID` seconds if updates follow, otherwise a ring."""
        if self.end != "":
            return f'<span style="color:{STALE_COLOR}">○</span>'
        live = f'<circle cx="7" cy="7" r="5" fill="{LIVE_COLOR}"/>'
        ring = '<circle cx="7" cy="7" r="4" fill="none" stroke-width="1.5"'
        return _image("○", self.at, (14, 14), live, f'{ring} stroke="{STALE_COLOR}"/>')

    def remark(self) -> str:
        """Return a remark as HTML that appears if no update comes for `VALID` seconds."""
        if self.end != "":
            return ""
        text = (
            f'<text y="12" font-family="sans-serif" font-size="12" font-weight="bold" '
            f'fill="{STALE_COLOR}">· not updated since</text>'
        )
        return _image("", self.at, (130, 16), "", text)


def _image(words: str, at: str, size: tuple[int, int], live: str, stale: str) -> str:
    """Return an image that shows *live* first and then *stale*; *words*: if it cannot be shown."""
    width, height = size
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        # a browser goes on with the animation of an equal picture: the time makes each another one
        f"<desc>{at}</desc>"
        f'<g opacity="0">{live}{_opacity("1;1;0")}</g><g>{stale}{_opacity("0;0;1")}</g></svg>'
    )
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<img alt="{words}" src="data:image/svg+xml;base64,{data}" width="{width}" '
        f'height="{height}" decoding="sync" '
        f'style="display:inline-block;vertical-align:middle;margin:0">'
    )


def _opacity(values: str) -> str:
    """Animate the opacity for `VALID` seconds, from the moment when the picture is shown."""
    return (
        f'<animate attributeName="opacity" values="{values}" keyTimes="0;0.7;1" '
        f'dur="{VALID:g}s" fill="remove"/>'
    )

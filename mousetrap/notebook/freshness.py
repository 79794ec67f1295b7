"""The mark of a panel, which shows by itself that its updates have stopped.

No code of ours runs after a kernel was killed, and JupyterLab drops what a kernel sends while it
restarts. So the mark of a live state is an animated picture that each update replaces and so starts
again; if none comes, it turns from a dot into a ring. It is a PNG with two frames (APNG): it needs
no script, sanitizers of HTML keep it, and where nothing moves, as on paper, the ring is shown.
An animated SVG would be shorter, but in JupyterLab Chromium may stop to draw it: it stays green.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from functools import cache

from mousetrap.runtime import randomness

VALID = 10.0  # seconds for which a state counts as live; more than two `live.HEARTBEAT`
SIZE = 14  # pixels of the mark
SCALE = 2  # pixels of the picture for each of them, for screens with a high resolution
# legible on white and on black
LIVE_COLOR, STALE_COLOR = (0x1F, 0x8A, 0x63), (0x76, 0x7D, 0x88)
MEANING = f"full: updated in the last {VALID:g} seconds; empty: not updated since"


@dataclass(frozen=True)
class AsOf:
    """The time of a state, and why it is the last one that is shown; "" if updates follow.

    *end* is None for a picture that was never to be updated.
    """

    at: str
    end: str | None

    def __str__(self) -> str:
        return f"as of {self.at}" + (f", {self.end}" if self.end else "")

    def mark(self) -> str:
        """Return a mark as HTML: a dot for `VALID` seconds if updates follow, otherwise a ring."""
        if self.end != "":
            return f'<span style="color:#{bytes(STALE_COLOR).hex()}">○</span>'
        # a browser goes on with the animation of an equal picture: the id makes each another one
        data = base64.b64encode(_picture(f"{self.at} {randomness.new_id()}")).decode()
        return (
            f'<img alt="○" title="{MEANING}" src="data:image/png;base64,{data}" width="{SIZE}" '
            f'height="{SIZE}" decoding="sync" '
            f'style="display:inline-block;vertical-align:middle;margin:0">'
        )


def _picture(comment: str) -> bytes:
    """Return an APNG: a dot for `VALID` seconds, then a ring; without animation the ring."""
    dot, ring = _frames()
    side = SIZE * SCALE
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, 6, 0, 0, 0)),  # RGBA, 8 bits each
            _chunk(b"tEXt", b"Comment\0" + comment.encode()),
            _chunk(b"acTL", struct.pack(">2I", 2, 1)),  # two frames, played once
            _chunk(b"IDAT", ring),  # without `fcTL` before it: no part of the animation
            _control(0, round(VALID * 1000)),
            _chunk(b"fdAT", struct.pack(">I", 1) + dot),
            _control(2, 100),
            _chunk(b"fdAT", struct.pack(">I", 3) + ring),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _control(number: int, milliseconds: int) -> bytes:
    """Return the chunk before a frame, which fills the picture and replaces the one before."""
    side = SIZE * SCALE
    values = (number, side, side, 0, 0, milliseconds, 1000, 0, 0)
    return _chunk(b"fcTL", struct.pack(">5I2H2B", *values))


@cache
def _frames() -> tuple[bytes, bytes]:
    """Return the pixels of the dot and of the ring, compressed as PNG has them."""
    return _circle(LIVE_COLOR, 0.0, 5.0), _circle(STALE_COLOR, 3.25, 4.75)


def _circle(color: tuple[int, int, int], inner: float, outer: float) -> bytes:
    """Draw what is between two radii, in pixels of the mark, with smooth edges."""
    middle, lines = (SIZE * SCALE - 1) / 2, []
    for y in range(SIZE * SCALE):
        line = b"\0"  # the filter of the line: none
        for x in range(SIZE * SCALE):
            radius = ((x - middle) ** 2 + (y - middle) ** 2) ** 0.5
            covered = min(outer * SCALE - radius, radius - inner * SCALE if inner else 1.0) + 0.5
            line += bytes((*color, round(255 * min(1.0, max(0.0, covered)))))
        lines.append(line)
    return zlib.compress(b"".join(lines), 9)

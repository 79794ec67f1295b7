"""Collects pictures from executed copies as ``data:`` addresses, for the report page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mousetrap.check.parameters import read_notebook
from mousetrap.errors import CheckError

MAX_PICTURES_PER_POINT = 4  # its last ones; a guess: more do not help to compare points
MAX_PICTURE_BYTES = 500_000  # a plot of matplotlib has about a tenth of this
MAX_PAGE_BYTES = 20_000_000  # of all pictures; a guess: with more a browser becomes slow

# The first bytes of each type, so that no other data is taken for a picture. A browser runs no
# script of an SVG in an <img>, and loads nothing for it.
_SIGNATURES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/svg+xml": b"<",
}


class PictureCollector:
    """Collects pictures until the page is full; `left_out` counts those that were not taken."""

    def __init__(self) -> None:
        self._bytes_left = MAX_PAGE_BYTES
        self.left_out = 0

    def pictures_of(self, copy: Path) -> list[str]:
        """Return the last pictures in *copy* as ``data:`` addresses, in their order."""
        if not copy.is_file():  # reading a pipe would wait
            return []
        try:
            found = list(_pictures_in(read_notebook(copy)))
        except CheckError:  # damaged or deleted
            return []
        taken: list[str] = []
        for kind, data in reversed(found):
            largest = min(MAX_PICTURE_BYTES, self._bytes_left)
            if len(taken) == MAX_PICTURES_PER_POINT or len(data) > largest:
                self.left_out += 1
                continue
            self._bytes_left -= len(data)
            taken.append(f"data:{kind};base64,{base64.b64encode(data).decode()}")
        return taken[::-1]


def _pictures_in(document: Any) -> Iterator[tuple[str, bytes]]:
    for cell in document.cells:
        for output in cell.get("outputs", []):
            for kind, beginning in _SIGNATURES.items():
                data = _bytes(kind, output.get("data", {}).get(kind))
                if data.startswith(beginning):
                    yield kind, data
                    break  # the other types show the same picture


def _bytes(kind: str, value: object) -> bytes:
    text = "".join(map(str, value)) if isinstance(value, list) else value
    if not isinstance(text, str):
        return b""
    if kind == "image/svg+xml":
        return text.strip().encode(errors="replace")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""

"""How wide a text is, without a font: widths of DejaVu Sans, wider than most that browsers use.

A picture that a browser draws with another font therefore has room left, and nothing spills out.
"""

from __future__ import annotations

from collections.abc import Iterator

from mousetrap.display.formats import shortened

# Characters by their width, in parts of the size of the font, rounded up to a twentieth
_REGULAR = {
    0.3: "'IJijl", 0.35: " ,./:;\\|", 0.4: "()-[]ft", 0.45: "!r", 0.5: '"*_`', 0.55: "?csz",
    0.6: "FLkvxy", 0.65: "$0123456789EPSTYabdeghnopqu{}", 0.7: "ABCKRVXZ", 0.75: "NU",
    0.8: "&DGHOQ", 0.85: "#+<=>^w~", 0.9: "M", 1.0: "%@Wm",
}  # fmt: skip
_BOLD = {
    0.35: " 'ijl", 0.4: ",./:;IJ\\|", 0.45: "-f", 0.5: "!()[]_`rt", 0.55: '"*', 0.6: "?csz",
    0.65: "Lx", 0.7: "$0123456789EFTaekovy", 0.75: "CPSYZbdghnpqu{}", 0.8: "ABKRVX",
    0.85: "#+<=>DGHNU^~", 0.9: "&OQ", 0.95: "w", 1.0: "@M", 1.05: "%m", 1.15: "W",
}  # fmt: skip
_SIGNS = {0.35: "·", 0.5: "–", 0.85: "↻✕●■→", 1.0: "…"}
_WIDTHS, _BOLD_WIDTHS = (
    {ord(each): width for table in (_SIGNS, own) for width, characters in table.items()
     for each in characters}
    for own in (_REGULAR, _BOLD)
)  # fmt: skip
WIDEST = 1.15  # of a character that is in no table


def text_width(text: str, size: float, *, is_bold: bool = False) -> float:
    """Return the width in pixels that *text* has at most, in a font of *size* pixels."""
    widths = _BOLD_WIDTHS if is_bold else _WIDTHS
    return size * sum(widths.get(ord(each), WIDEST) for each in text)


def name_in_lines(
    name: str, room: float, size: float, most: int, *, is_bold: bool = False
) -> list[str]:
    """Return *name* in at most *most* lines, each at most *room* pixels wide.

    A line ends after a separator where that is possible. A name that is too long for so many lines
    is cut in its middle.
    """
    for length in range(max(3, len(name)), 3, -1):
        lines = list(_lines(shortened(name, length), room, size, is_bold=is_bold))
        if len(lines) <= most:
            return lines
    return [shortened(name, 3)]


def _lines(name: str, room: float, size: float, *, is_bold: bool) -> Iterator[str]:
    rest = name
    while text_width(rest, size, is_bold=is_bold) > room:
        end = 1
        while text_width(rest[: end + 1], size, is_bold=is_bold) <= room:
            end += 1
        split = max(rest[:end].rfind(each) for each in "._-/ ") + 1
        # a short piece before the separator would leave the line nearly empty
        end = split if split > end // 3 else end
        yield rest[:end]
        rest = rest[end:]
    yield rest

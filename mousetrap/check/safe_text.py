"""Text that a notebook or its kernel wrote, made safe for a message, a report page or a file."""

from __future__ import annotations

import re

from mousetrap.display.safe_text import safe_block

# Escape sequences of terminals (colours, titles, links), and control characters but for \t and \n.
_TERMINAL_CODES = re.compile(
    r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)|[\x00-\x08\x0b-\x1f\x7f]"
)
_PASSWORD = re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@")


def without_passwords(text: str) -> str:
    """Return *text* with the password of every URL in it masked."""
    return _PASSWORD.sub(r"\1********@", text)


def plain_text(text: str, max_lines: int = 12) -> str:
    """Return *text* without terminal codes and URL passwords, and not longer than *max_lines*."""
    text = without_passwords(_TERMINAL_CODES.sub("", text))
    kept = [line[:300] for line in text.strip().splitlines()]
    if len(kept) > max_lines:
        kept = [*kept[: max_lines - 2], "...", kept[-1]]
    return "\n".join(kept)


def safe_text(text: object, limit: int | None = None) -> str:
    r"""Return *text* without URL passwords, its control characters escaped, cut to *limit*.

    The result can stand in HTML, once it is escaped, and in XML, which has no ``\x00``. Passwords
    are masked before the text is cut, so that no part of one is left.
    """
    return safe_block(without_passwords(str(text)), limit)

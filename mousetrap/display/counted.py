"""Numbers with what they count."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return ``"1 message"`` or ``"2,000 messages"``; *plural* if it has not only an s more."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"

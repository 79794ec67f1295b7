"""Numbers, times, sizes and long names as people read them.

Three significant digits, thousands separated, the unit beside the number; ``–`` is unknown and 0 is
none.
"""

from __future__ import annotations

import math

UNKNOWN = "–"
ELLIPSIS = "…"


def number(value: float) -> str:
    """Return *value* with three significant digits and separated thousands: ``1,234``, ``0.16``."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def duration(seconds: float) -> str:
    """Return a measured time in a unit of its size: ``480 µs``, ``12 ms``, ``3.2 min``."""
    if abs(seconds) < 0.000_999_5:
        return f"{number(round(seconds * 1e6))} µs"
    if abs(seconds) < 0.9995:
        return f"{number(seconds * 1000)} ms"
    if abs(seconds) < 99.95:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if abs(seconds) < 5997 else f"{number(seconds / 3600)} h"


def age(seconds: float) -> str:
    """Return how long ago something was: ``12 s``, ``3 min``, ``2.5 h``, ``4 days``."""
    seconds = max(0.0, seconds)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def size(number_of_bytes: float) -> str:
    """Return a number of bytes in decimal units: ``250 B``, ``4.1 kB``, ``1.2 MB``."""
    value, unit = float(number_of_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{number(value)} {unit}"


def rate(per_second: float) -> str:
    """Return a rate: ``1,234 per s``."""
    return f"{number(per_second)} per s"


def share(part: float, whole: float) -> str:
    """Return *part* of *whole* in per cent: ``64 %``.

    It is 100 % only if both are equal, and 0 % only if *part* is 0: a share that would round to
    one of them gets the digits that keep it apart, ``99.96 %``.
    """
    if not whole:
        return UNKNOWN
    percent = 100 * part / whole
    for digits in range(7):
        shown = f"{percent:.{digits}f}"
        if part == whole or not part or (0 < float(shown) < 100):
            return f"{shown} %"
    return f"{'> 99.999999' if percent > 50 else '< 0.000001'} %"


def shortened(name: str, width: int) -> str:
    """Return *name* in at most *width* characters, cut in its middle: ``customer_…_price_v2``.

    Names differ at their ends, so both are kept. *width* is at least 3.
    """
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return name[:head] + ELLIPSIS + name[len(name) - (width - 1 - head) :]


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return ``"1 message"`` or ``"2,000 messages"``; *plural* if it has not only an s more."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def yes_or_no(value: object) -> object:
    """Return a truth value as a word, and any other value as it is."""
    return value if not isinstance(value, bool) else "yes" if value else "no"

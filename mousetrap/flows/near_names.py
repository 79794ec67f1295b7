"""Whether two names are so alike that one of them is probably misspelt."""

from __future__ import annotations

import re

MIN_LETTERS = 4  # of shorter names one letter is much of the name; a guess
MIN_REPLACED = 7  # letters of names in which one that is replaced is a mistake; a guess


def is_near(one: str, other: str) -> bool:
    """Return whether the names differ, and only by what people mistype.

    That is: capitals, separators, a letter too much, two letters that are exchanged, and in longer
    names one other letter. Names with different numbers are meant to differ.
    """
    a, b = (re.sub(r"[\W_]+", "", name.casefold()) for name in (one, other))
    if one == other or re.findall(r"\d+", a) != re.findall(r"\d+", b):
        return False
    return a == b or (min(len(a), len(b)) >= MIN_LETTERS and _differ_by_one(a, b))


def _differ_by_one(a: str, b: str) -> bool:
    if len(a) < len(b):
        a, b = b, a
    start = next((n for n in range(len(b)) if a[n] != b[n]), len(b))
    if len(a) == len(b) + 1:
        return a[start + 1 :] == b[start:]
    if len(a) != len(b):
        return False
    is_exchanged = a[start : start + 2] == b[start : start + 2][::-1]
    if is_exchanged and a[start + 2 :] == b[start + 2 :]:
        return True
    return len(a) >= MIN_REPLACED and a[start + 1 :] == b[start + 1 :]

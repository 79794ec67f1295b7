"""Kinds of error: reasons that differ only in their variable parts are counted together.

Variable are numbers, words with a digit, quoted values, addresses and paths: what may differ from
message to message. ``KeyError: 'EU-0'`` and ``KeyError: 'EU-1'`` are two errors of the kind
``KeyError: …``. A part that is the same in all errors of a kind is shown, as it tells more than …;
so a kind of one error is its reason. Nothing here knows of messages or talks to a broker.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mousetrap.display.formats import ELLIPSIS, counted, shortened

MAX_COMPARED = 400  # characters that are compared; what follows is left out
MAX_KINDS = 8  # that are shown; the others are counted
MAX_VALUES = 3  # of a variable part that are shown
MAX_VALUE_CHARS = 24
MAX_COUNT = 10**15  # larger numbers count no errors
NO_REASON = "no reason given"

_WORD = r"[\w.:@/%+\\~-]"
_VARIABLE = re.compile(
    r"(?<!\w)[bBrRuUfF]{0,2}\"(?:[^\"\\]|\\.)*(?:\"|\\?\Z)"
    r"|(?<!\w)[bBrRuUfF]{0,2}'(?:[^'\\]|\\.|'(?=\w))*(?:'|\\?\Z)"  # an apostrophe ends nothing
    r"|“[^”]*(?:”|\Z)|«[^»]*(?:»|\Z)"
    r"|\b[a-zA-Z][\w+.-]*://[^\s'\"<>,;]+"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    rf"|(?<!{_WORD})(?:[a-zA-Z]:[\\/]|~?/|\.{{1,2}}/){_WORD}+(?<!:)"  # a path from the root
    rf"|(?<!{_WORD}){_WORD}*\d{_WORD}*(?<=[\w%])"  # a number, a date, an id, a version
    r"|\b[0-9a-f]{8,}\b"
    r"|(?<=\w=)[^\s,;()\[\]{}<>'\"]+"
    r"|\b(?:None|True|False|null|true|false|nan|inf)\b",
    re.DOTALL,
)
_BETWEEN = re.compile(r"[\s,:;()\[\]{}]*")  # between the values of a list: it is one variable part
_QUOTED = re.compile(r"\A(['\"])(.+)\1\Z", re.DOTALL)
_NAME = re.compile(r"([^\W\d]\w*(?:\.\w+)*)(?::\s|$)")  # of the exception's class


@dataclass(frozen=True)
class ErrorKind:
    """Some errors of one kind: how many, and which of the reasons that were compared they had.

    `text` has … for each part that differs. `values` has the values of the only such part with
    their numbers, largest first, unless they are all different.
    """

    error: str  # the name of the exception: "KeyError"; "" if the reason does not begin with one
    text: str  # "no tariff for region …"
    number: int
    members: tuple[int, ...]  # indexes of the reasons
    values: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.error, self.text)))

    @property
    def most_frequent(self) -> str:
        """The most frequent values: ``EU-0 8, EU-1 7, EU-2 5, and 4 more``; "" for none."""
        values = self.values
        if len(values) > MAX_VALUES + 1:  # instead of a single one there may be its number
            values = values[:MAX_VALUES]
        plain = [(_QUOTED.sub(r"\2", value), number) for value, number in values]
        found = [f"{shortened(value, MAX_VALUE_CHARS)} {number:,}" for value, number in plain]
        more = len(self.values) - len(values)
        return ", ".join([*found, f"and {more:,} more"] if more else found)


def error_kinds(reasons: Sequence[str], numbers: Sequence[int] | None = None) -> list[ErrorKind]:
    """Return the kinds of error of *reasons*, largest first; equal ones in alphabetical order.

    *numbers* says how many errors have each reason; without it, one. The order of *reasons* changes
    only the order of `members`.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[int, tuple[str, ...]]]] = {}
    for index, reason in enumerate(reasons):
        error, fixed, values = _parts(reason)
        groups.setdefault((error, fixed), []).append((index, values))
    counts = [1] * len(reasons) if numbers is None else numbers
    kinds = [_kind(*key, members, counts) for key, members in groups.items()]
    return sorted(kinds, key=lambda each: (-each.number, each.error, each.text, each.values))


def kinds_in_summary(reasons: object) -> list[ErrorKind]:
    """Return the kinds of error of a summary's *reasons*; none if it is not a summary of ours."""
    if not isinstance(reasons, Mapping):
        return []
    numbers = list(reasons.values())
    if not all(isinstance(each, int) and 0 < each < MAX_COUNT for each in numbers):
        return []
    return error_kinds(list(map(str, reasons)), numbers)


def further(kinds: Sequence[ErrorKind], noun: str = "dead letter") -> str:
    """Return what is said of the kinds that are not shown; "" if all are."""
    rest = kinds[MAX_KINDS:]
    if not rest:
        return ""
    number = counted(sum(each.number for each in rest), noun)
    return f"and {counted(len(rest), 'further kind')}: {number}"


def _parts(reason: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the name of the error, its fixed parts, and the variable parts between them."""
    text = " ".join(reason[:MAX_COMPARED].split()) or NO_REASON
    name = _NAME.match(text)
    error = name[1] if name else ""
    text = text[name.end() :] if name else text
    spans: list[tuple[int, int]] = []
    for found in _VARIABLE.finditer(text):
        if spans and _BETWEEN.fullmatch(text, spans[-1][1], found.start()):
            spans[-1] = (spans[-1][0], found.end())
        else:
            spans.append(found.span())
    spans = [(start, _end_of_list(text, start, end)) for start, end in spans]
    starts, ends = [0, *(end for _, end in spans)], [*(start for start, _ in spans), len(text)]
    fixed = tuple(text[start:end] for start, end in zip(starts, ends, strict=True))
    return error, fixed, tuple(text[start:end] for start, end in spans)


def _end_of_list(text: str, start: int, end: int) -> int:
    """Return *end* after the closing brackets there of what is opened after *start*."""
    value = text[start:end]
    depth = sum(map(value.count, "([{")) - sum(map(value.count, ")]}"))
    while depth > 0 and text[end : end + 1] in (")", "]", "}"):
        end, depth = end + 1, depth - 1
    return end


def _kind(
    error: str,
    fixed: tuple[str, ...],
    members: Iterable[tuple[int, tuple[str, ...]]],
    counts: Sequence[int],
) -> ErrorKind:
    found: Counter[tuple[str, ...]] = Counter()
    for index, values in members:
        found[values] += counts[index]
    varying = [n for n in range(len(fixed) - 1) if len({values[n] for values in found}) > 1]
    same = next(iter(found))
    shown = [ELLIPSIS if n in varying else value for n, value in enumerate(same)]
    text = "".join(part for pair in zip(fixed, [*shown, ""], strict=True) for part in pair)
    ranked: list[tuple[str, int]] = []
    if len(varying) == 1 and max(found.values()) > 1:
        ranked = [(each[varying[0]], number) for each, number in found.items()]
        ranked.sort(key=lambda each: (-each[1], each[0]))
    return ErrorKind(error, text, sum(found.values()), tuple(n for n, _ in members), tuple(ranked))

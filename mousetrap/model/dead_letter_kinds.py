"""Dead letters by kind of error: how many of each, and an example.

Nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Sequence

from mousetrap.display import design_tokens as tokens
from mousetrap.display.cells import Bar, Code, Named
from mousetrap.display.formats import age, counted
from mousetrap.display.table import Table
from mousetrap.model.error_kinds import MAX_KINDS, NO_REASON, ErrorKind, error_kinds, further
from mousetrap.model.message import Message

COLUMNS = ("letters", "share", "reason", "attempts", "first", "last", "example")


def kinds_of(messages: Sequence[Message]) -> list[ErrorKind]:
    """Return the kinds of error of *messages*; their `members` are indexes of *messages*."""
    return error_kinds([each.reason or NO_REASON for each in messages])


def kinds_table(
    messages: Sequence[Message], now: float, place: str = "", note: str = "", *, limit: int = 0
) -> Table:
    """Return a row for each kind of error: the largest first, at most *limit* if it is not 0.

    `first` and `last` are the seconds since the first and the last of a kind died, at time *now*
    (seconds since 1970). *place* follows the number of dead letters in the title: `` of words``.
    """
    kinds = kinds_of(messages)
    named = {str(kind): Named(kind.error, kind.text, kind.most_frequent) for kind in kinds}
    rows = [_row(kind, [messages[n] for n in kind.members], now) for kind in kinds]
    number = counted(len(kinds), "kind") + " of error"
    title = f"{tokens.DEAD_SIGN} {counted(len(messages), 'dead letter')}{place}: {number}"
    rest = ""
    if limit and len(kinds) > limit:
        rows, rest = rows[:limit], further(kinds)
    return Table(
        COLUMNS, rows, title, ". ".join(filter(None, (rest, note))),
        shows={
            "share": lambda part: Bar(part, len(messages)),
            "reason": named.__getitem__,
            "first": _ago, "last": _ago,
            "example": Code,
        },
        right=("attempts",), wrapped="reason",
    )  # fmt: skip


def shown_kinds(messages: Sequence[Message], now: float, place: str, note: str = "") -> Table:
    """Return the table that is shown: `MAX_KINDS` kinds, and the number of the others."""
    return kinds_table(messages, now, place, note, limit=MAX_KINDS)


def _row(kind: ErrorKind, members: Sequence[Message], now: float) -> tuple[object, ...]:
    attempts = sorted({each.attempt for each in members})
    ages = [
        seconds for each in members
        if each.dead_since is not None and (seconds := each.age_at(now)) is not None
    ]  # fmt: skip
    return (
        kind.number,
        kind.number,
        str(kind),
        attempts[0] if len(attempts) == 1 else f"{attempts[0]} to {attempts[-1]}",
        max(ages, default=None),
        min(ages, default=None),
        members[0].id[:8],
    )


def _ago(seconds: float) -> str:
    return f"{age(seconds)} ago"

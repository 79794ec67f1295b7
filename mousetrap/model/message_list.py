"""A list of messages that a notebook shows as a table, with the bodies only on request.

Nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mousetrap.display.formats import age, counted, size
from mousetrap.display.safe_text import repr_of
from mousetrap.display.table import MAX_CELL_CHARS, Table
from mousetrap.errors import UndecodableMessage
from mousetrap.model.decoding import decode
from mousetrap.model.message import Message
from mousetrap.runtime import clock

MAX_DECODED_BODY = 1_000_000  # bytes; a guess: a larger body is not decoded only to be shown


class Messages(list[Message]):
    """A list of messages; a notebook shows it as a table of ids, sizes, ages and reasons.

    The table has no bodies: `bodies` shows them, and `data` of each message has the decoded body.
    *note* is shown below the table; it says how reading the messages changed the queue.
    """

    def __init__(self, messages: Iterable[Message] = (), title: str = "", note: str = "") -> None:
        super().__init__(messages)
        self.title = title
        self.note = note
        self._taken = clock.time()  # ages are as of this moment, whenever it is shown

    def table(self) -> Table:
        """Return a row for each message, without its body; sizes in bytes, ages in seconds."""
        columns = ["message", "attempt", "size", "age"]
        ages = [each.age_at(self._taken) for each in self]
        rows = [
            [each.id[:8], each.attempt, len(each.body), seconds]
            for each, seconds in zip(self, ages, strict=True)
        ]
        if any(each.reason for each in self):
            columns.append("reason")
            for row, each in zip(rows, self, strict=True):
                row.append(each.reason)
        title = counted(len(self), "message") + self.title + _range(ages)
        shows = {"size": size, "age": age}
        return Table(columns, rows, title, self.note, shows=shows, wrapped="reason")

    def bodies(self, type: Any = None) -> Table:
        """Return a row for each message with its size in bytes and the beginning of its body.

        With *type* the body is decoded to it; if that fails, the row has the error instead.
        """
        rows = [(each.id[:8], len(each.body), preview(each.readable_body, type)) for each in self]
        title = counted(len(self), "message") + self.title
        return Table(("message", "size", "body"), rows, title, shows={"size": size}, wrapped="body")

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Messages(found, self.title, self.note) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _range(ages: Iterable[float | None]) -> str:
    """Return how old messages are, in words: ``, 12 s to 3 min old``; "" if that is not known."""
    known = sorted(seconds for seconds in ages if seconds is not None)
    shown = dict.fromkeys(age(seconds) for seconds in known[:1] + known[-1:])
    return f", {' to '.join(shown)} old" if shown else ""


def preview(body: bytes, type: Any = None) -> str:
    """Return the beginning of *body* as text or, with *type*, the `repr` of the decoded value."""
    if type is None:
        return body[: 4 * MAX_CELL_CHARS].decode("utf-8", "backslashreplace")
    if len(body) > MAX_DECODED_BODY:
        return f"too large to show: {len(body):,} bytes"
    try:
        return repr_of(decode(body, type) if body else None)
    except UndecodableMessage as error:
        return f"({error})"

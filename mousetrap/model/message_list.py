"""A list of messages that a notebook shows as a table, with the bodies only on request.

Nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mousetrap.display.formats import age, counted
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
        """Return a row for each message, without its body."""
        columns = ["message", "attempt", "size", "age"]
        rows = [
            [each.id[:8], each.attempt, f"{len(each.body):,} B", self._age(each)] for each in self
        ]
        if any(each.reason for each in self):
            columns.append("reason")
            for row, each in zip(rows, self, strict=True):
                row.append(each.reason)
        return Table(columns, rows, counted(len(self), "message") + self.title, self.note)

    def bodies(self, type: Any = None) -> Table:
        """Return a row for each message with the beginning of its body.

        With *type* the body is decoded to it; if that fails, the row has the error instead.
        """
        rows = [
            (each.id[:8], f"{len(each.body):,} B", preview(each.readable_body, type))
            for each in self
        ]
        return Table(("message", "size", "body"), rows, counted(len(self), "message") + self.title)

    def _age(self, message: Message) -> str | None:
        seconds = message.age_at(self._taken)
        return None if seconds is None else age(seconds)

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Messages(found, self.title, self.note) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


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

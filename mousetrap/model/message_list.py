"""Messages as they come out of a queue: a list that shows itself, and bodies only when asked.

Nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mousetrap.display.table import MAX_CELL_CHARS, Table, age
from mousetrap.errors import UndecodableMessage
from mousetrap.model.message import Message, decode
from mousetrap.runtime import clock

LARGE = 1_000_000  # bytes: a guess at what is worth decoding only to show its beginning


class Messages(list[Message]):
    """A list of messages; in a notebook a table of ids, sizes, ages and reasons.

    No body is in it: `bodies` shows them, and each message's own `data` has it. *note* is what
    there is to know about how they were come by.
    """

    def __init__(self, messages: Iterable[Message] = (), title: str = "", note: str = "") -> None:
        super().__init__(messages)
        self.title = title
        self.note = note
        self._taken = clock.time()  # ages are those of then, whenever it is shown

    def table(self) -> Table:
        """One row for each message: what is known of it without its body."""
        columns = ["message", "attempt", "size", "age"]
        rows = [
            [each.id[:8], each.attempt, f"{len(each.body):,} B", self._age(each)] for each in self
        ]
        if any(each.reason for each in self):
            columns.append("reason")
            for row, each in zip(rows, self, strict=True):
                row.append(each.reason)
        return Table(columns, rows, f"{len(self):,} messages{self.title}", self.note)

    def bodies(self, type: Any = None) -> Table:
        """One row for each message with its body, cut short; decoded to *type*, if one is given.

        A body that is not of *type* says so instead.
        """
        rows = [(each.id[:8], f"{len(each.body):,} B", shown(each.body, type)) for each in self]
        return Table(("message", "size", "body"), rows, f"{len(self):,} messages{self.title}")

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


def shown(body: bytes, type: Any = None) -> str:
    """Return the beginning of *body* as text or, decoded to *type*, as Python shows it."""
    if type is None:
        return body[: 4 * MAX_CELL_CHARS].decode("utf-8", "backslashreplace")
    if len(body) > LARGE:
        return f"too large to show: {len(body):,} bytes"
    try:
        return repr(decode(body, type) if body else None)
    except UndecodableMessage as error:
        return f"({error})"

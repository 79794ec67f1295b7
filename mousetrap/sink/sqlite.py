"""A file of SQLite as the store of a sink."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.runtime import clock

PAUSE = 0.01  # seconds between two tries to switch a new file to WAL


class SqliteStore:
    """A file; made if it is not there. See `mousetrap.sink.Store`."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    mark = "?"
    begin = "BEGIN IMMEDIATE"  # a writer at once: no upgrade can fail later

    def __init__(self, path: str | os.PathLike[str], timeout: float) -> None:
        text = os.fspath(path)
        if not text or not Path(text).parent.is_dir() or Path(text).is_dir():
            raise SinkError(
                f"{safe(text, 200)!r} cannot be a file: name one in a folder that exists"
            )
        self.place = text
        self._timeout = timeout

    def connect(self) -> sqlite3.Connection:
        """Open the file."""
        # isolation_level None: transactions begin and end where we say
        connection = sqlite3.connect(
            self.place, timeout=self._timeout, isolation_level=None, check_same_thread=False
        )
        try:
            _switch_to_wal(connection, clock.monotonic() + self._timeout)
            # An acked message is gone from the broker, so its result must be on the disk.
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def make_table(self, connection: sqlite3.Connection, name: str, columns: str) -> list[str]:
        """Make the table if there is none; return the names of its columns, the key first."""
        connection.execute(f'CREATE TABLE IF NOT EXISTS "{name}" ({columns})')
        found = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
        return [column[1] for column in sorted(found, key=lambda column: not column[5])]

    def is_usable(self, _: sqlite3.Connection) -> bool:
        """A file stays open."""
        return True

    def is_in_transaction(self, connection: sqlite3.Connection) -> bool:
        """One was begun, and neither committed nor rolled back."""
        return connection.in_transaction

    def execute(
        self, connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]
    ) -> sqlite3.Cursor:
        """Run one statement and return its cursor."""
        return connection.execute(sql, parameters)

    def translated(self, error: BaseException) -> SinkError:
        """Return one of our errors for SQLite's."""
        # the low byte is the primary code; the upper ones only say more about it
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return SinkBusy(
                f"another process held {safe(self.place)} for {self._timeout:g} s: end it, or "
                f"give a longer timeout"
            )
        return SinkError(f"{safe(self.place)} cannot be used as a sink: {safe(error, 300)}")


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch to WAL; of several processes that do so at once, SQLite refuses some unasked."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or clock.monotonic() > deadline:
                raise
        clock.sleep(PAUSE)

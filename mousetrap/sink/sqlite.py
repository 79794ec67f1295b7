"""An SQLite file as the database of a sink."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.runtime import clock

WAL_RETRY_INTERVAL = 0.01  # seconds between two attempts to switch a new file to WAL


class SqliteStore:
    """An SQLite file, created if it does not exist. See `mousetrap.sink.store.Store`."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    placeholder = "?"

    def __init__(self, path: str | os.PathLike[str], timeout: float) -> None:
        text = os.fspath(path)
        if not text or not Path(text).parent.is_dir() or Path(text).is_dir():
            raise SinkError(
                f"{safe(text, 200)!r} cannot be a file: give one in a folder that exists"
            )
        self.place = text
        self._timeout = timeout

    def connect(self, deadline: float) -> sqlite3.Connection:
        """Open the file, and do what `limit` does."""
        # isolation_level None: only explicit statements begin and end transactions
        connection = sqlite3.connect(
            self.place, timeout=clock.remaining(deadline), isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        try:
            _switch_to_wal(connection, deadline)
            # The broker deletes an acked message, so its result must be on disk before the ack.
            connection.execute("PRAGMA synchronous = FULL")
            self.limit(connection, deadline)
        except BaseException:
            connection.close()
            raise
        return connection

    def limit(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Let the next statement wait for another writer until *deadline* (monotonic)."""
        if connection.in_transaction:
            return  # it has the lock for writing, so its statements wait for nobody
        milliseconds = round(1000 * clock.remaining(deadline))
        connection.execute(f"PRAGMA busy_timeout = {milliseconds}")

    def begin(self, _: float) -> str:
        """Return a statement that locks for writing now: a later upgrade of a lock could fail."""
        return "BEGIN IMMEDIATE"

    def make_table(self, connection: sqlite3.Connection, name: str, columns: str) -> list[str]:
        """Create the table if it does not exist; return its column names, the key first."""
        connection.execute(f'CREATE TABLE IF NOT EXISTS "{name}" ({columns})')
        found = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
        return [column[1] for column in sorted(found, key=lambda column: not column[5])]

    def is_usable(self, _: sqlite3.Connection) -> bool:
        """Return True: an open file stays usable."""
        return True

    def is_in_transaction(self, connection: sqlite3.Connection) -> bool:
        """Return whether a transaction was begun and is neither committed nor rolled back."""
        return connection.in_transaction

    def execute(
        self, connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]
    ) -> sqlite3.Cursor:
        """Run one statement and return its cursor."""
        return connection.execute(sql, parameters)

    def translate(self, error: BaseException) -> SinkError:
        """Return a `SinkError` or `SinkBusy` for an exception of SQLite."""
        # the low byte is the primary result code, the upper bytes are details of it
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return SinkBusy(
                f"another process held {safe(self.place)} for {self._timeout:g} s: end it, or "
                f"give a longer timeout"
            )
        return SinkError(f"{safe(self.place)} cannot be used as a sink: {safe(error, 300)}")


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch to WAL; SQLite refuses this without any wait while another process does the same."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or clock.monotonic() > deadline:
                raise
        clock.sleep(WAL_RETRY_INTERVAL)

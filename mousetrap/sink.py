"""A file of results that takes each message's effect once: the way to effectively-once results.

The broker delivers at least once: a worker that dies after its work and before the ack leaves the
message to another, which does the work again. Here the effect and the message's id are written in
one transaction, so that the second time is known for what it is. It is the idempotent receiver of
Hohpe and Woolf, "Enterprise Integration Patterns" (2003), page 528.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mousetrap.errors import SinkBusy, SinkError
from mousetrap.message import Message, current, decode, encode
from mousetrap.table import Table, safe

COLUMNS = ("id", "job", "stored", "data")
PAUSE = 0.01  # seconds between two tries to switch a new file to WAL


class Transaction:
    """What `Sink.once` lends: SQL that is committed together with the message's id."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; give values as *parameters*, never in *sql*."""
        return self._connection.execute(sql, parameters).fetchall()


class Sink:
    """Results by message id, in a table *name* of the SQLite file *path*.

        sink = Sink("results.db")

        @stage(reads="data_processing")
        def keep(summary: Summary) -> None:
            sink.store(summary)  # False: this message's result is there already

    Columns: `id` and `job` of the message, `stored` in seconds since 1970, `data` as JSON (NULL
    after `once`). The file is opened when first needed. A message that came without an id (plain
    pika sends such) gets a new one at each delivery: no sink can tell its duplicates.

    Threads: use from any; they take turns. Processes: each makes its own `Sink` of the same file,
    after a fork too; on a local disk, because SQLite's WAL needs shared memory. No call waits
    longer than *timeout* seconds for others, then it raises `SinkBusy`.

    Raises:
        SinkError: a path, a name or a time-out that cannot work.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str = "results", *, timeout: float = 10.0
    ) -> None:
        text = os.fspath(path)
        if "://" in text:  # not quoted: it may have a password
            raise SinkError("the sink is given a URL: give the path of an SQLite file")
        if not text or not Path(text).parent.is_dir() or Path(text).is_dir():
            raise SinkError(
                f"{safe(text, 200)!r} cannot be a file: name one in a folder that exists"
            )
        if not re.fullmatch(r"(?!sqlite_)[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            raise SinkError(
                f"name is {safe(name, 80)!r}: use up to 63 letters, digits and '_', not first a "
                f"digit or sqlite_"
            )
        if not 0.01 <= timeout <= 3600:
            raise SinkError(f"timeout is {timeout!r}: it must lie in 0.01..3600 seconds")
        self.path = text
        self.name = name
        self.timeout = timeout
        self._turn = threading.Lock()
        self._holder: int | None = None  # the thread that has the turn
        self._connection: sqlite3.Connection | None = None

    def store(self, data: Any, message: Message | None = None) -> bool:
        """Keep *data* as the result of *message*; False if there is one already (it stays).

        Without a *message* it is the one that is being handled.

        Raises:
            SinkBusy: others held the file for longer than the time-out; nothing was stored.
            SinkError: no message is being handled, or the file cannot be used.
            ValueError, TypeError: *data* is nothing that JSON can say.
        """
        if isinstance(data, bytes):
            raise TypeError("bytes are no JSON: decode them, or store a path to where they are")
        text = "null" if data is None else encode(data).decode()
        with self.once(message) as transaction:
            if transaction is None:
                return False
            transaction.execute(
                f'UPDATE "{self.name}" SET data = ? WHERE id = ?',  # noqa: S608 -- name: checked
                (text, _meant(message).id),
            )
        return True

    @contextmanager
    def once(self, message: Message | None = None) -> Iterator[Transaction | None]:
        """Lend a transaction for the effects of *message*, or None: it had them already.

            with sink.once() as transaction:
                if transaction:
                    transaction.execute("UPDATE stock SET n = n - ? WHERE item = ?", (1, "cheese"))

        What raises inside takes everything back, the id too: the message may come again. Keep it
        short (all others wait) and do not await inside.

        Raises:
            SinkBusy, SinkError: as for `store`.
        """
        meant = _meant(message)
        with self._turn_taken() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")  # a writer at once: no upgrade can fail later
                row = (meant.id, meant.job, time.time())
                fresh = connection.execute(
                    f'INSERT OR IGNORE INTO "{self.name}" (id, job, stored) '  # noqa: S608
                    f"VALUES (?, ?, ?)",
                    row,
                ).rowcount
            except BaseException:
                _roll_back(connection)
                raise
            try:
                yield Transaction(connection) if fresh else None
                if not connection.in_transaction:
                    raise SinkError(
                        "the transaction was ended inside `once`: leave COMMIT and ROLLBACK out"
                    )
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def rows(self, n: int | None = None) -> Table:
        """Return what is stored, oldest first, at most *n* rows, as a table.

        Raises:
            SinkBusy, SinkError: as for `store`.
        """
        with self._turn_taken() as connection:
            found = connection.execute(
                f'SELECT id, job, stored, data FROM "{self.name}" '  # noqa: S608 -- name: checked
                f"ORDER BY stored, id LIMIT ?",
                (-1 if n is None else n,),
            ).fetchall()
        rows = [(*row[:3], None if row[3] is None else decode(row[3].encode())) for row in found]
        return Table(COLUMNS, rows, title=f"{self.name} in {self.path}")

    def __len__(self) -> int:
        with self._turn_taken() as connection:
            [count] = connection.execute(
                f'SELECT count(*) FROM "{self.name}"'  # noqa: S608 -- name: checked
            ).fetchone()
        return int(count)

    def __bool__(self) -> bool:  # not by its length: `if sink` would open the file
        return True

    def close(self) -> None:
        """Close the file; what is used again opens it again.

        Raises:
            SinkBusy: another thread did not give its turn back in time.
        """
        with self._turn_held():
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sink {safe(self.name)} in {safe(self.path)}>"

    @contextmanager
    def _turn_taken(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for this thread alone; SQLite's errors come out as ours."""
        with self._turn_held():
            try:
                if self._connection is None:
                    self._connection = self._opened()
                yield self._connection
            except sqlite3.Error as error:
                raise self._translated(error) from error

    @contextmanager
    def _turn_held(self) -> Iterator[None]:
        if self._holder == threading.get_ident():
            raise SinkError("the sink is used inside its own `once`: use the transaction there")
        if not self._turn.acquire(timeout=self.timeout):
            raise SinkBusy(
                f"another thread held {safe(self.path)} for {self.timeout:g} s: do slow work "
                f"before `once`, not in it"
            )
        self._holder = threading.get_ident()
        try:
            yield
        finally:
            self._holder = None
            self._turn.release()

    def _opened(self) -> sqlite3.Connection:
        # isolation_level None: transactions begin and end where we say
        connection = sqlite3.connect(
            self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            _switch_to_wal(connection, time.monotonic() + self.timeout)
            # An acked message is gone from the broker, so its result must be on the disk.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{self.name}" '
                f"(id TEXT PRIMARY KEY, job TEXT NOT NULL, stored REAL NOT NULL, data TEXT)"
            )
            columns = connection.execute(f'PRAGMA table_info("{self.name}")').fetchall()
            keys = [column[1] for column in columns if column[5]]
            if tuple(column[1] for column in columns) != COLUMNS or keys != ["id"]:
                raise SinkError(
                    f"{safe(self.path)} has a table {self.name!r} that is no sink's: choose "
                    f"another name"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _translated(self, error: sqlite3.Error) -> SinkError:
        # the low byte is the primary code; the upper ones only say more about it
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return SinkBusy(
                f"another process held {safe(self.path)} for {self.timeout:g} s: end it, or give "
                f"a longer timeout"
            )
        return SinkError(f"{safe(self.path)} cannot be used as a sink: {safe(error, 300)}")


def _meant(message: Message | None) -> Message:
    if isinstance(message, Message):
        return message
    if message is not None:
        raise SinkError(f"message is a {type(message).__name__}: give a mousetrap.Message")
    try:
        return current.get()
    except LookupError:
        raise SinkError(
            "no message is being handled here: give one, as in sink.store(data, message)"
        ) from None


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch to WAL; of several processes that do so at once, SQLite refuses some unasked."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)

"""A store of results that takes each message's effect once: the way to effectively-once results.

The broker delivers at least once: a worker that dies after its work and before the ack leaves the
message to another, which does the work again. Here the effect and the message's id are written in
one transaction, so that the second time is known for what it is. It is the idempotent receiver of
Hohpe and Woolf, "Enterprise Integration Patterns" (2003), page 528. The databases are in `sqlite`
and `postgresql`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.model.message import Message, current_message, decode, encode
from mousetrap.runtime import clock, threads
from mousetrap.sink.sqlite import SqliteStore

COLUMNS = ("id", "job", "stored", "data")
TYPES = "id TEXT PRIMARY KEY, job TEXT NOT NULL, stored DOUBLE PRECISION NOT NULL, data TEXT"

ALL = 2**62  # rows

Execute = Callable[[str, Sequence[Any]], Any]


class Store(Protocol):
    """What a sink needs of a database; *connection* is what its `connect` returned."""

    place: str  # where it is, fit for a log
    errors: tuple[type[Exception], ...]  # what it raises
    mark: str  # that stands for a parameter
    begin: str  # the statement

    def connect(self) -> Any:
        """Open the file, or log in."""

    def make_table(self, connection: Any, name: str, columns: str) -> list[str]:
        """Make the table if there is none; return the names of its columns, the key first."""

    def is_usable(self, connection: Any) -> bool:
        """It was not lost, as far as has come to be known here."""

    def is_in_transaction(self, connection: Any) -> bool:
        """One was begun, and neither committed nor rolled back."""

    def execute(self, connection: Any, sql: str, parameters: Sequence[Any]) -> Any:
        """Run one statement and return its cursor."""

    def translated(self, error: BaseException) -> SinkError:
        """Return one of our errors for the database's."""


class Transaction:
    """What `Sink.once` lends: SQL that is committed together with the message's id."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; give values as *parameters*, never in *sql*.

        A parameter is written ``?`` for SQLite and ``%s`` for PostgreSQL.
        """
        return _rows(self._execute(sql, parameters))


class Sink:
    """Results by message id, in a table *name* of an SQLite file or a PostgreSQL database.

        sink = Sink("results.db")  # or "postgresql://user:password@host:5432/database"

        @stage(reads="data_processing")
        def keep(summary: Summary) -> None:
            sink.store(summary)  # False: this message's result is there already

    Columns: `id` and `job` of the message, `stored` in seconds since 1970, `data` as JSON (NULL
    after `once`). It is opened when first needed. A message that came without an id (plain
    pika sends such) gets a new one at each delivery: no sink can tell its duplicates.

    Threads: use from any; they take turns. Processes: each makes its own `Sink` of the same place,
    after a fork too; a file on a local disk, because SQLite's WAL needs shared memory. No call
    waits longer than *timeout* seconds for others, then it raises `SinkBusy`.

    Raises:
        SinkError: a path, a URL, a name or a time-out that cannot work.
    """

    def __init__(
        self, place: str | os.PathLike[str], name: str = "results", *, timeout: float = 10.0
    ) -> None:
        if not re.fullmatch(r"(?!sqlite_)[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            raise SinkError(
                f"name is {safe(name, 80)!r}: use up to 63 letters, digits and '_', not first a "
                f"digit or sqlite_"
            )
        if not 0.01 <= timeout <= 3600:
            raise SinkError(f"timeout is {timeout!r}: it must lie in 0.01..3600 seconds")
        self._store = _store(place, timeout)
        self.place = self._store.place  # the file, or the database without its password
        self.name = name
        self.timeout = timeout
        self._turn = threads.Lock()
        self._holder: int | None = None  # the thread that has the turn
        self._connection: Any = None

    def store(self, data: Any, message: Message | None = None) -> bool:
        """Keep *data* as the result of *message*; False if there is one already (it stays).

        Without a *message* it is the one that is being handled.

        Raises:
            SinkBusy: others held it for longer than the time-out; nothing was stored.
            SinkError: no message is being handled, or the store cannot be used; if the connection
                broke in the very end, it may have been stored. Either way a retry is right.
            ValueError, TypeError: *data* is nothing that JSON can say.
        """
        if isinstance(data, bytes):
            raise TypeError("bytes are no JSON: decode them, or store a path to where they are")
        text = "null" if data is None else encode(data).decode()
        with self.once(message) as transaction:
            if transaction is None:
                return False
            mark = self._store.mark
            transaction.execute(
                f'UPDATE "{self.name}" SET data = {mark} WHERE id = {mark}',  # noqa: S608 -- checked
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
        row = (meant.id, meant.job, clock.time())
        marks = ", ".join([self._store.mark] * len(row))
        with self._turn_taken() as execute:
            try:
                execute(self._store.begin, ())
                fresh = execute(
                    f'INSERT INTO "{self.name}" (id, job, stored) VALUES ({marks}) '  # noqa: S608
                    f"ON CONFLICT (id) DO NOTHING",
                    row,
                ).rowcount
                yield Transaction(execute) if fresh else None
                if not self._store.is_in_transaction(self._connection):
                    raise SinkError(
                        "the transaction was ended inside `once`: leave COMMIT and ROLLBACK out"
                    )
                execute("COMMIT", ())
            except BaseException:
                with suppress(
                    *self._store.errors
                ):  # none begun, or no connection: nothing is there
                    execute("ROLLBACK", ())
                raise

    def rows(self, n: int | None = None) -> Table:
        """Return what is stored, oldest first, at most *n* rows, as a table.

        Raises:
            SinkBusy, SinkError: as for `store`.
        """
        with self._turn_taken() as execute:
            cursor = execute(
                f'SELECT id, job, stored, data FROM "{self.name}" '  # noqa: S608 -- name: checked
                f"ORDER BY stored, id LIMIT {self._store.mark}",
                (ALL if n is None else n,),
            )
            found = _rows(cursor)
        rows = [(*row[:3], None if row[3] is None else decode(row[3].encode())) for row in found]
        return Table(COLUMNS, rows, title=f"{self.name} in {self.place}")

    def __len__(self) -> int:
        with self._turn_taken() as execute:
            [[count]] = _rows(execute(f'SELECT count(*) FROM "{self.name}"', ()))  # noqa: S608
        return int(count)

    def __bool__(self) -> bool:  # not by its length: `if sink` would open it
        return True

    def close(self) -> None:
        """Close the file or connection; what is used again opens it again.

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
        return f"<Sink {safe(self.name)} in {safe(self.place)}>"

    @contextmanager
    def _turn_taken(self) -> Iterator[Execute]:
        """Hold the connection for this thread alone; the database's errors come out as ours."""
        store = self._store
        with self._turn_held():
            try:
                connection, self._connection = self._connection, None
                if connection is not None and not store.is_usable(connection):
                    connection.close()
                    connection = None
                self._connection = connection = connection or self._opened()
                yield lambda sql, parameters: store.execute(connection, sql, parameters)
            except store.errors as error:
                raise store.translated(error) from error

    @contextmanager
    def _turn_held(self) -> Iterator[None]:
        if self._holder == threads.get_ident():
            raise SinkError("the sink is used inside its own `once`: use the transaction there")
        if not self._turn.acquire(timeout=self.timeout):
            raise SinkBusy(
                f"another thread held {safe(self.place)} for {self.timeout:g} s: do slow work "
                f"before `once`, not in it"
            )
        self._holder = threads.get_ident()
        try:
            yield
        finally:
            self._holder = None
            self._turn.release()

    def _opened(self) -> Any:
        connection = self._store.connect()
        try:
            columns = self._store.make_table(connection, self.name, TYPES)
            if columns != list(COLUMNS):
                raise SinkError(
                    f"{safe(self.place)} has a table {self.name!r} that is no sink's: choose "
                    f"another name"
                )
        except BaseException:
            connection.close()
            raise
        return connection


def _rows(cursor: Any) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def _store(place: str | os.PathLike[str], timeout: float) -> Store:
    text = os.fspath(place)
    if re.match("postgres(ql)?://", text):
        from mousetrap.sink.postgresql import PostgresqlStore  # an extra: not for who has a file

        return PostgresqlStore(text, timeout)
    if "://" in text:  # not quoted: it may have a password
        raise SinkError(
            "the sink is given a URL of another kind: give postgresql://user:password@host/database"
            " or the path of an SQLite file"
        )
    return SqliteStore(place, timeout)


def _meant(message: Message | None) -> Message:
    if isinstance(message, Message):
        return message
    if message is not None:
        raise SinkError(f"message is a {type(message).__name__}: give a mousetrap.Message")
    try:
        return current_message.get()
    except LookupError:
        raise SinkError(
            "no message is being handled here: give one, as in sink.store(data, message)"
        ) from None

"""Stores the result of each message exactly once, in SQLite or PostgreSQL.

The broker delivers a message at least once: if a worker crashes after its work and before the ack,
the broker delivers the message to another worker, which does the work again. A sink writes the
result and the message's id in one transaction, so it recognizes the second delivery. This is the
idempotent receiver of Hohpe and Woolf, "Enterprise Integration Patterns" (2003), page 528. What
differs between the databases is in `sqlite` and `postgresql`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from mousetrap.display.formats import UNKNOWN, counted
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.model.batch import current_batch
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import encode
from mousetrap.model.message import Message, current_message
from mousetrap.runtime import clock, forks, threads
from mousetrap.sink.sqlite import SqliteStore
from mousetrap.sink.store import Store

SINK_COLUMNS = ("id", "job", "stored", "data")
COLUMN_TYPES = "id TEXT PRIMARY KEY, job TEXT NOT NULL, stored DOUBLE PRECISION NOT NULL, data TEXT"

NO_LIMIT = 2**62  # rows
OPENED_TIME = 0.5  # seconds at least that a call has after it has connected, if that took long

_connections_of_parent: list[Any] = []  # never closed here, not even when they are collected

Execute = Callable[[str, Sequence[Any]], Any]


class Transaction:
    """Runs SQL in the transaction of `Sink.once`, which also stores the message's id."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows; pass values as *parameters*, never in *sql*.

        The placeholder of a parameter is ``?`` for SQLite and ``%s`` for PostgreSQL.
        """
        return _rows(self._execute(sql, parameters))


class Sink(forks.OfOneProcess):
    """Results by message id, in a table *name* of an SQLite file or a PostgreSQL database.

        sink = Sink("results.db")  # or "postgresql://user:password@host:5432/database"

        @stage(reads="data_processing")
        def keep(summary: Summary) -> None:
            sink.store(summary)  # returns False if this message has a result already

    The columns are `id` and `job` of the message, `stored` in seconds since 1970, and `data` as
    JSON (NULL after `once`). The sink connects when it is first used. A message that was published
    without an id, as plain pika does by default, gets a new id at each delivery, so a sink cannot
    recognize its duplicates.

    Threads: any; one uses the sink at a time. Processes: each one has a connection of its
    own, also after a fork. An SQLite file must be on a local disk, because its WAL needs
    shared memory. A call takes *timeout* seconds at most, and then raises `SinkBusy`: it waited for
    others, or for a server (which has 2 s for a login at least). With `once`, that is so for its
    begin, for each statement inside, and for its end.

    Raises:
        SinkError: the path, URL, name or time-out is not allowed.
    """

    def __init__(
        self, place: str | os.PathLike[str], name: str = "results", *, timeout: float = 10.0
    ) -> None:
        if not re.fullmatch(r"(?!sqlite_)[A-Za-z_][A-Za-z0-9_]{0,62}", name):
            raise SinkError(
                f"name is {safe(name, 80)!r}: use up to 63 letters, digits and '_', not starting "
                f"with a digit or sqlite_"
            )
        if not 0.01 <= timeout <= 3600:
            raise SinkError(f"timeout is {timeout!r}: it must lie in 0.01..3600 seconds")
        self._store = _store(place, timeout)
        self.place = self._store.place  # the file, or the database without its password
        self.name = name
        self.timeout = timeout
        self._lock = threads.Lock()  # held by the thread that uses the connection
        self._lock_holder: int | None = None  # the id of that thread
        self._connection: Any = None
        self._is_asking = False  # the thread with the lock waits for the database
        self._failed = (-math.inf, "")  # when a statement had no answer in time, and its error
        forks.watch(self)

    def store(self, data: Any, message: Message | None = None) -> bool:
        """Store *data* as the result of *message*; return False if it has one already, which stays.

        Without *message* it is the message that is being handled.

        Raises:
            SinkBusy: others used the database for longer than the time-out, or it did not answer.
            SinkError: no message is being handled, or the database cannot be used. If the
                connection broke during the commit, the result may have been stored; a retry is
                safe in each case.
            ValueError, TypeError: *data* cannot be JSON.
        """
        [is_new] = self.store_each([data], [_message_or_current(message)])
        return is_new

    def store_each(
        self, values: Iterable[Any], messages: Sequence[Message] | None = None
    ) -> list[bool]:
        """Store each of *values* as the result of its message, all in one transaction.

        Without *messages* they are those of the batch that is being handled, in its order. Return
        for each whether it was stored: False if its message has a result already, which stays.

        Raises:
            SinkBusy, SinkError, ValueError, TypeError: as for `store`; nothing was stored. Also
                SinkError, if there is not one value for each message.
        """
        texts = [_json(each) for each in values]
        messages = _batch_or_given(messages)
        if len(texts) != len(messages):
            raise SinkError(
                f"{counted(len(texts), 'value')} for {counted(len(messages), 'message')}: give "
                f"one for each, in order"
            )
        deadline = clock.monotonic() + self.timeout
        with self._transaction(messages, texts, lambda: deadline) as (_, are_new):
            return are_new

    @contextmanager
    def once(self, message: Message | None = None) -> Iterator[Transaction | None]:
        """Provide a transaction for the effects of *message*, or None if they are stored already.

            with sink.once() as transaction:
                if transaction:
                    transaction.execute("UPDATE stock SET n = n - ? WHERE item = ?", (1, "cheese"))

        An exception inside rolls everything back, the id too, so that a retry of the message works.
        Keep the block short, because all others wait for it, and do not await in it.

        Raises:
            SinkBusy, SinkError: as for `store`.
        """
        messages = [_message_or_current(message)]
        new_deadline = lambda: clock.monotonic() + self.timeout  # noqa: E731 -- short
        with self._transaction(messages, [None], new_deadline) as (transaction, [is_new]):
            yield transaction if is_new else None

    @contextmanager
    def _transaction(
        self,
        messages: Sequence[Message],
        texts: Sequence[str | None],
        new_deadline: Callable[[], float],
    ) -> Iterator[tuple[Transaction, list[bool]]]:
        """Store the ids of *messages* with their *texts*; provide the transaction, and who is new.

        *new_deadline* is called for the begin and these rows, and for each step after.
        """
        marks = ", ".join([self._store.placeholder] * len(SINK_COLUMNS))
        insert = (
            f'INSERT INTO "{self.name}" ({", ".join(SINK_COLUMNS)}) VALUES ({marks}) '  # noqa: S608 -- name is checked
            f"ON CONFLICT (id) DO NOTHING"
        )
        stored = clock.time()
        deadline = new_deadline()
        with self._connected(lambda: deadline) as execute:
            try:
                execute(self._store.begin(clock.remaining(deadline)), ())
                are_new = [
                    bool(execute(insert, (each.id, each.job, stored, text)).rowcount)
                    for each, text in zip(messages, texts, strict=True)
                ]

                def execute_later(*statement: Any) -> Any:
                    nonlocal deadline
                    deadline = new_deadline()
                    return execute(*statement)

                yield Transaction(execute_later), are_new
                deadline = new_deadline()
                if not self._store.is_in_transaction(self._connection):
                    raise SinkError(
                        "the transaction was ended inside `once`: do not COMMIT or ROLLBACK there"
                    )
                execute("COMMIT", ())
            except BaseException:
                # fails if no transaction was begun or the connection is lost: nothing is stored
                with suppress(*self._store.errors):
                    execute("ROLLBACK", ())
                raise

    def rows(self, n: int | None = None) -> Table:
        """Return the stored rows, oldest first, at most *n*, as a table.

        Raises:
            SinkBusy, SinkError: as for `store`.
        """
        deadline = clock.monotonic() + self.timeout
        with self._connected(lambda: deadline) as execute:
            cursor = execute(
                f'SELECT id, job, stored, data FROM "{self.name}" '  # noqa: S608 -- name is checked
                f"ORDER BY stored, id LIMIT {self._store.placeholder}",
                (NO_LIMIT if n is None else n,),
            )
            found = _rows(cursor)
        rows = [(*row[:3], None if row[3] is None else decode(row[3].encode())) for row in found]
        title = f"{counted(len(rows), 'row')} of {self.name} in {self.place}"
        return Table(SINK_COLUMNS, rows, title, shows={"stored": _date}, wrapped="data")

    def __len__(self) -> int:
        deadline = clock.monotonic() + self.timeout
        with self._connected(lambda: deadline) as execute:
            [[count]] = _rows(execute(f'SELECT count(*) FROM "{self.name}"', ()))  # noqa: S608 -- name is checked
        return int(count)

    def __bool__(self) -> bool:  # without this, `if sink` would call `__len__` and connect
        return True

    def close(self) -> None:
        """Close the file or connection; the next use opens it again.

        Raises:
            SinkBusy: another thread used the sink for longer than the time-out.
        """
        with self._locked(clock.monotonic() + self.timeout):
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def forked(self) -> None:
        """Forget the connection in a forked child, which opens its own when it needs one.

        The parent uses the same file or socket: to close it here would end the parent's, too.
        """
        if self._connection is not None:
            _connections_of_parent.append(self._connection)
        if self._lock_holder != threads.get_ident():
            self._connection, self._lock_holder = None, None
            self._lock = threads.Lock()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sink {safe(self.name)} in {safe(self.place)}>"

    @contextmanager
    def _connected(self, deadline: Callable[[], float]) -> Iterator[Execute]:
        """Provide the connection to this thread alone; translate the driver's exceptions.

        A statement takes until *deadline* (monotonic) at most, which is asked for before each.
        """
        store = self._store
        opened = -math.inf  # when it was connected, on the monotonic clock

        def execute(*statement: Any) -> Any:
            store.limit(connection, max(deadline(), opened + OPENED_TIME))
            return self._asked(store.execute, connection, *statement)

        with self._locked(deadline()):
            try:
                connection, self._connection = self._connection, None
                if connection is not None and not store.is_usable(connection):
                    connection.close()
                    connection = None
                if connection is None:
                    connection = self._asked(self._open, deadline())
                    opened = clock.monotonic()
                self._connection = connection
                yield execute
            except store.errors as error:
                translated = store.translate(error)
                if isinstance(translated, SinkBusy):
                    self._failed = clock.monotonic(), str(translated)
                raise translated from error

    def _asked(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Return what *ask* returns; meanwhile other threads see that the database is awaited."""
        self._is_asking = True
        try:
            return ask(*arguments)
        finally:
            self._is_asking = False

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        if self._lock_holder == threads.get_ident():
            raise SinkError("the sink is used inside its own `once`: use the transaction there")
        started = clock.monotonic()
        if not self._lock.acquire(timeout=clock.remaining(deadline)):
            if self._is_asking:
                raise SinkBusy(
                    f"{safe(self.place)} has not answered another thread for {self.timeout:g} s: "
                    f"it is frozen, overloaded or locked by another program"
                )
            raise SinkBusy(
                f"another thread held {safe(self.place)} for {self.timeout:g} s: do slow work "
                f"before `once`, not in it"
            )
        self._lock_holder = threads.get_ident()
        try:
            failed, problem = self._failed
            if failed > started:  # what the thread before waited for in vain, while this one waited
                raise SinkBusy(problem)
            yield
        finally:
            self._lock_holder = None
            self._lock.release()

    def _open(self, deadline: float) -> Any:
        connection = self._store.connect(deadline)
        try:
            columns = self._store.make_table(connection, self.name, COLUMN_TYPES)
            if columns != list(SINK_COLUMNS):
                raise SinkError(
                    f"{safe(self.place)} has a table {self.name!r} that is not a sink's: choose "
                    f"another name"
                )
        except BaseException:
            connection.close()
            raise
        return connection


def _date(seconds: float) -> str:
    return clock.local_date_time(seconds) if 0 <= seconds < 1e11 else UNKNOWN


def _rows(cursor: Any) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def _store(place: str | os.PathLike[str], timeout: float) -> Store:
    text = os.fspath(place)
    if re.match("postgres(ql)?://", text):
        from mousetrap.sink.postgresql import PostgresqlStore  # late: needs an extra

        return PostgresqlStore(text, timeout)
    if "://" in text:  # the error must not quote it: a URL may contain a password
        raise SinkError(
            "the URL of the sink is of an unknown kind: give "
            "postgresql://user:password@host/database or the path of an SQLite file"
        )
    return SqliteStore(place, timeout)


def _json(data: Any) -> str:
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError("bytes cannot be JSON: decode them, or store the path of a file with them")
    return "null" if data is None else encode(data).decode()


def _batch_or_given(messages: Sequence[Message] | None) -> Sequence[Message]:
    if messages is None:
        messages = current_batch()
    if messages is None:
        raise SinkError(
            "no batch is being handled here: give the messages, as in "
            "sink.store_each(values, messages)"
        )
    return [_message_or_current(each) for each in messages]


def _message_or_current(message: Message | None) -> Message:
    if isinstance(message, Message):
        return message
    if message is not None:
        raise SinkError(f"message is a {type(message).__name__}: give a mousetrap.Message")
    if current_batch() is not None:
        raise SinkError(
            "a batch has several messages: sink.store_each(values) stores one value for each; or "
            "annotate the list as list[Message] and pass one, as in sink.store(data, message)"
        )
    try:
        return current_message.get()
    except LookupError:
        raise SinkError(
            "no message is being handled here: pass one, as in sink.store(data, message)"
        ) from None

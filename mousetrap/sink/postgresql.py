"""A PostgreSQL database as the database of a sink, through psycopg (the extra ``postgres``)."""

from __future__ import annotations

import math
import selectors
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.runtime import clock

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise SinkError(
        "a sink on PostgreSQL needs psycopg: pip install 'mousetrap-mq[postgres]'"
    ) from error

IDLE, IN_TRANSACTION, FAILED = (
    psycopg.pq.TransactionStatus.IDLE,
    psycopg.pq.TransactionStatus.INTRANS,
    psycopg.pq.TransactionStatus.INERROR,
)
LOCK_MARGIN = 0.3  # seconds that the server has to say that a lock was not available in time
URL_FORMAT = "postgresql://user:password@host:5432/database"


class NoAnswer(psycopg.OperationalError):
    """The server did not answer a statement in time; the connection is closed."""


class _Connection(psycopg.Connection[Any]):
    """A connection whose statements wait for the server until `deadline` (monotonic) at most.

    Time-outs of the server or of TCP do not help against a server that is frozen: its kernel still
    acknowledges what arrives, and its own clocks stand still.
    """

    deadline = math.inf

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Let psycopg wait for what *gen* needs, and close the connection if it takes too long."""
        return super().wait(self._limited(gen, self.deadline), *args, **kwargs)

    def _limited(self, gen: Generator[Any, Any, Any], end: float) -> Generator[Any, Any, Any]:
        try:
            state = next(gen)
            while True:
                ready = yield state  # psycopg goes on at least every tenth of a second
                if not ready and clock.monotonic() >= end:
                    self.close()
                    raise NoAnswer
                state = gen.send(ready)
        except StopIteration as ended:
            return ended.value


class PostgresqlStore:
    """A database on a server; `place` is its name without the password. See `Store`.

    After a lost connection, the next use of the sink connects again.
    """

    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    placeholder = "%s"

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self.place = _place(url)

    def connect(self, deadline: float) -> psycopg.Connection[Any]:
        """Log in to the server, and do what `limit` does."""
        login = max(2, math.ceil(clock.remaining(deadline)))  # libpq's shortest time-out is 2 s
        connection = _Connection.connect(
            self._url,
            autocommit=True,  # only explicit statements begin and end transactions
            connect_timeout=login,
            tcp_user_timeout=1000 * login,  # milliseconds until a silent server counts as lost
            application_name="mousetrap sink",
        )
        self.limit(connection, max(deadline, clock.monotonic() + LOCK_MARGIN))
        milliseconds = _milliseconds(clock.remaining(deadline))
        connection.execute(f"SET lock_timeout = {milliseconds}")  # SET allows no parameter
        return connection

    def limit(self, connection: psycopg.Connection[Any], deadline: float) -> None:
        """Let the statements that follow take until *deadline* (monotonic) together."""
        assert isinstance(connection, _Connection)
        connection.deadline = deadline + LOCK_MARGIN

    def begin(self, seconds: float) -> str:
        """Return what begins a transaction whose statements wait up to *seconds* for a lock.

        The primary key makes a second writer of the same id wait for the first.
        """
        return f"BEGIN; SET LOCAL lock_timeout = {_milliseconds(seconds)}"

    def make_table(self, connection: psycopg.Connection[Any], name: str, columns: str) -> list[str]:
        """Create the table if it does not exist; return its column names, the key first."""
        # CREATE TABLE IF NOT EXISTS needs the right to create tables even if the table exists
        sql: Any = (
            "SELECT attname FROM pg_attribute LEFT JOIN pg_index "
            "ON indrelid = attrelid AND indisprimary "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
            "ORDER BY NOT attnum = ANY (coalesce(indkey, '')::int2[]), attnum"
        )
        while not (found := connection.execute(sql, (f'"{name}"',)).fetchall()):
            with connection.transaction():  # the lock lets one of several processes create it
                connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (name,))
                create: Any = f'CREATE TABLE IF NOT EXISTS "{name}" ({columns})'
                connection.execute(create)
        return [attribute[0] for attribute in found]

    def is_usable(self, connection: psycopg.Connection[Any]) -> bool:
        """Return False if the connection is closed, or the server has sent data without a request.

        Such data is normally the message that the server closes the connection.
        """
        if connection.closed:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            return not selector.select(0)

    def is_in_transaction(self, connection: psycopg.Connection[Any]) -> bool:
        """Return whether a transaction was begun and is neither committed nor rolled back."""
        status = connection.info.transaction_status
        if status == FAILED:  # COMMIT would roll it back without an error
            raise SinkError(
                "a statement in `once` failed and its exception was caught: let it raise"
            )
        return bool(status == IN_TRANSACTION)

    def execute(
        self, connection: psycopg.Connection[Any], sql: str, parameters: Sequence[Any]
    ) -> psycopg.Cursor[Any]:
        """Run one statement and return its cursor."""
        statement: Any = sql  # psycopg's annotation demands a literal string
        return connection.execute(
            statement, parameters or None
        )  # without parameters, % has no meaning in SQL

    def translate(self, error: BaseException) -> SinkError:
        """Return a `SinkError` or `SinkBusy` for an exception of psycopg."""
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return SinkBusy(
                f"another writer held {self.place} for {self._timeout:g} s: end it, or give a "
                f"longer timeout"
            )
        if isinstance(error, (NoAnswer, psycopg.errors.ConnectionTimeout)):
            return SinkBusy(
                f"{self.place} did not answer for {self._timeout:g} s: it is frozen, overloaded or "
                f"cannot be reached; if it was a commit, the result may be stored, and a retry is "
                f"safe"
            )
        text = " ".join(str(error).split())
        return SinkError(f"{self.place} cannot be used as a sink: {safe(text, 300)}")


def _milliseconds(seconds: float) -> int:
    return max(1, round(1000 * seconds))  # 0 would be no limit


def _place(url: str) -> str:
    """Return the name of the database at *url*, without user and password.

    If the password contains an unescaped special character, a part of it would be parsed as the
    host, the port or the database, and would appear in errors. Such a URL is refused, and the
    error does not quote it.
    """
    parts: dict[str, Any] | None = None
    with suppress(psycopg.Error):  # its text contains the URL
        parts = conninfo_to_dict(url)
    if parts is None:
        raise SinkError(f"the URL of the sink cannot be read: write it as {URL_FORMAT}")
    host, port = str(parts.get("host", "")), str(parts.get("port", "5432"))
    database = str(parts.get("dbname", parts.get("user", "")))
    if "@" in host + database or not port.replace(",", "").isdigit():
        raise SinkError(
            f"the URL of the sink cannot be read: write it as {URL_FORMAT}, with %40 for a @ in "
            f"the password, %2F for a / and %3A for a :"
        )
    return safe(f"database {database or '(default)'} at {host or 'this machine'}:{port}")

"""A database of PostgreSQL as the store of a sink, through psycopg: the extra ``postgres``."""

from __future__ import annotations

import math
import selectors
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mousetrap.display.safe_text import safe
from mousetrap.errors import SinkBusy, SinkError

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
FORM = "postgresql://user:password@host:5432/database"


class PostgresqlStore:
    """A database on a server; `place` names it without its password. See `mousetrap.sink.Store`.

    A connection that was lost is made anew when the sink is used again.
    """

    errors: tuple[type[Exception], ...] = (psycopg.Error,)
    mark = "%s"
    begin = "BEGIN"  # the key makes a second writer of the same id wait for the first

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self.place = _place(url)

    def connect(self) -> psycopg.Connection[Any]:
        """Log in."""
        patience = math.ceil(self._timeout)
        connection = psycopg.connect(
            self._url,
            autocommit=True,  # transactions begin and end where we say
            connect_timeout=max(2, patience),  # seconds; libpq knows no shorter one
            tcp_user_timeout=1000 * max(2, patience),  # milliseconds for a server that is silent
            application_name="mousetrap sink",
        )
        milliseconds = max(1, round(1000 * self._timeout))
        connection.execute(f"SET lock_timeout = {milliseconds}")  # a number, no parameter allowed
        return connection

    def make_table(self, connection: psycopg.Connection[Any], name: str, columns: str) -> list[str]:
        """Make the table if there is none; return the names of its columns, the key first."""
        # not by IF NOT EXISTS: that needs the right to make tables where there is nothing to make
        sql: Any = (
            "SELECT attname FROM pg_attribute LEFT JOIN pg_index "
            "ON indrelid = attrelid AND indisprimary "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
            "ORDER BY NOT attnum = ANY (coalesce(indkey, '')::int2[]), attnum"
        )
        while not (found := connection.execute(sql, (f'"{name}"',)).fetchall()):
            with connection.transaction():  # one of several processes makes it
                connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (name,))
                make: Any = f'CREATE TABLE IF NOT EXISTS "{name}" ({columns})'
                connection.execute(make)
        return [attribute[0] for attribute in found]

    def is_usable(self, connection: psycopg.Connection[Any]) -> bool:
        """It was not lost while nobody used it; what comes unasked is as a rule the good-bye."""
        if connection.closed:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            return not selector.select(0)

    def is_in_transaction(self, connection: psycopg.Connection[Any]) -> bool:
        """One was begun, and neither committed nor rolled back."""
        status = connection.info.transaction_status
        if status == FAILED:  # which a COMMIT would roll back and call it well
            raise SinkError(
                "a statement in `once` had failed and the error was passed over: let it raise"
            )
        return bool(status == IN_TRANSACTION)

    def execute(
        self, connection: psycopg.Connection[Any], sql: str, parameters: Sequence[Any]
    ) -> psycopg.Cursor[Any]:
        """Run one statement and return its cursor."""
        statement: Any = sql  # psycopg's annotation wants a literal
        return connection.execute(statement, parameters or None)  # with none, a % is a %

    def translated(self, error: BaseException) -> SinkError:
        """Return one of our errors for psycopg's."""
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return SinkBusy(
                f"another writer held {self.place} for {self._timeout:g} s: end it, or give a "
                f"longer timeout"
            )
        said = " ".join(str(error).split())
        return SinkError(f"{self.place} cannot be used as a sink: {safe(said, 300)}")


def _place(url: str) -> str:
    """Name the database that *url* leads to.

    A character of the password that means something in a URL would land in what is taken for the
    host, the port or the database, and later in an error: such a URL is refused, not quoted.
    """
    parts: dict[str, Any] | None = None
    with suppress(psycopg.Error):  # whose text has the URL in it
        parts = conninfo_to_dict(url)
    if parts is None:
        raise SinkError(f"the URL of the sink cannot be read: write it as {FORM}")
    host, port = str(parts.get("host", "")), str(parts.get("port", "5432"))
    database = str(parts.get("dbname", parts.get("user", "")))
    if "@" in host + database or not port.replace(",", "").isdigit():
        raise SinkError(
            f"the URL of the sink cannot be read: write it as {FORM}, with %40 for a @ in the "
            f"password, %2F for a / and %3A for a :"
        )
    return safe(f"database {database or '(default)'} at {host or 'this machine'}:{port}")

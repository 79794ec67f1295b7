"""What a sink needs from a database: the interface of `sqlite` and `postgresql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mousetrap.errors import SinkError


class Store(Protocol):
    """What a sink needs from a database; *connection* is an object that `connect` returned."""

    place: str  # where the database is, without a password
    errors: tuple[type[Exception], ...]  # the exceptions of its driver
    placeholder: str  # for a parameter in SQL

    def connect(self, deadline: float) -> Any:
        """Open the file, or log in to the server, until *deadline*; then do what `limit` does."""

    def limit(self, connection: Any, deadline: float) -> None:
        """Let the statements that follow wait until *deadline* (monotonic) at most."""

    def begin(self, seconds: float) -> str:
        """Return what begins a transaction whose statements wait up to *seconds* for others."""

    def make_table(self, connection: Any, name: str, columns: str) -> list[str]:
        """Create the table if it does not exist; return its column names, the key first."""

    def is_usable(self, connection: Any) -> bool:
        """Return False if the connection is known to be lost."""

    def is_in_transaction(self, connection: Any) -> bool:
        """Return whether a transaction was begun and is neither committed nor rolled back."""

    def execute(self, connection: Any, sql: str, parameters: Sequence[Any]) -> Any:
        """Run one statement and return its cursor."""

    def translate(self, error: BaseException) -> SinkError:
        """Return a `SinkError` or `SinkBusy` for an exception of the driver."""

"""Deletes the exchanges of a run or a test, which never expire."""

from __future__ import annotations

from collections.abc import Iterable

from mousetrap.job_queue import ANSWERS_TIMEOUT, short_channel
from mousetrap.settings import Settings


def delete_exchanges(
    wire_names: Iterable[str], settings: Settings, *, timeout: float = ANSWERS_TIMEOUT
) -> None:
    """Delete exchanges by their names on the wire; one that does not exist is no error."""
    if names := list(dict.fromkeys(wire_names)):
        with short_channel(settings, timeout) as channel:
            for name in names:
                channel.exchange_delete(name)

"""Arguments and options of more than one command, and the checks of their values."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from mousetrap.broker import KINDS
from mousetrap.errors import SettingsError
from mousetrap.model.topology import check_queue_name
from mousetrap.worker.options import check_options

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def queue_name(value: str) -> str:
    """Check a queue's name before the command runs."""
    return check_queue_name(value)


def queue_names(values: list[str] | None) -> list[str]:
    """Check each of several names."""
    return [check_queue_name(value) for value in values or []]


def finite(value: float) -> float:
    """Refuse ``nan`` and ``inf``: they are floats, and a wait with them would never end."""
    if not math.isfinite(value):
        raise SettingsError(f"{value} is not a number of seconds: give one like 30 or 0.5")
    return value


def time_limit(value: float | None) -> float | None:
    """Refuse what is no number of seconds above 0."""
    check_options(1, None, value)
    return value


def log_level(value: str) -> str:
    """Refuse what is no level of a log."""
    if value.lower() not in LOG_LEVELS:
        raise SettingsError(f"{value!r} is no log level: use one of {', '.join(LOG_LEVELS)}")
    return value.lower()


def log_format(value: str) -> str:
    """Refuse what is no format of a log."""
    if value.lower() not in LOG_FORMATS:
        raise SettingsError(f"{value!r} is no log format: use one of {', '.join(LOG_FORMATS)}")
    return value.lower()


Kind = Annotated[
    str | None,
    typer.Option(
        "--broker", metavar="KIND", help=f"{', '.join(KINDS)}; default: the first that works."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]
Name = Annotated[
    str,
    typer.Argument(metavar="QUEUE", callback=queue_name, help="Its plain name, e.g. start_fetch."),
]
Full = Annotated[bool, typer.Option("--full", help="Do not cut bodies.")]

"""The external way: a broker that somebody else started."""

from __future__ import annotations

import os

from mousetrap.broker import probe
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.errors import WireError
from mousetrap.job_queue import ping
from mousetrap.settings import Settings

HERE = ("localhost", "127.0.0.1", "::1")


def is_named(settings: Settings) -> bool:
    """Somebody said where the broker is: then that one is used, or nothing."""
    named = any(os.environ.get(name) for name in ("RABBITMQ_URL", "RABBITMQ_HOST"))
    return named or settings.host not in HERE


def status(settings: Settings) -> BrokerStatus:
    """Report on whoever answers at the address of the settings."""
    version = probe.version(settings)
    note = "nobody answers there"
    if version:
        try:
            ping(settings)
        except WireError as error:
            note = str(error)
        else:
            note = ""
    return BrokerStatus(
        kind="external",
        is_available=version is not None and not note,
        is_running=version is not None,
        address=f"{settings.host}:{settings.port}",
        version=version or "",
        note=note,
    )

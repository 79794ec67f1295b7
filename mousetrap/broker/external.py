"""The kind *external*: a broker that something else started, at the address of the settings."""

from __future__ import annotations

import os

from mousetrap.broker import probe
from mousetrap.broker.broker import Broker, describe
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.probe import Log
from mousetrap.errors import AccessRefused, WireError
from mousetrap.job_queue import ping
from mousetrap.settings import Settings

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class External:
    """Uses the broker that answers at the address of the settings; starts and stops nothing."""

    name = "external"
    is_in_process = False

    def status(self, settings: Settings) -> BrokerStatus:
        """Report what answers at the address of the settings."""
        version = probe.version(settings)
        note = "nothing answers there"
        if version:
            try:
                ping(settings)
            except WireError as error:
                note = str(error)
            else:
                note = ""
        return BrokerStatus(
            kind=self.name,
            is_available=version is not None and not note,
            is_running=version is not None,
            address=f"{settings.host}:{settings.port}",
            version=version or "",
            note=note,
        )

    def join(self, settings: Settings, timeout: float, log: Log) -> Broker:  # noqa: ARG002 -- it answers or not; `settings.connect_timeout` bounds that
        """Return the broker at the address of the settings.

        Raises:
            BrokerUnreachable: nothing answers there.
            AccessRefused: it refuses the login.
        """
        ping(settings, timeout=settings.connect_timeout)
        return describe(self.name, settings, log)

    up = join

    def down(self, log: Log) -> bool:  # noqa: ARG002 -- as every kind
        """Return False: the broker belongs to what started it."""
        return False

    def answering(self, settings: Settings, log: Log) -> Broker | None:
        """Return the broker at the address of the settings; None if there is none to use.

        A broker that refuses the login is logged and not used: it is another user's.
        """
        try:
            return self.join(settings, settings.connect_timeout, log)
        except AccessRefused as refused:
            log(f"not using what runs here: {refused}")
        except WireError:
            pass  # nothing answers, which is why one is started
        return None


def is_named(settings: Settings) -> bool:
    """Return whether the user named a broker: then that one is used, or none."""
    named = any(os.environ.get(name) for name in ("RABBITMQ_URL", "RABBITMQ_HOST"))
    return named or settings.host not in LOCAL_HOSTS

"""One way to come by a broker, and how it stands: what `mousetrap.broker.status` returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BrokerStatus:
    """How one kind of broker stands on this machine."""

    kind: str  # "external", "docker", "local" or "embedded"
    is_available: bool  # it runs, or what it needs to be started is here
    is_running: bool
    address: str = ""  # "127.0.0.1:5672"; empty if it does not run
    version: str = ""  # "RabbitMQ 4.3.6"; empty if nobody answered
    note: str = ""  # why it is not available, or what else to know

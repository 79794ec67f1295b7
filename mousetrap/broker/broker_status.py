"""`BrokerStatus`: what `mousetrap.broker.status` returns for each kind of broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BrokerStatus:
    """Whether one kind of broker runs on this machine, or could be started."""

    kind: str  # "external", "docker", "local" or "embedded"
    is_available: bool  # it runs, or what it needs to be started is installed
    is_running: bool
    address: str = ""  # "127.0.0.1:5672"; empty if it does not run
    version: str = ""  # "RabbitMQ 4.3.6"; empty if nothing answered
    note: str = ""  # why it is not available, or a remark

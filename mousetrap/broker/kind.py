"""`BrokerKind`: what every kind of broker can do; `mousetrap.broker.registry` lists the kinds."""

from __future__ import annotations

from typing import Protocol

from mousetrap.broker.broker import Broker
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.probe import Log
from mousetrap.settings import Settings


class BrokerKind(Protocol):
    """One kind of broker: how to use it, start it, stop it, and ask for its status.

    To add a kind, write a class with these members in a file of its own, and add one line to
    ``_KINDS`` in `mousetrap.broker.registry`. The command line, the scripts of ``deploy/`` and the
    pytest plugin read it there.
    """

    name: str
    """What follows ``--broker``: ``docker``."""

    is_in_process: bool
    """The broker runs inside the process that asks for it: it needs no program, cannot be left
    running by `up`, and is no RabbitMQ."""

    def status(self, settings: Settings) -> BrokerStatus:
        """Report whether it runs or could be started; change nothing."""

    def join(self, settings: Settings, timeout: float, log: Log) -> Broker:
        """Return a broker for this process: the one that runs, or one that is started for it.

        Raises:
            MousetrapError: there is none, and none was ready within *timeout* seconds.
        """

    def up(self, settings: Settings, timeout: float, log: Log) -> Broker:
        """Return a broker that stays up after this process: the one that runs, or a new one.

        Raises:
            MousetrapError: as for `join`.
        """

    def down(self, log: Log) -> bool:
        """Stop what `up` left running and keep its data; return False if nothing ran."""

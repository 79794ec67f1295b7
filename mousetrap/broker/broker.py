"""`Broker`: a broker that works, how to reach it, and how to end it if this process started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mousetrap.broker import probe
from mousetrap.broker.probe import Log
from mousetrap.broker.rabbitmq_node import RabbitMQNode
from mousetrap.settings import Settings


@dataclass(frozen=True)
class Broker:
    """A broker that has returned a message, and how to reach it.

    ``str(broker)`` is the line to show: ``local: RabbitMQ 3.10.8 on 127.0.0.1:41233``.
    """

    kind: str
    settings: Settings
    description: str
    node: RabbitMQNode | None = field(default=None, repr=False, compare=False)
    """The private node that this process started; None for any other broker."""
    on_close: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    """What ends the broker, if this process started it for itself."""

    def environment(self) -> dict[str, str]:
        """Return the variables that make a child process use this broker and start none itself.

        They contain the password: pass them to a child's environment and nowhere else.
        """
        return self.settings.to_environment() | {"MOUSETRAP_BROKER": "external"}

    def close(self) -> None:
        """End a broker that `ensure` started for this process; any other broker keeps running."""
        if self.on_close is not None:
            self.on_close()

    def __str__(self) -> str:
        return self.description

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def describe(kind: str, settings: Settings, log: Log, node: RabbitMQNode | None = None) -> Broker:
    """Return the `Broker` at the address of *settings*, and log that it is used.

    *node* is the private node behind it, if this process started it and is to end it.
    """
    version = probe.version(settings) or "an AMQP broker"
    description = f"{kind}: {version} on {settings.host}:{settings.port}"
    log(f"using the broker {description}")
    return Broker(kind, settings, description, node, node.close if node else None)

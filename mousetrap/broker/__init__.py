"""Find or start a broker: one that is named, one that answers, one in Docker, or a private node.

`ensure` returns a broker that works; `up` leaves one running, `down` stops it, `status` reports.
The rest of the package sees only a `Broker` with its `Settings`.

The kinds, each a `kind.BrokerKind` in its own file, all listed in `registry`:

- `external`: something else started it. It is used if ``RABBITMQ_URL`` or ``RABBITMQ_HOST`` names
  it, or if it answers at the default address and accepts the login of the settings.
- `docker`: the compose file ``deploy/development.yml``.
- `local`: a private node of the installed ``rabbitmq-server`` (`local` decides which node,
  `rabbitmq_node` starts and stops it, `node_supervisor` is the process that watches it,
  `executables` and `configuration` provide what it needs).
- `embedded`: our own server in this process, in memory; it is tried last.
"""

from __future__ import annotations

import json
from typing import Any

from mousetrap.broker import local
from mousetrap.broker.broker import Broker
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.embedded import serve as _serve
from mousetrap.broker.kind import BrokerKind
from mousetrap.broker.probe import Log
from mousetrap.broker.rabbitmq_node import RabbitMQNode
from mousetrap.broker.registry import KINDS, choose, kind_named
from mousetrap.display.notices import print_notice
from mousetrap.embedded_broker import OVERVIEW_QUEUE
from mousetrap.job_queue import take_one
from mousetrap.settings import Settings

__all__ = [
    "KINDS",
    "Broker",
    "BrokerKind",
    "BrokerStatus",
    "RabbitMQNode",
    "down",
    "ensure",
    "kind_named",
    "overview",
    "private",
    "serve",
    "status",
    "up",
]


def ensure(
    kind: str | None = None,
    settings: Settings | None = None,
    *,
    timeout: float = 120.0,
    log: Log = print_notice,
) -> Broker:
    """Return a broker that works, and start one if none does; *log* gets a line for each step.

    *kind* (or ``MOUSETRAP_BROKER``) selects the kind. Without it they are tried in the order of
    `KINDS`. A private node that was started for this process ends with it, and so does the embedded
    broker, with its messages; a container keeps running.

    Raises:
        SettingsError: there is no such kind.
        BrokerUnreachable, AccessRefused: the broker that was named does not answer, or refuses the
            login; no other is tried in its place.
        BrokerSetupError: none was ready within *timeout* seconds (pulling an image does not count);
            the error has one sentence for each kind that was tried.
    """
    return choose(kind, settings, timeout, log, stays=False)


def private(
    settings: Settings | None = None, *, timeout: float = 120.0, log: Log = print_notice
) -> Broker:
    """Start a private node, which no other program uses, for this process.

    It may be killed and started again (``broker.node``), and ends with this process.

    Raises:
        BrokerSetupError: ``rabbitmq-server`` is not installed, or the node did not start.
    """
    return local.start_private(settings or Settings.from_environment(), timeout, log)


def up(
    kind: str | None = None,
    settings: Settings | None = None,
    *,
    timeout: float = 120.0,
    log: Log = print_notice,
) -> Broker:
    """Like `ensure`, but what it starts stays up after this process, until `down`.

    A private node then listens on the port of the settings and keeps its data over `down` and `up`.
    A second call changes nothing.
    """
    return choose(kind, settings, timeout, log, stays=True)


def down(kind: str | None = None, *, log: Log = print_notice) -> list[str]:
    """Stop what `up` left running, of one kind or of all, and keep its data; return the kinds."""
    kinds = KINDS.values() if kind is None else [kind_named(kind)]
    return [each.name for each in kinds if each.down(log)]


def status(settings: Settings | None = None) -> list[BrokerStatus]:
    """Report on each kind of broker; start and change nothing."""
    settings = settings or Settings.from_environment()
    return [each.status(settings) for each in KINDS.values()]


def serve(
    settings: Settings | None = None, *, with_parent: bool = False, log: Log = print_notice
) -> None:
    """Run an embedded broker on the port of the settings until SIGTERM or Ctrl-C ends it.

    *with_parent*: also until stdin ends. A parent that holds the other end of that pipe need do
    nothing: however the parent ends, the system closes the pipe.

    Raises:
        BrokerSetupError: the port is taken.

    Threads: the main one only.
    """
    _serve(settings or Settings.from_environment(), log, with_parent=with_parent)


def overview(settings: Settings | None = None) -> dict[str, Any]:
    """Return the state of an embedded broker, in this process or another, as plain data.

    ``{"memory": bytes, "is_short": bool, "connections": [...], "vhosts": {"/": {"queues": [...],
    "exchanges": [...], "bindings": [...]}}}``: depths, consumers, bindings, without a plugin.

    Raises:
        BrokerUnreachable, AccessRefused: as for any request.
        QueueMissing: the broker is a RabbitMQ, not an embedded one: ask its management plugin.
    """
    return dict(json.loads(take_one(OVERVIEW_QUEUE, settings or Settings.from_environment())))

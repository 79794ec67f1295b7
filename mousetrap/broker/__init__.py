"""Come by a broker: one that is named, one that answers, one in Docker, or a private node.

`ensure` returns a broker that works and says which it is; `up` leaves one running, `down` stops it,
`status` reports. Everything above this package only sees a `Broker` with its `Settings`.

- `external`: somebody else's. Used if ``RABBITMQ_URL`` or ``RABBITMQ_HOST`` name it, or if one
  answers on the default address with the login of the settings.
- `docker`: the compose file ``deploy/development.yml``.
- `local`: a private node of the ``rabbitmq-server`` installed here (`local` decides, `node` knows
  how, `keeper` is the process that keeps it, `program` and `configuration` are what it needs).
- `embedded`: our own server in this process, in memory; the last one that is tried.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mousetrap.broker import docker, external, local, probe
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.probe import Say, say_on_stderr
from mousetrap.broker.rabbitmq_node import RabbitMQNode
from mousetrap.embedded_broker import OVERVIEW, EmbeddedServer
from mousetrap.errors import AccessRefused, BrokerSetupError, SettingsError, WireError
from mousetrap.job_queue import get_once, ping
from mousetrap.runtime import clock
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.settings import Settings

__all__ = [
    "KINDS",
    "Broker",
    "RabbitMQNode",
    "Way",
    "down",
    "ensure",
    "overview",
    "private",
    "serve",
    "status",
    "up",
]

KINDS = ("external", "docker", "local", "embedded")


@dataclass(frozen=True)
class Broker:
    """A broker that has given a message back, and how to reach it.

    ``str(broker)`` is the line to show: ``local: RabbitMQ 3.10.8 on 127.0.0.1:41233``.
    """

    kind: str
    settings: Settings
    description: str
    node: RabbitMQNode | None = field(
        default=None, repr=False, compare=False
    )  # if it is ours alone
    server: EmbeddedServer | None = field(default=None, repr=False, compare=False)  # embedded

    def environment(self) -> dict[str, str]:
        """The variables that make a child process use this broker and start none of its own.

        Contains the password: hand it to a child's environment, nothing else.
        """
        return self.settings.to_environment() | {"MOUSETRAP_BROKER": "external"}

    def close(self) -> None:
        """End a node that `ensure` started for this process; any other broker stays."""
        if self.node is not None:
            self.node.close()
        if self.server is not None:
            self.server.stop()

    def __str__(self) -> str:
        return self.description

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ensure(
    kind: str | None = None,
    settings: Settings | None = None,
    *,
    timeout: float = 120.0,
    say: Say = say_on_stderr,
) -> Broker:
    """Return a broker that works, starting one if need be; *say* is told which, and each wait.

    *kind* (or ``MOUSETRAP_BROKER``) picks the way; without it they are tried in the order named,
    answering, docker, local, embedded. A private node that has to be started ends with this
    process, and so does the embedded broker, with its messages; a dockerised broker stays up, as
    people expect of it.

    Raises:
        SettingsError: there is no such kind.
        BrokerUnreachable, AccessRefused: the broker that was named does not answer; no other is
            tried in its place.
        BrokerSetupError: none could be brought up within *timeout* seconds (pulling an image is
            not counted); one sentence for each way that was tried.
    """
    return _bring(kind, settings, timeout, say, stays=False)


def private(
    settings: Settings | None = None, *, timeout: float = 120.0, say: Say = say_on_stderr
) -> Broker:
    """Start a broker that this process has for itself, with nobody else's messages: a private node.

    It may be killed and started again (``broker.node``), and ends with this process.

    Raises:
        BrokerSetupError: there is no ``rabbitmq-server`` here, or it did not come up.
    """
    node = local.start(settings or Settings.from_environment(), timeout, say)
    return _found("local", node.settings, say, node)


def up(
    kind: str | None = None,
    settings: Settings | None = None,
    *,
    timeout: float = 120.0,
    say: Say = say_on_stderr,
) -> Broker:
    """Like `ensure`, but what it starts stays up after this process, until `down`.

    A private node then listens on the port of the settings, where everybody looks first, and keeps
    its data over `down` and `up`. Calling it twice changes nothing.
    """
    return _bring(kind, settings, timeout, say, stays=True)


def down(kind: str | None = None, *, say: Say = say_on_stderr) -> list[str]:
    """Stop what `up` left running, of one kind or of all, and keep its data; return the kinds."""
    _known(kind)
    stopped = []
    if kind in (None, "docker") and docker.down(say):
        stopped.append("docker")
    if kind in (None, "local") and local.down():
        stopped.append("local")
    return stopped


def status(settings: Settings | None = None) -> list[BrokerStatus]:
    """Report how each way stands; starts and changes nothing."""
    settings = settings or Settings.from_environment()
    box = BrokerStatus("embedded", True, False, note="in memory, in the process that asks for it")
    return [external.status(settings), docker.status(), local.status(settings), box]


def _bring(
    kind: str | None, settings: Settings | None, timeout: float, say: Say, *, stays: bool
) -> Broker:
    settings = settings or Settings.from_environment()
    kind = _known(kind or os.environ.get("MOUSETRAP_BROKER") or None)
    deadline = clock.monotonic() + timeout

    def from_docker() -> Broker:
        left = deadline - clock.monotonic()
        return _found("docker", docker.up(settings, left, say), say)

    def from_local() -> Broker:
        left = deadline - clock.monotonic()
        running = (local.up if stays else local.join)(settings, left, say)
        if running is not None:
            return _found("local", running, say)
        node = local.start(settings, left, say)
        return _found("local", node.settings, say, node)

    ways: dict[str, Callable[[], Broker]] = {"docker": from_docker, "local": from_local}
    if kind == "external" or (kind is None and external.is_named(settings)):
        ping(settings, timeout=settings.connect_timeout)
        return _found("external", settings, say)
    if kind == "embedded":
        return _embedded(settings, say, stays=stays)
    if kind is not None:
        return ways[kind]()
    try:
        ping(settings, timeout=settings.connect_timeout)
    except AccessRefused as refused:
        say(f"not using what runs here: {refused}")
    except WireError:
        pass  # nobody there, which is why we start one
    else:
        return _found("external", settings, say)
    reasons = []
    for name, bring in ways.items():
        try:
            return bring()
        except (BrokerSetupError, WireError) as error:
            say(f"not using {name}: {error}")
            reasons.append(f"{name}: {error}")
    if not stays:
        return _embedded(settings, say, stays=False)
    raise BrokerSetupError("no broker could be brought up.\n  " + "\n  ".join(reasons))


def serve(
    settings: Settings | None = None, *, with_parent: bool = False, say: Say = say_on_stderr
) -> None:
    """Run an embedded broker on the port of the settings until SIGTERM or Ctrl-C ends it.

    *with_parent*: also when stdin ends. A parent that holds the other end of that pipe need do
    nothing: however it dies, the system closes it.

    Raises:
        BrokerSetupError: the port is taken.

    Threads: the main one only.
    """
    run_until_signalled(
        _Served(settings or Settings.from_environment(), say), with_parent=with_parent
    )


def overview(settings: Settings | None = None) -> dict[str, Any]:
    """Ask an embedded broker, in whichever process, for its state as plain data.

    ``{"memory": bytes, "is_short": bool, "connections": [...], "vhosts": {"/": {"queues": [...],
    "exchanges": [...], "bindings": [...]}}}``: depths, consumers, bindings, without a plugin.

    Raises:
        BrokerUnreachable, AccessRefused: as by any question.
        QueueMissing: that is no embedded broker, but RabbitMQ: ask its management plugin.
    """
    return dict(json.loads(get_once(OVERVIEW, settings or Settings.from_environment())))


class _Served:
    """An embedded broker as something that is run until it is told to stop."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings, self._say = settings, say
        self._broker: Broker | None = None

    def start(self) -> None:
        self._broker = _embedded(self._settings, self._say, stays=False, port=self._settings.port)

    def wait(self, _: float, /) -> bool:
        return False  # it goes on by itself

    def stop(self, _: float, /) -> None:
        if self._broker is not None:
            self._broker.close()


def _embedded(settings: Settings, say: Say, *, stays: bool, port: int = 0) -> Broker:
    if stays:
        raise BrokerSetupError(
            "the embedded broker ends with the process that started it, so it cannot be left "
            "running: give --broker embedded to the command that needs it, or let `mousetrap "
            "broker up --embedded` run for as long as it is needed"
        )
    users = {settings.user: settings.password}
    server = EmbeddedServer(users, port=port, vhosts=(settings.vhost,)).start()
    reached = settings.replace(host="127.0.0.1", port=server.port, tls=False)
    version = probe.version(reached) or probe.EMBEDDED
    line = f"{version} on {reached.host}:{reached.port}"
    say(f"using the broker {line}; messages are gone when this process ends")
    return Broker("embedded", reached, line, server=server)


def _found(kind: str, settings: Settings, say: Say, node: RabbitMQNode | None = None) -> Broker:
    version = probe.version(settings) or "an AMQP broker"
    broker = Broker(kind, settings, f"{kind}: {version} on {settings.host}:{settings.port}", node)
    say(f"using the broker {broker}")
    return broker


def _known(kind: str | None) -> str | None:
    if kind is not None and kind not in KINDS:
        raise SettingsError(
            f"there is no kind of broker called {kind!r}: use one of {', '.join(KINDS)} "
            f"(--broker or MOUSETRAP_BROKER)"
        )
    return kind

"""The kind *embedded*: `mousetrap.embedded_broker`, in memory, in this process."""

from __future__ import annotations

from mousetrap import __version__
from mousetrap.broker import probe
from mousetrap.broker.broker import Broker
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.probe import Log
from mousetrap.embedded_broker import EmbeddedServer
from mousetrap.errors import BrokerSetupError
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.settings import Settings


class Embedded:
    """Starts a server inside this process; its messages end with it."""

    name = "embedded"
    is_in_process = True

    def status(self, settings: Settings) -> BrokerStatus:  # noqa: ARG002 -- as every kind
        """Report that it can always be started."""
        note = "in memory, in the process that asks for it"
        return BrokerStatus(self.name, is_available=True, is_running=False, note=note)

    def join(self, settings: Settings, timeout: float, log: Log, *, port: int = 0) -> Broker:  # noqa: ARG002 -- it starts at once
        """Start a server for this process, on *port* or any free one.

        Raises:
            BrokerSetupError: the port is taken.
        """
        users = {settings.user: settings.password}
        server = EmbeddedServer(users, port=port, vhosts=(settings.vhost,), version=__version__)
        try:
            server.start()
        except OSError as error:
            raise BrokerSetupError(
                f"the embedded broker cannot listen on 127.0.0.1:{port} ({error}): "
                f"choose another port by RABBITMQ_PORT"
            ) from error
        address = settings.replace(host="127.0.0.1", port=server.port, tls=False)
        version = probe.version(address) or probe.EMBEDDED
        description = f"{version} on {address.host}:{address.port}"
        log(f"using the broker {description}; messages are gone when this process ends")
        return Broker(self.name, address, description, on_close=server.stop)

    def up(self, settings: Settings, timeout: float, log: Log) -> Broker:  # noqa: ARG002 -- as every kind
        """Refuse: it ends with the process that started it.

        Raises:
            BrokerSetupError: always; the error names two other commands.
        """
        raise BrokerSetupError(
            "the embedded broker ends with the process that started it, so it cannot be left "
            "running: give --broker embedded to the command that needs it, or let `mousetrap "
            "broker up --embedded` run for as long as it is needed"
        )

    def down(self, log: Log) -> bool:  # noqa: ARG002 -- as every kind
        """Return False: no such server runs outside the process that started it."""
        return False


def serve(settings: Settings, log: Log, *, with_parent: bool) -> None:
    """Run a server on the port of *settings* until SIGTERM or Ctrl-C."""
    run_until_signalled(_ServerProcess(settings, log), with_parent=with_parent)


class _ServerProcess:
    """The server in the form that `run_until_signalled` runs."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings, self._log = settings, log
        self._broker: Broker | None = None

    def start(self) -> None:
        port = self._settings.port
        self._broker = Embedded().join(self._settings, 0.0, self._log, port=port)

    def wait(self, _: float, /) -> bool:
        return False  # the server runs in a thread of its own

    def stop(self, _: float, /) -> None:
        if self._broker is not None:
            self._broker.close()

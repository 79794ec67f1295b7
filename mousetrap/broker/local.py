"""The kind *local*: a private node of the installed ``rabbitmq-server``.

`start` starts one that ends with this process. `Local.up` starts one that stays until
`Local.down`, on the port of the settings and with its data in the user's state folder; `Local.join`
finds that one again.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from mousetrap.broker import probe
from mousetrap.broker.broker import Broker, describe
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.configuration import LOOPBACK, configure, free_ports
from mousetrap.broker.executables import problem
from mousetrap.broker.paths import state_folder
from mousetrap.broker.probe import Log
from mousetrap.broker.rabbitmq_node import PORT_TAKEN, RabbitMQNode
from mousetrap.errors import AccessRefused, BrokerSetupError
from mousetrap.runtime import clock
from mousetrap.settings import Settings

MAX_STARTS = 3  # another program can take a free port before the node binds it

_started: WeakValueDictionary[int, RabbitMQNode] = WeakValueDictionary()  # by port


class Local:
    """Joins the node that stays, or starts one that ends with this process."""

    name = "local"
    is_in_process = False

    def status(self, settings: Settings) -> BrokerStatus:
        """Report on the node that `up` left running."""
        running = _staying_node(settings)
        reason = problem()
        return BrokerStatus(
            kind=self.name,
            is_available=reason is None,
            is_running=running is not None,
            address=f"{LOOPBACK}:{running.port}" if running else "",
            version=(probe.version(running) or "") if running else "",
            note=reason or "",
        )

    def join(self, settings: Settings, timeout: float, log: Log) -> Broker:
        """Return the node that `up` left running; without one, start a node for this process.

        Raises:
            AccessRefused: the running node was made with another user or password.
            BrokerSetupError: nothing can be started here, or the node was not ready in time.
        """
        deadline = clock.monotonic() + timeout
        if running := _wait_for_staying_node(settings, timeout, log):
            return describe(self.name, running, log)
        return start_private(settings, deadline - clock.monotonic(), log)

    def up(self, settings: Settings, timeout: float, log: Log) -> Broker:
        """Return the node that stays after this process, and start it if it does not run.

        Raises:
            BrokerSetupError: nothing can be started here, the port is taken, or the node was not
                ready in time.
        """
        return describe(self.name, start_staying(settings, timeout, log), log)

    def down(self, log: Log) -> bool:  # noqa: ARG002 -- as every kind
        """Stop the node that `up` left running, keep its data; return False if none ran."""
        if not _was_used():
            return False
        folder = state_folder()
        with _locked(folder):
            node = RabbitMQNode(folder, Settings(), detached=True)
            ran = node.is_supervised or node.sweep()
            node.close()
            return ran


def start_private(settings: Settings, timeout: float, log: Log) -> Broker:
    """Start a node that only this process uses; it ends with this process."""
    node = start(settings, timeout, log)
    return describe(Local.name, node.settings, log, node)


def start(settings: Settings, timeout: float, log: Log) -> RabbitMQNode:
    """Start a node on free ports that ends when this process ends, however it ends.

    Raises:
        BrokerSetupError: nothing can be started here, or the node did not start; says what to do.
    """
    _require_programs()
    deadline = clock.monotonic() + timeout
    for attempt in range(1, MAX_STARTS + 1):
        folder = Path(tempfile.mkdtemp(prefix="mousetrap-broker-"))  # mode 0700
        node = RabbitMQNode(folder, configure(folder, settings.replace(port=free_ports(1)[0])))
        atexit.register(node.close)
        try:
            node.start(deadline - clock.monotonic(), log)
        except BaseException as error:
            node.close()
            if PORT_TAKEN in str(error) and attempt < MAX_STARTS:
                log(f"{PORT_TAKEN}: trying again with others")
                continue
            raise
        _started[node.settings.port] = node
        return node
    raise AssertionError("unreachable: the last attempt returns or raises")


def started_here(settings: Settings) -> RabbitMQNode | None:
    """Return the node at the address of *settings* if this process started it for itself."""
    node = _started.get(settings.port)
    is_here = settings.host in (LOOPBACK, "localhost")
    return node if node is not None and is_here and node.is_supervised else None


def start_staying(settings: Settings, timeout: float, log: Log) -> Settings:
    """Start the node that stays after this process unless it runs; return how to reach it.

    Raises:
        BrokerSetupError: nothing can be started here, the port is taken, or the node did not start.
    """
    _require_programs()
    folder = state_folder()
    with _locked(folder):
        node = RabbitMQNode(folder, settings, detached=True)
        if running := _wait_for_staying_node(settings, timeout, log):
            return running
        node.sweep()  # if its supervisor was killed, the node may still run
        if not probe.is_free(settings.port):
            raise BrokerSetupError(
                f"port {settings.port} is taken by another program: stop that, or choose another "
                f"port, e.g. RABBITMQ_PORT={settings.port + 1}"
            )
        node.settings = configure(folder, settings)
        try:
            node.start(timeout, log)
        except AccessRefused as refused:
            node.close()
            raise BrokerSetupError(
                f"{refused}; the node's data were made with others: use those, or delete {folder}"
            ) from refused
        except BaseException:
            node.close()
            raise
        return node.settings


def _wait_for_staying_node(settings: Settings, timeout: float, log: Log) -> Settings | None:
    """Return how to reach the node that stays, once it is ready; None if it does not run.

    Raises:
        AccessRefused: it was made with another user or password.
        BrokerSetupError: it runs and is not ready in time.
    """
    running = _staying_node(settings)
    if running is not None:
        what = f"the private RabbitMQ that runs on {LOOPBACK}:{running.port}"
        deadline = clock.monotonic() + timeout
        probe.wait_until_ready(running, deadline, what, log, lambda: None)
    return running


def _staying_node(settings: Settings) -> Settings | None:
    """Return how to reach the node that stays; None if it does not run."""
    if not _was_used():
        return None
    folder = state_folder()
    if not RabbitMQNode(folder, settings, detached=True).is_supervised:
        return None
    spec = json.loads((folder / "spec.json").read_text())
    return settings.replace(host=LOOPBACK, port=spec["port"], tls=False)


def _require_programs() -> None:
    if reason := problem():
        raise BrokerSetupError(reason)


def _was_used() -> bool:
    return (state_folder() / "spec.json").exists()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time start or stop the node in *folder*; others wait."""
    from filelock import FileLock  # not at the top: it takes 30 ms to import

    with FileLock(folder / "up.lock"):
        yield

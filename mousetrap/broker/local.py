"""The local way: a private node of the ``rabbitmq-server`` that is installed here.

`start` makes one that ends with this process. `up` makes one that stays until `down`, on the port
of the settings and with its data in this user's state folder; `join` finds that one again.
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
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.configuration import LOOPBACK, configure, free_ports
from mousetrap.broker.executables import problem
from mousetrap.broker.paths import state_folder
from mousetrap.broker.probe import Say
from mousetrap.broker.rabbitmq_node import PORT_TAKEN, RabbitMQNode
from mousetrap.errors import AccessRefused, BrokerSetupError
from mousetrap.runtime import clock
from mousetrap.settings import Settings

_started: WeakValueDictionary[int, RabbitMQNode] = WeakValueDictionary()  # by port
TRIES = 3  # a free port can be taken by another program before the node gets to it


def start(settings: Settings, timeout: float, say: Say) -> RabbitMQNode:
    """Start a node on free ports that ends when this process ends, however it ends.

    Raises:
        BrokerSetupError: nothing to start here, or it did not come up; says what to do.
    """
    _require()
    deadline = clock.monotonic() + timeout
    for attempt in range(1, TRIES + 1):
        folder = Path(tempfile.mkdtemp(prefix="mousetrap-broker-"))  # mode 0700
        node = RabbitMQNode(folder, configure(folder, settings.replace(port=free_ports(1)[0])))
        atexit.register(node.close)
        try:
            node.start(deadline - clock.monotonic(), say)
        except BaseException as error:
            node.close()
            if PORT_TAKEN in str(error) and attempt < TRIES:
                say(f"{PORT_TAKEN}: trying again with others")
                continue
            raise
        _started[node.settings.port] = node
        return node
    raise AssertionError("unreachable: the last try returns or raises")


def started_here(settings: Settings) -> RabbitMQNode | None:
    """Return the node at the address of *settings* if this process started it for itself."""
    node = _started.get(settings.port)
    if node is None or settings.host not in (LOOPBACK, "localhost") or not node.is_kept:
        return None
    return node


def up(settings: Settings, timeout: float, say: Say) -> Settings:
    """Start a node that outlives this process, unless it runs already; return how to reach it.

    Raises:
        BrokerSetupError: nothing to start here, port taken, or it did not come up.
    """
    _require()
    folder = state_folder()
    with _alone(folder):
        node = RabbitMQNode(folder, settings, detached=True)
        if running := join(settings, timeout, say):
            return running
        node.sweep()  # of a keeper that was killed: its node may still run
        if not probe.is_free(settings.port):
            raise BrokerSetupError(
                f"port {settings.port} is taken by another program: stop that, or choose another "
                f"port, e.g. RABBITMQ_PORT={settings.port + 1}"
            )
        node.settings = configure(folder, settings)
        try:
            node.start(timeout, say)
        except AccessRefused as refused:
            node.close()
            raise BrokerSetupError(
                f"{refused}; the node's data were made with others: use those, or delete {folder}"
            ) from refused
        except BaseException:
            node.close()
            raise
        return node.settings


def down() -> bool:
    """Stop what `up` left running, keep its data; False if nothing ran."""
    if not _was_used():
        return False
    folder = state_folder()
    with _alone(folder):
        node = RabbitMQNode(folder, Settings(), detached=True)
        ran = node.is_kept or node.sweep()
        node.close()
        return ran


def join(settings: Settings, timeout: float, say: Say) -> Settings | None:
    """Return how to reach the node that `up` left running, once it is ready; None if there is none.

    Raises:
        AccessRefused: it was made with another user or password.
        BrokerSetupError: it runs and is not ready in time.
    """
    running = _address(settings)
    if running is not None:
        what = f"the private RabbitMQ that runs on {LOOPBACK}:{running.port}"
        deadline = clock.monotonic() + timeout
        probe.wait_until_ready(running, deadline, what, say, lambda: None)
    return running


def status(settings: Settings) -> BrokerStatus:
    """Report on the node that `up` left running."""
    reach = _address(settings)
    reason = problem()
    return BrokerStatus(
        kind="local",
        is_available=reason is None,
        is_running=reach is not None,
        address=f"{LOOPBACK}:{reach.port}" if reach else "",
        version=(probe.version(reach) or "") if reach else "",
        note=reason or "",
    )


def _require() -> None:
    if reason := problem():
        raise BrokerSetupError(reason)


def _was_used() -> bool:
    return (state_folder() / "spec.json").exists()


def _address(settings: Settings) -> Settings | None:
    if not _was_used():
        return None
    folder = state_folder()
    if not RabbitMQNode(folder, settings, detached=True).is_kept:
        return None
    spec = json.loads((folder / "spec.json").read_text())
    return settings.replace(host=LOOPBACK, port=spec["port"], tls=False)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second `up` or `down` waiting until the first is done."""
    import fcntl  # not at the top: this module is imported on Windows too

    with (folder / "up.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

"""A real kernel with a client, as notebooks, papermill and nbclient have one.

`Kernel` runs cells and tells for each what it showed, whichever cell was running when it came:
Jupyter routes output by the cell that it says it is of.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import time
import urllib.request
from dataclasses import dataclass, field
from queue import Empty

from jupyter_client.manager import KernelManager

from mousetrap.job_queue import depth

MANAGEMENT = "http://localhost:15672/api"  # where development.yml puts it
IMPORTS = """
import os, sys, threading, time
import mousetrap
from mousetrap import Message, Publisher, Queue, Settings, consume, drain
"""


@dataclass
class Cell:
    """What one cell showed, and how it ended."""

    id: str
    started: float = field(default_factory=time.monotonic)
    stdout: str = ""
    stderr: str = ""
    shown: list[dict[str, str]] = field(default_factory=list)  # mime bundles, in their order
    error: str = ""  # KeyboardInterrupt, ValueError, ...
    traceback: str = ""
    seconds: float | None = None  # None while it runs

    @property
    def result(self) -> str:
        """The text of what was shown last."""
        return self.shown[-1].get("text/plain", "") if self.shown else ""


class Kernel:
    """Starts a kernel of this Python in an environment of its own; a context manager."""

    def __init__(self, environment: dict[str, str] | None = None, folder: str | None = None):
        self._environment = os.environ | {"PYTHONPATH": os.pathsep.join(_path())}
        self._environment |= environment or {}
        self._folder = folder
        self._manager = KernelManager(kernel_name="python3")
        self._client = None
        self._cells: dict[str, Cell] = {}

    def __enter__(self) -> Kernel:
        self._manager.start_kernel(env=self._environment, cwd=self._folder)
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    @property
    def pid(self) -> int:
        return self._manager.provisioner.process.pid

    def run(self, code: str, timeout: float = 60.0) -> Cell:
        """Run a cell to its end; an error in it is an error here."""
        cell = self.finish(self.start(code), timeout)
        assert not cell.error, cell.traceback
        return cell

    def value(self, code: str, timeout: float = 60.0):
        """Return what *code* evaluates to, if its `repr` is Python."""
        return eval(self.run(code, timeout).result)

    def start(self, code: str) -> Cell:
        """Begin a cell and return at once."""
        cell = Cell(self._client.execute(code))
        self._cells[cell.id] = cell
        return cell

    def finish(self, cell: Cell, timeout: float = 60.0) -> Cell:
        """Return when *cell* has ended, well or with an error."""
        self.wait_for(lambda: cell.seconds is not None, timeout)
        return cell

    def wait_for(self, reached, timeout: float = 60.0) -> None:
        """Read what the kernel sends until *reached*."""
        deadline = time.monotonic() + timeout
        while not reached():
            left = deadline - time.monotonic()
            assert left > 0, "the kernel did not come to that in time"
            with contextlib.suppress(Empty):
                self._note(self._client.get_iopub_msg(timeout=min(left, 0.1)))

    def read(self, seconds: float) -> None:
        """Read what the kernel sends for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._note(self._client.get_iopub_msg(timeout=left))

    def interrupt(self) -> None:
        """What the stop button does."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """What the restart button does."""
        self._client.stop_channels()
        self._manager.restart_kernel()
        self._connect()

    def shutdown(self) -> None:
        """End it as the closing of a notebook does."""
        self._manager.shutdown_kernel()

    def kill(self) -> None:
        """End it by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self._manager.provisioner.process.wait()

    def _connect(self) -> None:
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        self.run(IMPORTS)

    def _note(self, message) -> None:
        cell = self._cells.get(message["parent_header"].get("msg_id"))
        content = message["content"]
        if cell is None:
            return
        match message["msg_type"]:
            case "stream" if content["name"] == "stdout":
                cell.stdout += content["text"]
            case "stream":
                cell.stderr += content["text"]
            case "display_data" | "execute_result" | "update_display_data":
                cell.shown.append(content["data"])
            case "error":
                cell.error, cell.traceback = content["ename"], "\n".join(content["traceback"])
            case "status" if content["execution_state"] == "idle":
                cell.seconds = time.monotonic() - cell.started


def _path() -> list[str]:
    """Where the package is, installed or not; what others said stays."""
    import mousetrap

    root = os.path.dirname(os.path.dirname(mousetrap.__file__))
    before = os.environ.get("PYTHONPATH")
    return [root, *([before] if before else [])]


# ---- what tests run in it, and what they ask of the broker ---------------------------------------

HANDLER = """
seen = globals().get("seen", [])
def work(n: int) -> int:
    seen.append(({version}, n))
    return n
"""
EVERYTHING = """
def work(seconds: float) -> float:
    begun.set()
    threading.Event().wait(seconds)
    return seconds
begun = threading.Event()
handle = consume("work", work, writes="out")
other = consume("other", work)
publisher = Publisher().open()
channel = mousetrap.open_channel()
@mousetrap.stage(reads="numbers")
def count(n: int) -> None: ...
run = mousetrap.run(count, Settings.from_environment()).start()
direct = count.start()
"""


def consumers(settings, queue="work"):
    return depth(queue, settings).consumers


def connections(settings, pid):
    """The names of this process's connections, as the broker's management knows them."""
    login = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
    request = urllib.request.Request(
        f"{MANAGEMENT}/connections", headers={"Authorization": f"Basic {login}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        names = [each["client_properties"].get("connection_name", "") for each in json.load(answer)]
    return [name for name in names if name.endswith(f"{socket.gethostname()}:{pid}")]


def has_management(settings):
    """The broker of the tests is the one whose management answers."""
    try:
        return settings.host in ("localhost", "127.0.0.1") and settings.port == 5672 and (
            connections(settings, 0) == []
        )  # fmt: skip
    except OSError:
        return False


def no_connections(settings, pid):
    """Neither a consumer nor a connection of that process is left."""
    if any(consumers(settings, queue) for queue in ("work", "other", "numbers")):
        return False
    return not has_management(settings) or connections(settings, pid) == []

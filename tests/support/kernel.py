"""A real kernel with a client, as notebooks, papermill and nbclient use one.

`Kernel` runs cells and collects the output of each, whichever cell ran when it arrived: Jupyter
assigns output to the cell that its message names, and updates of a display to the cells that show
it.
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
from pathlib import Path
from queue import Empty

from jupyter_client.manager import KernelManager

from mousetrap.job_queue import depth

MANAGEMENT = "http://localhost:15672/api"  # as in development.yml
IMPORTS = """
import os, sys, threading, time
import mousetrap
from mousetrap import Message, Publisher, Queue, Settings, consume, drain
"""


@dataclass
class Cell:
    """The output of one cell, and how it ended."""

    id: str
    started: float = field(default_factory=time.monotonic)
    stdout: str = ""
    stderr: str = ""
    shown: list[dict[str, str]] = field(default_factory=list)  # mime bundles, in their order
    error: str = ""  # KeyboardInterrupt, ValueError, ...
    traceback: str = ""
    seconds: float | None = None  # None while it runs
    ended: float = 0.0  # when the kernel said so, in seconds since the epoch, on its own clock

    @property
    def result(self) -> str:
        """The text of the last output."""
        return self.shown[-1].get("text/plain", "") if self.shown else ""


class Kernel:
    """Starts a kernel of this Python with an environment; a context manager."""

    def __init__(self, environment: dict[str, str] | None = None, folder: str | None = None):
        self._environment = os.environ | {"PYTHONPATH": os.pathsep.join(_path())}
        self._environment |= environment or {}
        self._folder = folder
        self._manager = KernelManager(kernel_name="python3")
        self._client = None
        self._cells: dict[str, Cell] = {}
        self._displays: dict[str, list[Cell]] = {}  # by their ids

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

    def queued(self) -> float:
        """Return for how many seconds its main thread has waited for a processor (Linux; or 0)."""
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    def run(self, code: str, timeout: float = 60.0) -> Cell:
        """Run a cell to its end; fail if it raises."""
        cell = self.finish(self.start(code), timeout)
        assert not cell.error, cell.traceback
        return cell

    def value(self, code: str, timeout: float = 60.0):
        """Return the value of *code*, whose `repr` must be Python."""
        return eval(self.run(code, timeout).result)

    def start(self, code: str) -> Cell:
        """Start a cell and return at once."""
        cell = Cell(self._client.execute(code))
        self._cells[cell.id] = cell
        return cell

    def finish(self, cell: Cell, timeout: float = 60.0) -> Cell:
        """Return when *cell* has ended, with or without an error."""
        self.read_until(lambda: cell.seconds is not None, timeout)
        return cell

    def read_until(self, condition, timeout: float = 60.0) -> None:
        """Read what the kernel sends until *condition* holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"the condition was not met in time ({timeout:g} s)"
            with contextlib.suppress(Empty):
                self._record(self._client.get_iopub_msg(timeout=min(left, 0.1)))

    def read(self, seconds: float) -> None:
        """Read what the kernel sends for *seconds*."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._record(self._client.get_iopub_msg(timeout=left))

    def interrupt(self) -> None:
        """Do what the stop button does."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """Do what the restart button does."""
        self._client.stop_channels()
        self._manager.restart_kernel()
        self._connect()

    def request_end(self, *, restart: bool) -> None:
        """Do the first step of a restart or a shutdown; what the kernel sends is still read."""
        self._client.shutdown(restart=restart)

    def shutdown(self) -> None:
        """End the kernel as closing the notebook does."""
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

    def _record(self, message) -> None:
        cell = self._cells.get(message["parent_header"].get("msg_id"))
        content = message["content"]
        display = content.get("transient", {}).get("display_id")
        match message["msg_type"]:
            case "update_display_data":  # of no cell, if the kernel ends
                for shown in self._displays.get(display, []):
                    shown.shown.append(content["data"])
            case _ if cell is None:
                return
            case "stream" if content["name"] == "stdout":
                cell.stdout += content["text"]
            case "stream":
                cell.stderr += content["text"]
            case "display_data" | "execute_result":
                cell.shown.append(content["data"])
                self._displays.setdefault(display, []).append(cell)
            case "error":
                cell.error, cell.traceback = content["ename"], "\n".join(content["traceback"])
            case "status" if content["execution_state"] == "idle":
                cell.seconds = time.monotonic() - cell.started
                cell.ended = message["header"]["date"].timestamp()


def _path() -> list[str]:
    """Return the folders for PYTHONPATH: the package's, and those that are set."""
    import mousetrap

    root = os.path.dirname(os.path.dirname(mousetrap.__file__))
    before = os.environ.get("PYTHONPATH")
    return [root, *([before] if before else [])]


# ---- cells for tests, and the broker's view of the kernel ----------------------------------------

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
    """Return the names of the connections of a process, from the broker's management API."""
    login = base64.b64encode(f"{settings.user}:{settings.password}".encode()).decode()
    request = urllib.request.Request(
        f"{MANAGEMENT}/connections", headers={"Authorization": f"Basic {login}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        names = [each["client_properties"].get("connection_name", "") for each in json.load(answer)]
    return [name for name in names if name.endswith(f"{socket.gethostname()}:{pid}")]


def has_management(settings):
    """Return whether the management API that answers is that of the tests' broker."""
    try:
        return settings.host in ("localhost", "127.0.0.1") and settings.port == 5672 and (
            connections(settings, 0) == []
        )  # fmt: skip
    except OSError:
        return False


def no_connections(settings, pid):
    """Return whether neither a consumer nor a connection of the process is left."""
    if any(consumers(settings, queue) for queue in ("work", "other", "numbers")):
        return False
    return not has_management(settings) or connections(settings, pid) == []

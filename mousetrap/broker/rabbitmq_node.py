"""A private RabbitMQ node: its folder, its ports, and its start, stop and end.

Nothing of the machine's own RabbitMQ is touched: the node has a folder of its own (mode 0700) with
its data, logs, configuration and Erlang cookie, an epmd of its own, and listens on 127.0.0.1 only.
No root is needed. A child process, `mousetrap.broker.node_supervisor`, keeps it; which node
to use and when is decided in `mousetrap.broker.local`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mousetrap.broker.configuration import LOOPBACK
from mousetrap.broker.probe import Say, say_on_stderr, wait_until_ready
from mousetrap.errors import BrokerSetupError
from mousetrap.runtime import clock
from mousetrap.settings import MASK, Settings

KEEPER = Path(__file__).with_name("node_supervisor.py")
PORT_TAKEN = "another program took one of its ports first"


class RabbitMQNode:
    """A node in *folder*, which `configure` has filled; tied to this process unless *detached*.

    A tied node dies with this process, however that dies, and its folder with it. `kill` and
    `start` play a crash and a recovery: same folder, same port, same messages. A detached node
    knows `start` and `close` only. Also a context manager.

    Threads: one at a time.
    """

    def __init__(self, folder: Path, settings: Settings, *, detached: bool = False) -> None:
        self.folder = folder
        self.settings = settings
        self.detached = detached
        self._owner = os.getpid()
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 120.0, say: Say = say_on_stderr) -> None:
        """Start the node, or start it again, and return when it gives a message back.

        Raises:
            BrokerSetupError: it ended instead, with its reason, or was not ready in time.
            AccessRefused: its data are from a time when user or password were others.
        """
        deadline = clock.monotonic() + timeout
        before = self.state().get("starts", 0) if self._keeper else 0
        self._order("start")
        what = f"the private RabbitMQ on {LOOPBACK}:{self.settings.port}"
        say(f"waiting for {what} to boot (usually 5 to 15 s)")
        wait_until_ready(self.settings, deadline, what, say, lambda: self._ended(before))

    def stop(self) -> None:
        """Stop the node properly and keep its folder, so that `start` finds its messages."""
        self._end_by("stop")

    def kill(self) -> None:
        """End the node as a power cut would (SIGKILL) and keep its folder."""
        self._end_by("kill")

    def close(self) -> None:
        """End node, epmd and keeper; a tied node's folder goes too. Safe to call twice.

        Does nothing in a forked child: the node is its parent's.
        """
        if os.getpid() != self._owner:
            return
        if self.detached:
            if self.is_kept:
                self._wait_until(lambda: bool(self.state()), "the node's keeper to report")
                os.kill(self.state()["keeper"], signal.SIGTERM)
                self._wait_until(lambda: not self.is_kept, "the node's keeper to end")
        elif self._keeper is not None:
            assert self._keeper.stdin is not None
            with suppress(OSError):  # a keeper that was killed reads no more
                self._keeper.stdin.close()
            self._keeper.wait()
        self.sweep()
        if not self.detached:
            shutil.rmtree(self.folder, ignore_errors=True)

    def rabbitmqctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run ``rabbitmqctl`` against this node and return what it printed.

        Raises:
            BrokerSetupError: it failed; with its last line.
        """
        spec = self._spec()
        done = subprocess.run(
            [str(Path(spec["server"]).with_name("rabbitmqctl")), "-q", *arguments],
            env=spec["environment"], cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            raise BrokerSetupError(f"rabbitmqctl {' '.join(arguments[:1])} failed: {lines[-1]}")
        return done.stdout

    @property
    def pid(self) -> int | None:
        """The process id of the running node, None if it is stopped."""
        pid: int | None = self.state().get("node")
        return pid if self.is_kept else None

    @property
    def is_kept(self) -> bool:
        """A keeper lives and holds the lock on the folder."""
        import fcntl  # not at the top: this module is imported on Windows too

        try:
            with (self.folder / "lock").open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two may ask
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def state(self) -> dict[str, Any]:
        """What the keeper last reported: process ids, number of starts, exit code."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        except OSError:
            return {}
        return state

    def __enter__(self) -> RabbitMQNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid else "stopped"
        return f"<RabbitMQNode {LOOPBACK}:{self.settings.port}, {state}>"

    def _order(self, order: str) -> None:
        if self._keeper is None or self.detached:
            self._keeper = self._start_keeper()
        if self.detached:  # its keeper starts the node at once, and takes no orders but a signal
            return
        assert self._keeper.stdin is not None
        try:
            self._keeper.stdin.write(f"{order}\n".encode())
        except OSError:
            raise BrokerSetupError("the private node's keeper is gone: make a new node") from None

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        with suppress(FileNotFoundError):
            (self.folder / "state.json").unlink()
        command = [sys.executable, "-I", str(KEEPER), str(self.folder)]
        complaints = (self.folder / "keeper.txt").open("wb")
        with complaints:
            keeper = subprocess.Popen(
                command + ["--detached"] * self.detached,
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
                stdout=complaints, stderr=complaints, bufsize=0,
                start_new_session=True,  # Ctrl-C is for us; the node ends after our last message
            )  # fmt: skip
        if self.detached:
            keeper.wait()  # its child is the one that stays
        else:
            assert keeper.stdin is not None
            # A forked child must not hold the pipe, and with it the node, open after our death.
            os.register_at_fork(after_in_child=keeper.stdin.close)
        return keeper

    def _ended(self, starts_before: int) -> str | None:
        state = self.state()
        if state.get("starts", 0) <= starts_before:
            if self._keeper and (self._keeper.poll() or 0) > 0:
                return f"the keeper of the private node failed: {_tail(self.folder / 'keeper.txt')}"
            return None
        if state["node"] is not None:
            return None
        reason = _reason(self.folder).replace(self.settings.password or "\0", MASK)
        return f"the private RabbitMQ ended while booting (exit code {state['exit']}): {reason}"

    def _end_by(self, order: str) -> None:
        if self.pid is not None:
            self._order(order)
            self._wait_until(lambda: self.pid is None, "the private node to stop")

    def _wait_until(self, happened: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        deadline = clock.monotonic() + timeout
        while not happened():
            if clock.monotonic() > deadline:
                raise BrokerSetupError(
                    f"waited {timeout:g} s in vain for {what}: see {self.folder}"
                )
            clock.sleep(0.02)

    def sweep(self) -> bool:
        """End what a keeper left behind that was itself killed; True if there was something."""
        state = self.state()
        if not state:
            return False
        epmd_port = self._spec()["environment"]["ERL_EPMD_PORT"]
        marks = {"node": str(self.folder), "epmd": f"-port {epmd_port}"}
        found = [
            pid
            for role, mark in marks.items()
            if (pid := state.get(role)) and mark in _command_line(pid)  # still the same process
        ]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(found)

    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads((self.folder / "spec.json").read_text())
        return spec


def _command_line(pid: int) -> str:
    with suppress(OSError):  # Linux; elsewhere there is no /proc, but there is `ps`
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    with suppress(OSError):
        return subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    return ""


def _tail(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"
    return "it said nothing"


def _reason(folder: Path) -> str:
    """Say why the node did not boot, out of the pages that it printed."""
    with suppress(OSError):
        output = (folder / "output.txt").read_text(errors="replace")
        if re.search("eaddrinuse|dist_port_already_used", output):
            return PORT_TAKEN
        for line in output.splitlines():
            if "error" in line.lower():
                return line.strip()[:300]
    return _tail(folder / "output.txt")

"""A private RabbitMQ node: its folder, its ports, and how it is started, stopped and ended.

It does not touch the machine's own RabbitMQ: the node has its own folder (mode 0700) with its
data, logs, configuration and Erlang cookie, its own epmd, and listens on 127.0.0.1 only. It needs
no root. A child process, `mousetrap.broker.node_supervisor`, runs it; `mousetrap.broker.local`
decides which node is used.
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
from mousetrap.broker.probe import Log, wait_until_ready
from mousetrap.display.notices import print_notice
from mousetrap.errors import BrokerSetupError
from mousetrap.runtime import clock
from mousetrap.settings import MASK, Settings

SUPERVISOR = Path(__file__).with_name("node_supervisor.py")
SUPERVISOR_OUTPUT = "supervisor.txt"
STATE_TIMEOUT = 60.0  # seconds for a stop; a node gets 30 to stop properly
PORT_TAKEN = "another program took one of its ports first"


class RabbitMQNode:
    """A node in *folder*, which `configure` has filled; tied to this process unless *detached*.

    A tied node and its folder go when this process ends, however it ends. `kill` and `start`
    simulate a crash and a recovery: same folder, same port, same messages. A detached node has
    `start` and `close` only. Also a context manager.

    Threads: one at a time.
    """

    def __init__(self, folder: Path, settings: Settings, *, detached: bool = False) -> None:
        self.folder = folder
        self.settings = settings
        self.detached = detached
        self._owner = os.getpid()
        self._supervisor: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 120.0, log: Log = print_notice) -> None:
        """Start the node, or start it again, and return when a message has gone to it and back.

        Raises:
            BrokerSetupError: it ended instead, with its reason, or was not ready in time.
            AccessRefused: its data were made with another user or password.
        """
        deadline = clock.monotonic() + timeout
        starts_before = self.state().get("starts", 0) if self._supervisor else 0
        self._send("start")
        what = f"the private RabbitMQ on {LOOPBACK}:{self.settings.port}"
        log(f"waiting for {what} to boot (usually 5 to 15 s)")
        wait_until_ready(
            self.settings, deadline, what, log, lambda: self._exit_reason(starts_before)
        )

    def stop(self) -> None:
        """Stop the node properly and keep its folder with its messages for the next `start`."""
        self._end("stop")

    def kill(self) -> None:
        """End the node as a power cut would (SIGKILL) and keep its folder."""
        self._end("kill")

    def close(self) -> None:
        """End node, epmd and supervisor, and delete the folder of a tied node.

        May be called twice. Does nothing in a forked child: the node belongs to the parent process.
        """
        if os.getpid() != self._owner:
            return
        if self.detached:
            if self.is_supervised:
                self._wait_until(lambda: bool(self.state()), "the node's supervisor to report")
                os.kill(self.state()["supervisor"], signal.SIGTERM)
                self._wait_until(lambda: not self.is_supervised, "the node's supervisor to end")
        elif self._supervisor is not None:
            assert self._supervisor.stdin is not None
            with suppress(OSError):  # a supervisor that was killed has closed it
                self._supervisor.stdin.close()
            self._supervisor.wait()
        self.sweep()
        if not self.detached:
            shutil.rmtree(self.folder, ignore_errors=True)

    def rabbitmqctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run ``rabbitmqctl`` against this node and return what it printed.

        Raises:
            BrokerSetupError: it failed; the error has its last line.
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
        return pid if self.is_supervised else None

    @property
    def is_supervised(self) -> bool:
        """Whether a supervisor runs and holds the lock on the folder."""
        if sys.platform == "win32":  # no private node runs there: `executables.problem`
            return False
        import fcntl  # not at the top: this module is imported on Windows too

        try:
            with (self.folder / "lock").open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two processes may ask
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def state(self) -> dict[str, Any]:
        """Return what the supervisor last reported: process ids, number of starts, exit code."""
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

    def _send(self, command: str) -> None:
        if self._supervisor is None or self.detached:
            self._supervisor = self._start_supervisor()
        if self.detached:  # its supervisor starts the node at once, and accepts signals only
            return
        assert self._supervisor.stdin is not None
        try:
            self._supervisor.stdin.write(f"{command}\n".encode())
        except OSError:
            raise BrokerSetupError(
                "the private node's supervisor is gone: make a new node"
            ) from None

    def _start_supervisor(self) -> subprocess.Popen[bytes]:
        with suppress(FileNotFoundError):
            (self.folder / "state.json").unlink()
        command = [sys.executable, "-I", str(SUPERVISOR), str(self.folder)]
        output = (self.folder / SUPERVISOR_OUTPUT).open("wb")
        with output:
            supervisor = subprocess.Popen(
                command + ["--detached"] * self.detached,
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE,
                stdout=output, stderr=output, bufsize=0,
                start_new_session=True,  # Ctrl-C must not end the node before this process
            )  # fmt: skip
        if self.detached:
            supervisor.wait()  # its child is the process that stays
        else:
            assert supervisor.stdin is not None
            # A forked child that held the pipe open would keep the node alive after this process.
            if sys.platform != "win32":  # there is no fork
                os.register_at_fork(after_in_child=supervisor.stdin.close)
        return supervisor

    def _exit_reason(self, starts_before: int) -> str | None:
        state = self.state()
        if state.get("starts", 0) <= starts_before:
            if self._supervisor and (self._supervisor.poll() or 0) > 0:
                error = _last_line(self.folder / SUPERVISOR_OUTPUT)
                return f"the supervisor of the private node failed: {error}"
            return None
        if state["node"] is not None:
            return None
        reason = _boot_error(self.folder).replace(self.settings.password or "\0", MASK)
        return f"the private RabbitMQ ended while booting (exit code {state['exit']}): {reason}"

    def _end(self, command: str) -> None:
        if self.pid is not None:
            self._send(command)
            self._wait_until(lambda: self.pid is None, "the private node to stop")

    def _wait_until(
        self, condition: Callable[[], bool], what: str, timeout: float = STATE_TIMEOUT
    ) -> None:
        deadline = clock.monotonic() + timeout
        while not condition():
            if clock.monotonic() > deadline:
                raise BrokerSetupError(f"waited {timeout:g} s for {what}: see {self.folder}")
            clock.sleep(0.02)

    def sweep(self) -> bool:
        """End what a killed supervisor left running; return whether anything was."""
        state = self.state()
        if not state or sys.platform == "win32":  # no private node runs there
            return False
        epmd_port = self._spec()["environment"]["ERL_EPMD_PORT"]
        arguments = {"node": str(self.folder), "epmd": f"-port {epmd_port}"}
        found = [
            pid
            for role, argument in arguments.items()
            if (pid := state.get(role)) and argument in _command_line(pid)  # still the same process
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


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it printed nothing"
    return "it printed nothing"


def _boot_error(folder: Path) -> str:
    """Return why the node did not boot, from the pages that it printed."""
    with suppress(OSError):
        output = (folder / "output.txt").read_text(errors="replace")
        if re.search("eaddrinuse|dist_port_already_used", output):
            return PORT_TAKEN
        for line in output.splitlines():
            if "error" in line.lower():
                return line.strip()[:300]
    return _last_line(folder / "output.txt")

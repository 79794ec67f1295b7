"""The process that runs one private RabbitMQ node and ends it when it is no longer needed.

Runs as a program of its own, ``python node_supervisor.py FOLDER [--detached]``;
`mousetrap.broker.rabbitmq_node` starts it and reads the ``state.json`` that it writes. It has two
modes:

- *tied* (the default): the caller holds the other end of the pipe on stdin and sends the lines
  ``start``, ``stop`` and ``kill``. End of file means that the caller is gone, however it ended
  (SIGKILL closes pipes too): the supervisor kills the node and deletes the folder.
- *detached*: it goes to the background, starts the node at once, and ends on SIGTERM or with the
  node. It stops the node properly and keeps the folder, because the messages in it are still
  needed.

While it lives it holds a lock on ``FOLDER/lock``. The lock proves that the node has a supervisor; a
process id does not, because the system gives it to another program later.

It uses the standard library alone, `fcntl.flock` instead of `filelock` included: it starts under
``python -I`` in a few hundredths of a second, stays in memory as long as the node, and must work
when site-packages is replaced under a node that stays. POSIX only.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

assert sys.platform != "win32"  # also for type checkers: they skip the rest there

NODE_STOP_TIMEOUT = 30.0  # seconds; a guess: RabbitMQ on an idle laptop needs one or two
EPMD_ATTEMPTS = 100  # of 0.05 seconds
LOCK_ATTEMPTS = 50  # of 0.1 seconds
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class NodeSupervisor:
    """Runs the node and its epmd (Erlang's port mapper) as child processes and reports on them."""

    def __init__(self, folder: Path, detached: bool) -> None:
        self.folder = folder
        self.detached = detached
        spec = json.loads((folder / "spec.json").read_text())
        self.server: str = spec["server"]
        self.epmd_program: str = spec["epmd"]
        self.environment: dict[str, str] = spec["environment"]
        self.node: subprocess.Popen[bytes] | None = None
        self.epmd: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.exit_code: int | None = None

    def run(self) -> None:
        """Run until the caller is gone (tied), or until a signal or the node's end (detached)."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wake-up descriptor reports it
        watched = [reader] if self.detached else [reader, sys.stdin.fileno()]
        self.report()  # this process's id, before anything can fail
        try:
            if self.detached:
                self.start()
            while True:
                self.report()
                ready, _, _ = select.select(watched, [], [])
                if reader in ready and STOP_SIGNALS & set(os.read(reader, 512)):
                    return
                self.reap()
                if self.detached and self.node is None:
                    return
                if not self.detached and sys.stdin.fileno() in ready and not self.run_commands():
                    return
        finally:
            self.end()

    def run_commands(self) -> bool:
        """Run the commands that came through the pipe; return False at its end."""
        commands = os.read(sys.stdin.fileno(), 512).decode().split()
        for command in commands:
            {"start": self.start, "stop": self.stop, "kill": self.kill}[command]()
        return bool(commands)

    def start(self) -> None:
        """Start epmd and the node, unless they run."""
        self.starts += 1
        if self.epmd is None or self.epmd.poll() is not None:
            port = self.environment["ERL_EPMD_PORT"]
            self.epmd = self._spawn("epmd.txt", self.epmd_program, "-port", port)
            if not self._epmd_answers(int(port)):
                (self.folder / "output.txt").write_text(f"epmd, port {port}: eaddrinuse\n")
                self.exit_code, self.epmd = 1, None
                return
        if self.node is None:
            self.exit_code = None
            self.node = self._spawn("output.txt", self.server)

    def stop(self) -> None:
        """Stop the node with SIGTERM; after `NODE_STOP_TIMEOUT` seconds, kill it."""
        if self.node is not None:
            self.node.send_signal(signal.SIGTERM)
            try:
                self.node.wait(NODE_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
            self.reap()

    def kill(self) -> None:
        """Kill the node and the processes that it started; they cannot clean up."""
        if self.node is not None:
            os.killpg(self.node.pid, signal.SIGKILL)
            self.node.wait()
            self.reap()

    def reap(self) -> None:
        """Record the exit code of a node that has ended."""
        if self.node is not None and self.node.poll() is not None:
            self.exit_code, self.node = self.node.returncode, None

    def end(self) -> None:
        """End the node, then its epmd; then delete the folder of a tied node."""
        self.stop() if self.detached else self.kill()
        if self.epmd is not None:
            self.epmd.kill()
            self.epmd.wait()
            self.epmd = None
        if self.detached:
            self.report()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def report(self) -> None:
        """Write ``state.json`` in one step: a reader never sees half of it."""
        state = {
            "supervisor": os.getpid(),
            "node": self.node and self.node.pid,
            "epmd": self.epmd and self.epmd.pid,
            "starts": self.starts,
            "exit": self.exit_code,
        }
        draft = self.folder / "state.json.new"
        draft.write_text(json.dumps(state))
        draft.replace(self.folder / "state.json")

    def _spawn(self, output: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / output).open("wb") as file:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # `kill` reaches its child processes, Ctrl-C does not
            )

    def _epmd_answers(self, port: int) -> bool:
        """Wait until our epmd answers; return False if another program has its port.

        A node that finds no epmd starts one as a daemon, which would stay for ever; a node that
        finds another program on the port hangs.
        """
        assert self.epmd is not None
        for _ in range(EPMD_ATTEMPTS):
            time.sleep(0.05)
            if self.epmd.poll() is not None:  # it could not bind
                return False
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                continue
            return True
        return False


def lock(path: Path) -> IO[str]:
    """Take the lock or exit; retry, because a process that tests the lock holds it briefly."""
    handle = path.open("w")
    for _ in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return handle
    sys.exit(f"another supervisor holds {path}")


def main() -> None:
    """Run the node in the folder named on the command line."""
    folder, detached = Path(sys.argv[1]), "--detached" in sys.argv[2:]
    os.umask(0o077)
    if detached and os.fork():  # the caller waits for this process, the child stays
        os._exit(0)
    held = lock(folder / "lock")
    try:
        NodeSupervisor(folder, detached).run()
    finally:
        held.close()


if __name__ == "__main__":
    main()

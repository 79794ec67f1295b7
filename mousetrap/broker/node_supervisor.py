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

STOP_TIME = 30.0  # seconds; a guess: RabbitMQ on an idle laptop needs one or two
ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class NodeSupervisor:
    """Holds the node and its epmd (Erlang's port mapper) as children and reports on them."""

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
        """Obey until the caller is gone (tied), or until a signal or the node's end (detached)."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (*ENDING, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wake-up descriptor carries the news
        watched = [reader] if self.detached else [reader, sys.stdin.fileno()]
        self.report()  # who keeps, before anything can go wrong
        try:
            if self.detached:
                self.start()
            while True:
                self.report()
                ready, _, _ = select.select(watched, [], [])
                if reader in ready and ENDING & set(os.read(reader, 512)):
                    return
                self.reap()
                if self.detached and self.node is None:
                    return
                if not self.detached and sys.stdin.fileno() in ready and not self.obey():
                    return
        finally:
            self.end()

    def obey(self) -> bool:
        """Carry out what came through the pipe; False at its end."""
        orders = os.read(sys.stdin.fileno(), 512).decode().split()
        for order in orders:
            {"start": self.start, "stop": self.stop, "kill": self.kill}[order]()
        return bool(orders)

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
        """Let the node close its files and end; after `STOP_TIME` seconds, kill it."""
        if self.node is not None:
            self.node.send_signal(signal.SIGTERM)
            try:
                self.node.wait(STOP_TIME)
            except subprocess.TimeoutExpired:
                self.kill()
            self.reap()

    def kill(self) -> None:
        """End the node and what it spawned without a chance to clean up."""
        if self.node is not None:
            os.killpg(self.node.pid, signal.SIGKILL)
            self.node.wait()
            self.reap()

    def reap(self) -> None:
        """Notice a node that has ended."""
        if self.node is not None and self.node.poll() is not None:
            self.exit_code, self.node = self.node.returncode, None

    def end(self) -> None:
        """Leave nothing behind: first the node, then its epmd, then the folder."""
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
        """Write ``state.json`` in one step, so that a reader never sees half of it."""
        state = {
            "keeper": os.getpid(),
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
                start_new_session=True,  # so that `kill` reaches its helpers, and Ctrl-C does not
            )

    def _epmd_answers(self, port: int) -> bool:
        """Wait until our epmd answers; False if another program has its port.

        Needed because a node that finds no epmd starts one as a daemon, which nobody would end, and
        one that finds something else there hangs.
        """
        assert self.epmd is not None
        for _ in range(100):  # 5 seconds
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
    """Take the lock or end; whoever only asks whether it is held holds it for a moment too."""
    handle = path.open("w")
    for _ in range(50):  # 5 seconds
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return handle
    sys.exit(f"another keeper holds {path}")


def main() -> None:
    """Keep the node in the folder named on the command line."""
    folder, detached = Path(sys.argv[1]), "--detached" in sys.argv[2:]
    os.umask(0o077)
    if detached and os.fork():  # the caller waits for this process, not for the one that stays
        os._exit(0)
    held = lock(folder / "lock")
    try:
        NodeSupervisor(folder, detached).run()
    finally:
        held.close()


if __name__ == "__main__":
    main()

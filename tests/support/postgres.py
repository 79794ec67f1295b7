"""A PostgreSQL server for the tests, with its data in a folder of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mousetrap.broker.configuration import free_ports
from mousetrap.pytest_plugin import missing
from support.waiting import wait_for

try:
    import psycopg
except ImportError:
    psycopg = None

PASSWORD = "c4n4ry-pg"  # must not appear in any text
# The shell stops the server when its input ends, however this process ends.
LIFELINE = '"$@" & read _; kill -QUIT $!; wait'


class Postgres:
    """Starts a server and stops it with its ``with`` block; `url` creates a database."""

    def __enter__(self) -> Postgres:
        if psycopg is None:
            missing("no psycopg: pip install 'mousetrap-mq[postgres]'")
        self._programs = programs()
        # not in pytest's folders, which other users cannot read
        self.folder = Path(tempfile.mkdtemp(prefix="mousetrap-postgres-"))
        self.port = free_ports(1)[0]
        self._user = None
        if os.getuid() == 0:  # PostgreSQL does not run as root
            import pwd  # not at the top: Windows has no such module, and imports this one

            names = {each.pw_name for each in pwd.getpwall()}
            self._user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(self.folder, self._user)
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = self.folder / "data"
        subprocess.run(
            [self._programs / "initdb", "-D", data, "-U", "owner", "-A", "scram-sha-256",
             "--pwfile", secret, "--no-sync", "-E", "UTF8", "--locale=C"],
            user=self._user, cwd=self.folder, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", LIFELINE, "sh", self._programs / "postgres", "-D", data,
                 "-p", str(self.port), "-k", self.folder, "-h", "127.0.0.1", "-F"],
                user=self._user, cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(self._answers, 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)  # closes the input of the shell
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(psycopg.OperationalError):
            return self.ask("SELECT 1") == [(1,)]
        return False

    def url(self) -> str:
        name = f"rig_{secrets.token_hex(4)}"
        self.ask(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://owner:{password}@127.0.0.1:{self.port}/{database}"

    def ask(self, sql: str) -> list[tuple]:
        """Run a statement on a connection of its own, and return the rows."""
        with psycopg.connect(self.address(), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def waiting(self) -> int:
        """Return how many sessions wait for a lock."""
        [[count]] = self.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return count

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes of the server with SIGSTOP while the block runs."""
        postmaster = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", postmaster],
                                capture_output=True, text=True, check=True)  # fmt: skip
        pids = [int(pid) for pid in (postmaster, *listed.stdout.split())]
        try:
            self._send(signal.SIGSTOP, pids)
            yield
        finally:
            self._send(signal.SIGCONT, pids)

    def _send(self, number: int, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a session that has just ended
                os.kill(pid, number)

    def disconnect(self) -> None:
        """End the connections of all sinks."""
        self.ask("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                 "WHERE application_name = 'mousetrap sink'")  # fmt: skip


def programs() -> Path:
    """Return the folder of the server's programs, which Debian does not have on the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if folders := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return folders[-1].parent
    missing("no PostgreSQL server: apt-get install postgresql")
    raise AssertionError

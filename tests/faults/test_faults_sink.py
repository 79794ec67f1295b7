"""Faults of a sink's database or file: frozen, slow, gone, locked, full, and back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig.slow_link import SlowLink
from rig.trial import trial_counts
from support.postgres import Postgres
from support.waiting import wait_for

from mousetrap import Sink
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import SinkBusy
from mousetrap.job_queue import declare
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

TIMEOUT = 2.0  # seconds; also the shortest for a login


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as server:
        yield server


def seconds_until_busy(sink: Sink, id: str) -> tuple[float, str]:
    started = time.monotonic()
    with pytest.raises(SinkBusy) as caught:
        sink.store(1, Message(id=id))
    return time.monotonic() - started, str(caught.value)


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_frozen_database(postgres, fault_row, times):
    """Each store of several threads fails within its time-out, and names the cause."""
    with Sink(postgres.url(), timeout=TIMEOUT) as sink:
        for n in range(times):
            assert sink.store(n, Message(id=f"before {n}"))
            with postgres.frozen(), ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda k: seconds_until_busy(sink, f"{k}"), range(4)))
            assert max(seconds for seconds, _ in found) < TIMEOUT + 1
            assert all("frozen" in text for _, text in found), found
            assert sink.store(n, Message(id=f"after {n}"))
            fault_row.trials += 1


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_login_to_a_frozen_database(postgres, fault_row, times):
    """A sink that was not used before fails within its time-out, too."""
    url = postgres.url()
    for _ in range(times):
        with postgres.frozen(), Sink(url, timeout=TIMEOUT) as sink:
            seconds, text = seconds_until_busy(sink, "a")
        assert seconds < TIMEOUT + 1
        assert "did not answer" in text
        fault_row.trials += 1


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_worker_beside_a_frozen_database(settings, postgres, fault_row, times):
    """Messages without the sink go on, those with it are retried, and the problem is named."""
    queue = Queue("work", (0.2,) * 100)
    with Sink(postgres.url(), timeout=TIMEOUT) as sink:

        def keep(n: int) -> None:
            if n % 2:
                sink.store(n)

        sink.store(0, Message(id="first"))
        declare(queue, settings=settings)
        with Worker(queue, keep, settings, concurrency=3) as worker, Publisher(settings) as sends:
            for n in range(times):
                done = 12 * n
                with postgres.frozen():
                    sends.publish_until_confirmed([Message(k) for k in range(12)], "work")
                    # half of them need no sink
                    worker.wait_until(done=done + 6, timeout=30)
                    wait_for(lambda: "frozen" in worker.statistics().problem)
                worker.wait_until(done=done + 12, timeout=30)
                wait_for(lambda: not worker.statistics().problem)
                fault_row.trials += 1
                fault_row.messages += 12
            assert worker.statistics().dead == 0
        assert len(sink) == 1 + 6 * times


@pytest.fixture
def link(postgres):
    """A link to the server, and the URL of a database at its other end."""
    with SlowLink(postgres.port) as link:
        yield link, postgres.url().replace(f":{postgres.port}/", f":{link.port}/")


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_slow_database(link, fault_row, times):
    """Each statement is answered within the time-out, all together are not: the call ends in it."""
    server, url = link
    with Sink(url, timeout=TIMEOUT) as sink:
        for n in range(times):
            assert sink.store(n, Message(id=f"before {n}"))
            server.delay = 0.8
            seconds, text = seconds_until_busy(sink, f"slow {n}")
            server.delay = 0.0
            assert seconds < TIMEOUT + 1
            assert "did not answer" in text
            sink.store(n, Message(id=f"slow {n}"))  # perhaps it was stored
            assert not sink.store(n, Message(id=f"slow {n}"))
            fault_row.trials += 1
        assert len(sink) == 2 * times


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_database_gone(settings, link, fault_row, times):
    """It ends its sessions and refuses new ones: retried, named, and stored when it is back."""
    queue = Queue("work", (0.2,) * 100)
    server, url = link
    declare(queue, settings=settings)
    with Sink(url, timeout=TIMEOUT) as sink, Publisher(settings) as publisher:

        def keep(n: int) -> None:
            sink.store(n)

        with Worker(queue, keep, settings) as worker:
            for n in range(times):
                server.is_refusing = True
                server.cut()
                publisher.publish_until_confirmed([Message(n, id=f"{n}")], "work")
                wait_for(lambda: "cannot be used as a sink" in worker.statistics().problem)
                server.is_refusing = False
                worker.wait_until(done=n + 1, timeout=30)
                wait_for(lambda: not worker.statistics().problem)
                fault_row.trials += 1
                fault_row.messages += 1
            assert worker.statistics().dead == 0
        assert len(sink) == times


LOCKED = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
input()
"""


@contextlib.contextmanager
def locked(path):
    """Let another process hold the lock of the file *path* for writing."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "locked\n"
        yield
        process.communicate("\n", timeout=20)


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_file_locked_by_another_process(tmp_path, fault_row, times):
    """A call ends in its time-out and names the file, also the one that opens it."""
    path = tmp_path / "results.db"
    for n in range(times):
        with Sink(path, timeout=TIMEOUT) as opened, Sink(path, timeout=TIMEOUT) as new:
            assert opened.store(n, Message(id=f"before {n}"))
            with locked(path):
                for sink in (opened, new):
                    seconds, text = seconds_until_busy(sink, f"{n}")
                    assert TIMEOUT - 0.5 < seconds < TIMEOUT + 1
                    assert "another process held" in text
            assert new.store(n, Message(id=f"after {n}"))
        fault_row.trials += 1


@pytest.mark.fault("F49")
@trial_counts(1, 20)
def test_disk_of_the_file_full(settings, tmp_path, fault_row, times):
    """The message is retried, the problem is named, and it is stored when there is room again."""
    queue = Queue("work", (0.2,) * 100)
    sink = Sink(tmp_path / "results.db", timeout=TIMEOUT)
    declare(queue, settings=settings)

    def keep(n: int) -> None:
        sink.store("x" * 100_000)

    with sink, Worker(queue, keep, settings) as worker, Publisher(settings) as publisher:
        sink.store(0, Message(id="first"))
        for n in range(times):
            [[pages]] = sink._connection.execute("PRAGMA page_count").fetchall()
            sink._connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLITE_FULL
            publisher.publish_until_confirmed([Message(n, id=f"{n}")], "work")
            wait_for(lambda: "full" in worker.statistics().problem)
            sink._connection.execute("PRAGMA max_page_count = 1000000")
            worker.wait_until(done=n + 1, timeout=30)
            wait_for(lambda: not worker.statistics().problem)
            fault_row.trials += 1
            fault_row.messages += 1
        assert worker.statistics().dead == 0
        assert len(sink) == 1 + times

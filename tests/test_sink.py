"""A sink has each message's effect once: after kills, among threads, among processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mousetrap import Sink, stage
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.message import Message
from mousetrap.publisher import Publisher
from mousetrap.topology import Queue

# Dies between its effect and the ack, once for each message.
MORTAL = """
import os, signal, sys
from mousetrap import Sink, Worker
from mousetrap.lifetime import run_until_told

sink = Sink(sys.argv[1])

def keep(n: int) -> bool:
    fresh = sink.store(n)
    if fresh and n < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return fresh

run_until_told(Worker("work", keep, writes="out", prefetch=1))
"""

WRITER = """
import sys
from mousetrap import Message, Sink

sink = Sink(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(sum(sink.store(n, Message(n, id=f"id-{n}")) for n in range(200)))
"""


@pytest.fixture
def sink(tmp_path):
    with Sink(tmp_path / "results.db") as sink:
        yield sink


def test_store_swallows_a_duplicate(sink):
    """The first result stays; a message with another id is another result."""
    assert sink.store({"n": 1}, Message(id="a", job="j"))
    assert not sink.store({"n": 2}, Message(id="a"))
    assert sink.store(None, Message(id="b"))

    rows = sink.rows()
    assert [(row["id"], row["job"], row["data"]) for row in rows] == [
        ("a", "j", {"n": 1}),
        ("b", "b", None),
    ]
    assert (len(sink), len(sink.rows(1))) == (2, 1)
    assert "results.db" in repr(sink)


def test_sink_keeps_what_it_has_when_opened_again(sink):
    """What was stored is in the file, for the next process."""
    sink.store(1, Message(id="a"))
    sink.close()

    assert not Sink(sink.path).store(1, Message(id="a"))


def test_names_are_sinks_of_their_own(sink):
    """Two stages that store the same message do not take each other's for a duplicate."""
    assert sink.store(1, Message(id="a"))
    with Sink(sink.path, "other") as other:
        assert other.store(1, Message(id="a"))


def test_once_commits_effect_and_id_together(sink):
    """The SQL inside is done once, and reads see what it wrote."""
    with sink.once(Message(id="setup")) as transaction:
        transaction.execute("CREATE TABLE stock (n INTEGER)")
        transaction.execute("INSERT INTO stock VALUES (?)", (10,))
    for _ in range(2):
        with sink.once(Message(id="a")) as transaction:
            if transaction:
                transaction.execute("UPDATE stock SET n = n - 1")

    with sink.once(Message(id="look")) as transaction:
        assert transaction.execute("SELECT n FROM stock") == [(9,)]


def test_once_takes_all_back_when_something_raises(sink):
    """No effect and no id: the retry is not swallowed."""
    with sink.once(Message(id="setup")) as transaction:
        transaction.execute("CREATE TABLE stock (n INTEGER)")

    def half_done():
        with sink.once(Message(id="a")) as transaction:
            transaction.execute("INSERT INTO stock VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()

    with sink.once(Message(id="a")) as transaction:
        assert transaction.execute("SELECT count(*) FROM stock") == [(0,)]


def test_what_json_cannot_say_is_refused_and_leaves_no_id(sink):
    """A bad result does not make the next, good one a duplicate."""
    for bad in (object(), float("nan"), b"bytes"):
        with pytest.raises((TypeError, ValueError)):
            sink.store(bad, Message(id="a"))

    assert sink.store(1, Message(id="a"))


def test_stage_stores_for_the_message_in_hand(sink):
    """A stage names no message; `handle` shows it without a broker."""

    @stage(reads="work", writes="out")
    def keep(n: int) -> bool:
        return sink.store(n)

    message = Message(5, id="a")
    answers = [keep.handle(message)[0].data for _ in range(2)]

    assert answers == [True, False]


def test_ten_threads_store_each_message_once(sink):
    """Of ten duplicates at once, one is told True."""
    ids = [f"id-{n % 50}" for n in range(500)]
    with ThreadPoolExecutor(10) as threads:
        fresh = list(threads.map(lambda each: sink.store(1, Message(id=each)), ids))

    assert sum(fresh) == len(sink) == 50


def test_processes_share_a_new_file(tmp_path):
    """Four processes that make the file at once store 200 results, not 800."""
    path = str(tmp_path / "results.db")
    command = [sys.executable, "-c", WRITER, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        stored = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(timeout=10)

    assert sum(stored) == len(Sink(path)) == 200


def test_waiting_for_another_process_is_bounded(tmp_path):
    """Somebody who holds the file is an error in time, with the way out."""
    sink = Sink(tmp_path / "results.db", timeout=0.2)
    sink.store(1, Message(id="a"))
    other = sqlite3.connect(sink.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(SinkBusy, match="another process held"):
        sink.store(2, Message(id="b"))

    other.execute("ROLLBACK")
    other.close()
    assert sink.store(2, Message(id="b"))


def test_waiting_for_another_thread_is_bounded(tmp_path):
    """A slow `once` in one thread does not hold the others for ever."""
    sink = Sink(tmp_path / "results.db", timeout=0.2)
    inside, leave = threading.Event(), threading.Event()

    def slow():
        with sink.once(Message(id="a")):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert inside.wait(10)
        with pytest.raises(SinkBusy, match="another thread held"):
            sink.store(2, Message(id="b"))
    finally:
        leave.set()
        thread.join(10)
    assert len(sink) == 1


def test_misuse_inside_once_is_said(sink):
    """Neither a sink in its own transaction nor a COMMIT in it goes unnoticed."""
    with pytest.raises(SinkError, match="inside its own"), sink.once(Message(id="a")):
        sink.store(1, Message(id="b"))
    with pytest.raises(SinkError, match="COMMIT"), sink.once(Message(id="c")) as transaction:
        transaction.execute("COMMIT")


def test_bad_input_is_an_error_that_says_what_to_do(tmp_path):
    """Before anything is opened, and without the password of a URL."""
    with pytest.raises(SinkError, match="path of an SQLite file") as caught:
        Sink("postgresql://user:secret@host/db")
    assert "secret" not in str(caught.value)
    for path in ("", tmp_path, tmp_path / "no" / "results.db"):
        with pytest.raises(SinkError, match="folder that exists"):
            Sink(path)
    for name in ("", "1st", 'x"; DROP TABLE y', "sqlite_master", "a" * 64):
        with pytest.raises(SinkError, match="name is"):
            Sink(tmp_path / "results.db", name)
    for timeout in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SinkError, match="timeout is"):
            Sink(tmp_path / "results.db", timeout=timeout)
    with pytest.raises(SinkError, match="no message is being handled"):
        Sink(tmp_path / "results.db").store(1)
    with pytest.raises(SinkError, match=r"give a mousetrap\.Message"):
        Sink(tmp_path / "results.db").store(1, "id")


def test_files_that_are_no_sinks_are_left_alone(tmp_path):
    """Another program's table, or a file that is no database."""
    path = tmp_path / "results.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE results (n INTEGER)")
    other.close()
    with pytest.raises(SinkError, match="no sink's"):
        len(Sink(path))
    text = tmp_path / "notes.txt"
    text.write_text("not a database, " * 100)
    with pytest.raises(SinkError, match="cannot be used as a sink"):
        len(Sink(text))
    assert text.read_text() == "not a database, " * 100


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_worker_killed_between_effect_and_ack_has_one_effect(settings, tmp_path):
    """kill -9 after the commit, three times, and planted duplicates: each message counts once."""
    path = str(tmp_path / "results.db")
    declare(Queue("work"), settings=settings)
    messages = [Message(n, id=f"id-{n}") for n in range(10)]
    with Publisher(settings) as publisher:
        for receipt in publisher.publish_many([*messages, *messages], "work"):
            receipt.wait()
    for _ in range(3):
        assert finished(path, settings) == -signal.SIGKILL
    assert len(Sink(path)) == 3

    process = started(path, settings)
    try:
        results = drain("out", 20, timeout=20, settings=settings)
    finally:
        process.kill()
        process.wait(timeout=10)

    # 20 deliveries were acked; those of the seven that killed nobody were new once each
    assert len(results) == 20
    assert sum(result.data for result in results) == 7
    assert sorted(row["data"] for row in Sink(path).rows()) == list(range(10))
    assert depth("work", settings).messages == 0
    assert depth("work.dead", settings).messages == 0


def started(path, settings):
    environment = os.environ | settings.to_environment()
    return subprocess.Popen([sys.executable, "-c", MORTAL, path], env=environment)


def finished(path, settings):
    process = started(path, settings)
    try:
        return process.wait(timeout=20)
    finally:
        process.kill()
        process.wait(timeout=10)

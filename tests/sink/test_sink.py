"""A sink stores each message's result once: after crashes, with threads, with processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mousetrap import Batch, Sink, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue

# A worker that crashes between the commit and the ack, once for each message below 3.
CRASHING_WORKER = """
import os, signal
from mousetrap import Sink, Worker
from mousetrap.runtime.signals import run_until_signalled

sink = Sink(os.environ["SINK"])

def keep(n: int) -> bool:
    fresh = sink.store(n)
    if fresh and n < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return fresh

run_until_signalled(Worker("work", keep, writes="out", prefetch=1))
"""

WRITER = """
import os, sys
from mousetrap import Message, Sink

sink = Sink(os.environ["SINK"])
print("ready", flush=True)
sys.stdin.readline()
print(sum(sink.store(n, Message(n, id=f"id-{n}")) for n in range(200)))
"""


def test_store_ignores_a_duplicate(sink):
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
    assert "Sink results in" in repr(sink)


def test_sink_keeps_what_it_has_when_opened_again(sink, place):
    """A stored result is there for the next process."""
    sink.store(1, Message(id="a"))
    sink.close()

    with Sink(place) as again:
        assert not again.store(1, Message(id="a"))


def test_sinks_with_different_names_are_independent(sink, place):
    """Two stages may each store a result of the same message."""
    assert sink.store(1, Message(id="a"))
    with Sink(place, "other") as other:
        assert other.store(1, Message(id="a"))


def test_once_commits_effect_and_id_together(sink, place):
    """The SQL inside runs once per message, and later reads see what it wrote."""
    with sink.once(Message(id="setup")) as transaction:
        transaction.execute("CREATE TABLE stock (n INTEGER)")
        mark = "%s" if "://" in place else "?"
        transaction.execute(f"INSERT INTO stock VALUES ({mark})", (10,))
    for _ in range(2):
        with sink.once(Message(id="a")) as transaction:
            if transaction:
                transaction.execute("UPDATE stock SET n = n - 1")

    with sink.once(Message(id="look")) as transaction:
        assert transaction.execute("SELECT n FROM stock") == [(9,)]


def test_once_rolls_back_when_the_block_raises(sink):
    """Neither the effect nor the id is stored, so the retry works."""
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


def test_store_refuses_what_cannot_be_json_and_stores_no_id(sink):
    """After a bad result, a good one of the same message is not a duplicate."""
    for bad in (object(), float("nan"), b"bytes"):
        with pytest.raises((TypeError, ValueError)):
            sink.store(bad, Message(id="a"))

    assert sink.store(1, Message(id="a"))


def test_stage_stores_for_the_message_being_handled(sink):
    """A stage passes no message to `store`; `handle` shows it without a broker."""

    @stage(reads="work", writes="out")
    def keep(n: int) -> bool:
        return sink.store(n)

    message = Message(5, id="a")
    answers = [keep.handle(message)[0].data for _ in range(2)]

    assert answers == [True, False]


def test_batch_is_stored_in_one_transaction(sink):
    """Each value with the id of its message; a message that has a result keeps it."""
    messages = [Message(n, id=f"m{n}") for n in range(3)]
    sink.store("first", messages[1])

    assert sink.store_each([0, None, {"n": 2}], messages) == [True, False, True]
    assert {row["id"]: row["data"] for row in sink.rows()} == {
        "m0": 0, "m1": "first", "m2": {"n": 2},
    }  # fmt: skip


def test_batch_in_a_file_costs_one_statement_for_each_row(tmp_path):
    """Beside them only those of the transaction: who has the lock waits for nobody."""
    statements = []
    with Sink(tmp_path / "results.db") as sink:
        sink.store("first", Message(id="first"))
        sink._connection.set_trace_callback(statements.append)
        sink.store_each(range(50), [Message(id=f"{n}") for n in range(50)])

    assert sum(each.startswith("INSERT") for each in statements) == 50
    assert len(statements) <= 53  # with BEGIN, COMMIT and a time-out


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ([1], SinkError, "1 value for 2 messages"),
        ([1, b"2"], TypeError, "bytes cannot be JSON"),
        ([1, object()], TypeError, "object"),
    ],
    ids=["too few", "bytes", "object"],
)
def test_batch_that_cannot_be_stored_stores_nothing(sink, values, error, words):
    """All of it or none."""
    with pytest.raises(error, match=words):
        sink.store_each(values, [Message(1, id="a"), Message(2, id="b")])

    assert len(sink) == 0


def test_handler_of_a_batch_stores_each_of_its_messages(sink):
    """`store` has no single message there, and says what to use."""

    @stage(reads="work", batch=Batch(10))
    def keep(values: list[int]) -> None:
        with pytest.raises(SinkError, match="store_each"):
            sink.store(values)
        sink.store_each(values)

    keep.handle(Message(7, id="a"))
    keep.handle(Message(8, id="a"))

    assert [(row["id"], row["data"]) for row in sink.rows()] == [("a", 7)]
    with pytest.raises(SinkError, match="no batch is being handled here"):
        sink.store_each([1])


def test_ten_threads_store_each_message_once(sink):
    """Of ten simultaneous duplicates, `store` returns True for one."""
    ids = [f"id-{n % 50}" for n in range(500)]
    with ThreadPoolExecutor(10) as threads:
        fresh = list(threads.map(lambda each: sink.store(1, Message(id=each)), ids))

    assert sum(fresh) == len(sink) == 50


def test_processes_share_a_new_place(place):
    """Four processes that create the table at the same time store 200 results, not 800."""
    command = [sys.executable, "-c", WRITER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True,
             "env": os.environ | {"SINK": place}}  # fmt: skip
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

    with Sink(place) as sink:
        assert sum(stored) == len(sink) == 200


def test_store_raises_when_another_process_holds_the_file_too_long(tmp_path):
    """The error comes after the time-out and says what to do."""
    sink = Sink(tmp_path / "results.db", timeout=0.2)
    sink.store(1, Message(id="a"))
    other = sqlite3.connect(sink.place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(SinkBusy, match="another process held"):
        sink.store(2, Message(id="b"))

    other.execute("ROLLBACK")
    other.close()
    assert sink.store(2, Message(id="b"))


def test_store_raises_when_another_thread_holds_the_sink_too_long(tmp_path):
    """A slow `once` in one thread does not block the others for ever."""
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


def test_once_refuses_misuse(sink):
    """Using the sink inside its own transaction, or a COMMIT there, is an error."""
    with pytest.raises(SinkError, match="inside its own"), sink.once(Message(id="a")):
        sink.store(1, Message(id="b"))
    with pytest.raises(SinkError, match="COMMIT"), sink.once(Message(id="c")) as transaction:
        transaction.execute("COMMIT")


def test_bad_input_is_an_error_that_says_what_to_do(tmp_path):
    """Before a connection is opened, and without the password of a URL."""
    with pytest.raises(SinkError, match="path of an SQLite file") as caught:
        Sink("mysql://user:secret@host/db")
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


def test_sink_refuses_files_that_are_not_sinks(tmp_path):
    """Another program's table, or a file that is not a database, stays as it is."""
    path = tmp_path / "results.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE results (n INTEGER)")
    other.close()
    with pytest.raises(SinkError, match="not a sink's"):
        len(Sink(path))
    text = tmp_path / "notes.txt"
    text.write_text("not a database, " * 100)
    with pytest.raises(SinkError, match="cannot be used as a sink"):
        len(Sink(text))
    assert text.read_text() == "not a database, " * 100


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_worker_that_crashes_before_the_ack_has_stored_one_result(settings, place):
    """SIGKILL after the commit, three times, and injected duplicates: each message counts once."""
    declare(Queue("work"), settings=settings)
    messages = [Message(n, id=f"id-{n}") for n in range(10)]
    with Publisher(settings) as publisher:
        for receipt in publisher.publish_many([*messages, *messages], "work"):
            receipt.wait()
    for _ in range(3):
        assert run_worker(place, settings) == -signal.SIGKILL
    with Sink(place) as sink:
        assert len(sink) == 3

    process = start_worker(place, settings)
    try:
        results = drain("out", 20, timeout=20, settings=settings)
    finally:
        process.kill()
        process.wait(timeout=10)

    # 20 deliveries were acked; the seven messages without a crash were each new once
    assert len(results) == 20
    assert sum(result.data for result in results) == 7
    with Sink(place) as sink:
        assert sorted(row["data"] for row in sink.rows()) == list(range(10))
    assert depth("work", settings).messages == 0
    assert depth("work.dead", settings).messages == 0


def start_worker(place, settings):
    environment = os.environ | settings.to_environment() | {"SINK": place}
    return subprocess.Popen([sys.executable, "-c", CRASHING_WORKER], env=environment)


def run_worker(place, settings):
    process = start_worker(place, settings)
    try:
        return process.wait(timeout=20)
    finally:
        process.kill()
        process.wait(timeout=10)

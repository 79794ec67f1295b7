"""A sink has each message's effect once: after kills, among threads, among processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from support.postgres import PASSWORD, Postgres, psycopg
from support.waiting import wait_for

from mousetrap import Sink, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker.configuration import free_ports
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.run_fetch_worker import fetch
from mousetrap.sink.results_sink import with_results_sink
from mousetrap.worker.worker import Worker

# Dies between its effect and the ack, once for each message.
MORTAL = """
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


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL of our own."""
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a sink can be: a file, or a database on a server."""
    if request.param == "sqlite":
        return str(tmp_path / "results.db")
    return request.getfixturevalue("postgres").url()


@pytest.fixture
def sink(place):
    with Sink(place) as sink:
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
    assert "Sink results in" in repr(sink)


def test_sink_keeps_what_it_has_when_opened_again(sink, place):
    """What was stored is there for the next process."""
    sink.store(1, Message(id="a"))
    sink.close()

    with Sink(place) as again:
        assert not again.store(1, Message(id="a"))


def test_names_are_sinks_of_their_own(sink, place):
    """Two stages that store the same message do not take each other's for a duplicate."""
    assert sink.store(1, Message(id="a"))
    with Sink(place, "other") as other:
        assert other.store(1, Message(id="a"))


def test_once_commits_effect_and_id_together(sink, place):
    """The SQL inside is done once, and reads see what it wrote."""
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


def test_processes_share_a_new_place(place):
    """Four processes that make the table at once store 200 results, not 800."""
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


def test_waiting_for_another_process_is_bounded(tmp_path):
    """Somebody who holds the file is an error in time, with the way out."""
    sink = Sink(tmp_path / "results.db", timeout=0.2)
    sink.store(1, Message(id="a"))
    other = sqlite3.connect(sink.place, isolation_level=None)
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


def test_files_that_are_no_sinks_are_left_alone(tmp_path):
    """Another program's table, or a file that is no database."""
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
def test_worker_killed_between_effect_and_ack_has_one_effect(settings, place):
    """kill -9 after the commit, three times, and planted duplicates: each message counts once."""
    declare(Queue("work"), settings=settings)
    messages = [Message(n, id=f"id-{n}") for n in range(10)]
    with Publisher(settings) as publisher:
        for receipt in publisher.publish_many([*messages, *messages], "work"):
            receipt.wait()
    for _ in range(3):
        assert finished(place, settings) == -signal.SIGKILL
    with Sink(place) as sink:
        assert len(sink) == 3

    process = started(place, settings)
    try:
        results = drain("out", 20, timeout=20, settings=settings)
    finally:
        process.kill()
        process.wait(timeout=10)

    # 20 deliveries were acked; those of the seven that killed nobody were new once each
    assert len(results) == 20
    assert sum(result.data for result in results) == 7
    with Sink(place) as sink:
        assert sorted(row["data"] for row in sink.rows()) == list(range(10))
    assert depth("work", settings).messages == 0
    assert depth("work.dead", settings).messages == 0


def started(place, settings):
    environment = os.environ | settings.to_environment() | {"SINK": place}
    return subprocess.Popen([sys.executable, "-c", MORTAL], env=environment)


def finished(place, settings):
    process = started(place, settings)
    try:
        return process.wait(timeout=20)
    finally:
        process.kill()
        process.wait(timeout=10)


# ---- PostgreSQL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first_commits", [True, False])
def test_second_writer_of_an_id_waits_for_the_first(postgres, first_commits):
    """And has the effect only if the first takes its own back."""
    url = postgres.url()
    inside, leave = threading.Event(), threading.Event()

    def first():
        with Sink(url) as sink, sink.once(Message(id="a")):
            inside.set()
            leave.wait(20)
            if not first_commits:
                raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool, Sink(url) as sink:
        one = pool.submit(first)
        assert inside.wait(10)
        two = pool.submit(sink.store, 2, Message(id="a"))
        wait_for(postgres.waiting)
        leave.set()

        assert two.result(20) is not first_commits
        assert isinstance(one.exception(20), ZeroDivisionError) is not first_commits
        assert len(sink) == 1


def test_waiting_for_another_writer_is_bounded(postgres):
    """Somebody who holds the id is an error in time, with the way out; other ids pass."""
    url = postgres.url()
    with Sink(url) as other, Sink(url, timeout=0.2) as sink:
        with other.once(Message(id="a")):
            with pytest.raises(SinkBusy, match="another writer held database"):
                sink.store(1, Message(id="a"))
            assert sink.store(2, Message(id="b"))
        assert not sink.store(1, Message(id="a"))


def test_connection_lost_in_a_transaction_raises_and_the_next_use_connects_again(postgres):
    """Nothing of it is kept, so the retry is not swallowed."""
    with Sink(postgres.url()) as sink:
        with sink.once(Message(id="setup")) as transaction:
            transaction.execute("CREATE TABLE stock (n INTEGER)")

        def cut_off():
            with sink.once(Message(id="a")) as transaction:
                transaction.execute("INSERT INTO stock VALUES (1)")
                postgres.disconnect()

        with pytest.raises(SinkError, match="cannot be used as a sink"):
            cut_off()
        with sink.once(Message(id="a")) as transaction:
            assert transaction.execute("SELECT count(*) FROM stock") == [(0,)]


def test_connection_lost_while_nobody_used_it_is_made_anew(postgres):
    """A server that was restarted overnight costs no message an attempt."""
    with Sink(postgres.url()) as sink:
        assert sink.store(1, Message(id="a"))
        postgres.disconnect()

        assert not sink.store(1, Message(id="a"))
        assert sink.store(2, Message(id="b"))


def test_statement_that_failed_inside_once_is_not_passed_over(postgres):
    """PostgreSQL would take all back and call the COMMIT well."""
    with Sink(postgres.url()) as sink:

        def pass_over():
            with sink.once(Message(id="a")) as transaction, suppress(psycopg.Error):
                transaction.execute("SELECT 1 / 0")

        with pytest.raises(SinkError, match="its exception was caught"):
            pass_over()
        assert len(sink) == 0


def test_worker_retries_what_its_sink_could_not_store(settings, postgres):
    """The connection breaks in the midst: the message is handled once more, and stored once."""
    queue = Queue("work", (0.05,))
    with Sink(postgres.url()) as sink:
        broken = []

        def keep(n: int) -> bool:
            if not broken:
                broken.append(n)
                with sink.once() as transaction:
                    postgres.disconnect()
                    transaction.execute("SELECT 1")
            return sink.store(n)

        declare(queue, settings=settings)
        with Publisher(settings) as publisher:
            publisher.publish(Message(5, id="a"), "work").wait()
        with Worker(queue, keep, settings) as worker:
            now = worker.wait_until(done=1)

        assert (now.retried, len(sink)) == (1, 1)


def test_without_psycopg_the_error_says_what_to_install():
    """The extra is not for those who have a file."""
    program = """
import sys
sys.modules["psycopg"] = None
from mousetrap import Sink
Sink("results.db")
try:
    Sink("postgresql://host/db")
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert run.stdout == (
        "SinkError a sink on PostgreSQL needs psycopg: pip install 'mousetrap-mq[postgres]'\n"
    )


def test_password_of_the_url_is_told_nowhere(postgres):
    """Not in the repr, a table's title or an error: refused, unknown, unreachable, misspelt."""
    [port] = free_ports(1)
    url = postgres.url()
    told = []
    with Sink(url) as sink:
        sink.store(1, Message(id="a"))
        told += [repr(sink), sink.place, repr(sink.rows()), sink.rows()._repr_html_()]
    for bad in (
        postgres.address(password=f"{PASSWORD}x"), postgres.address("no_such_database"),
        url.replace(str(postgres.port), str(port)), url.replace("127.0.0.1", "no.such.invalid"),
        f"postgresql://owner:p@{PASSWORD}@host/db", f"postgresql://owner:p/{PASSWORD}@host/db",
        f"postgresql://owner:{PASSWORD}@host:port/db", f"postgres://owner:{PASSWORD}@h/db?x=y",
        f"postgresql://owner:p#{PASSWORD}@host/db", f"postgresql://owner:p?{PASSWORD}@host/db",
        f"postgresql://owner:p:{PASSWORD}@host/db", f"postgresql://owner:{PASSWORD}@[::1/db",
    ):  # fmt: skip
        with pytest.raises(SinkError) as caught:
            Sink(bad, timeout=2).store(1, Message(id="a"))
        told.append(str(caught.value))
        told += [str(caught.value.__cause__), str(caught.value.__context__)]

    assert [each for each in told if PASSWORD in each] == []


# ---- the pipeline --------------------------------------------------------------------------------


def test_pipeline_stores_its_results_once(settings, place, monkeypatch):
    """``RESULTS_SINK`` and `mousetrap work process`: a job that came twice has one row."""
    monkeypatch.setenv("RESULTS_SINK", place)
    message = Message([["1", "2", "Here", "XX", "UTC"]], id="a")
    declare("data_processing", "results", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([message, message], "data_processing")
    process = subprocess.Popen(
        [sys.executable, "-m", "mousetrap", "work", "process"],
        env=os.environ | settings.to_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        results = drain("results", 2, timeout=30, settings=settings)
    finally:
        process.terminate()
        process.wait(timeout=20)

    assert len(results) == 2
    with Sink(place) as sink:
        [row] = sink.rows()
    assert (row["id"], row["data"]) == ("a", results[0].data)


def test_only_what_goes_to_results_is_stored(tmp_path, monkeypatch):
    """Not what a stage before sends on; without the variable nothing is."""
    monkeypatch.setenv("RESULTS_SINK", str(tmp_path / "results.db"))

    @stage(reads="work", writes="results")
    def numbers(n: int):
        yield from range(n)

    @stage(reads="work", writes="results")
    async def later(n: int) -> int:
        return n

    many, one = with_results_sink(numbers), with_results_sink(later)
    outputs = [each.data for each in many.handle(Message(3, id="a"))]
    outputs += [each.data for each in one.handle(Message(4, id="b"))]

    assert outputs == [0, 1, 2, 4]
    with Sink(tmp_path / "results.db") as sink:
        assert [row["data"] for row in sink.rows()] == [[0, 1, 2], 4]
    assert with_results_sink(fetch) is fetch
    monkeypatch.delenv("RESULTS_SINK")
    assert with_results_sink(later) is later

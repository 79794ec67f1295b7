"""What a sink does that only PostgreSQL has: waiting writers, lost connections, passwords."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from support.postgres import PASSWORD, psycopg
from support.waiting import wait_for

from mousetrap import Sink
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker.configuration import free_ports
from mousetrap.errors import SinkBusy, SinkError
from mousetrap.job_queue import declare
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker


@pytest.mark.parametrize("first_commits", [True, False])
def test_second_writer_of_an_id_waits_for_the_first(postgres, first_commits):
    """The second stores its result only if the first one rolls back."""
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


def test_store_raises_when_another_writer_holds_the_id_too_long(postgres):
    """The error comes after the time-out and says what to do; other ids are not affected."""
    url = postgres.url()
    with Sink(url) as other, Sink(url, timeout=0.2) as sink:
        with other.once(Message(id="a")):
            with pytest.raises(SinkBusy, match="another writer held database"):
                sink.store(1, Message(id="a"))
            assert sink.store(2, Message(id="b"))
        assert not sink.store(1, Message(id="a"))


def test_connection_lost_in_a_transaction_raises_and_the_next_use_connects_again(postgres):
    """Nothing of the transaction is stored, so the retry works."""
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


def test_connection_lost_while_idle_is_replaced(postgres):
    """After a restart of the server no message loses an attempt."""
    with Sink(postgres.url()) as sink:
        assert sink.store(1, Message(id="a"))
        postgres.disconnect()

        assert not sink.store(1, Message(id="a"))
        assert sink.store(2, Message(id="b"))


def test_once_raises_when_a_failed_statement_was_caught(postgres):
    """PostgreSQL would roll back at the COMMIT and report no error."""
    with Sink(postgres.url()) as sink:

        def catch_it():
            with sink.once(Message(id="a")) as transaction, suppress(psycopg.Error):
                transaction.execute("SELECT 1 / 0")

        with pytest.raises(SinkError, match="its exception was caught"):
            catch_it()
        assert len(sink) == 0


def test_worker_retries_what_its_sink_could_not_store(settings, postgres):
    """The connection breaks: the message is handled again, and its result is stored once."""
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
    """A sink on an SQLite file does not need the extra."""
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


def test_password_of_the_url_is_never_shown(postgres):
    """Not in a repr, a table or an error, whatever is wrong with the URL."""
    [port] = free_ports(1)
    url = postgres.url()
    texts = []
    with Sink(url) as sink:
        sink.store(1, Message(id="a"))
        texts += [repr(sink), sink.place, repr(sink.rows()), sink.rows()._repr_html_()]
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
        texts.append(str(caught.value))
        texts += [str(caught.value.__cause__), str(caught.value.__context__)]

    assert [each for each in texts if PASSWORD in each] == []

"""`call` returns what the handler of a stage returns, or says why it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest
from support.messages import existing_queues
from support.waiting import wait_for

import mousetrap
from mousetrap import Batch, FailedItems, Queue, Reject, Send, call, call_async, stage
from mousetrap.errors import (
    CallFailed,
    CallTimedOut,
    ConnectionLost,
    MousetrapError,
    SettingsError,
    Unroutable,
)
from mousetrap.flows import call as calls
from mousetrap.job_queue import declare, drain, peek
from mousetrap.worker.worker import Worker

THREADS, EACH = 8, 40  # of the test with many calls at a time


def answer(n: object) -> Iterator[object]:
    """Return as many values as asked for."""
    if n == "nothing":
        return
    if n == "bad":
        raise Reject("no such customer")
    if n == "many":
        yield from (1, "two", None)
        return
    yield {"got": n}


def test_call_returns_what_the_handler_returns(anywhere):
    """A value, a list of several, None for none; outputs go to their queue as well."""
    with Worker("ask", answer, anywhere, writes="out"):
        found = [call("ask", n, 20, anywhere) for n in (1, [2], "many", "nothing")]

    assert found == [{"got": 1}, {"got": [2]}, [1, "two", None], None]
    assert [each.data for each in drain("out", settings=anywhere)] == [
        {"got": 1}, {"got": [2]}, 1, "two", None,
    ]  # fmt: skip


def test_call_of_a_stage_that_writes_nowhere(settings):
    """It is answered all the same; a Queue and a name are the same target."""

    @stage(reads="ask")
    def double(n: int) -> int:
        return 2 * n

    with double.start(settings):
        assert call(double, 4, 20, settings) == 8
        assert call(Queue("ask"), 5, 20, settings) == 10


@pytest.mark.parametrize("writes", [["first", "second"], "first"])
def test_answer_is_each_plain_value_once(settings, writes):
    """However many queues get a copy; a `Send` to another queue is no part of it."""

    @stage(reads="ask", writes=writes, routes=["aside"])
    def shapes(n: int) -> Iterator[object]:
        yield n
        yield Send("aside", to="aside")
        yield Send("plain", priority=1)

    with shapes.start(settings):
        assert call(shapes, 1, 20, settings) == [1, "plain"]
    assert [each.data for each in drain("aside", settings=settings)] == ["aside"]


def test_dead_letter_answers_with_its_reason(anywhere):
    """`CallFailed` has it; the dead letter is there; retries in between just take time."""
    attempts = []

    def failing(n: int) -> None:
        attempts.append(n)
        raise ValueError("no luck")

    queue = Queue("ask", retry_delays=(0.05,))
    with Worker(queue, failing, anywhere) as worker:
        with pytest.raises(CallFailed, match="dead-lettered: ValueError: no luck") as failed:
            call(queue, 1, 20, anywhere)
        worker.wait_until(dead=1)

    [letter] = peek("ask.dead", settings=anywhere)
    assert attempts == [1, 1]
    assert (failed.value.reason, failed.value.id) == ("ValueError: no luck", letter.id)


def test_late_answer_is_dropped_and_counted(settings):
    """The time-out is ours and Python's; the text says what is known of the request."""
    release = threading.Event()
    before = calls.late_answers()

    def slow(n: int) -> int:
        release.wait(20)
        return n

    with Worker("ask", slow, settings):
        with pytest.raises(CallTimedOut, match="the broker has the request") as late:
            call("ask", 1, 0.5, settings)
        release.set()
        wait_for(lambda: calls.late_answers() == before + 1)

    assert isinstance(late.value, TimeoutError)


def test_nobody_works_for_a_call_that_has_ended(settings):
    """The request expires with it: a worker that begins too late dead-letters it."""
    declare("ask", settings=settings)
    with pytest.raises(CallTimedOut):
        call("ask", 1, 0.2, settings)
    handled = []
    with Worker("ask", lambda n: handled.append(n), settings) as worker:
        worker.wait_until(dead=1)

    [letter] = peek("ask.dead", settings=settings)
    assert handled == []
    assert letter.reason.startswith("Expired: ")


def test_call_of_a_queue_that_does_not_exist(settings):
    """The broker returns the request: the error comes at once."""
    started = time.monotonic()
    with pytest.raises(Unroutable, match="there is no queue"):
        call("nowhere", 1, 60, settings)

    assert time.monotonic() - started < 30


@pytest.mark.parametrize("target", [mousetrap.Exchange("orders")["x"], None, ""])
def test_what_is_no_queue_cannot_be_called(settings, target):
    """The error says what can."""
    with pytest.raises(SettingsError, match="name of a queue, a Queue or a stage"):
        call(target, 1, 1, settings)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_call_needs_a_time_out(settings, timeout):
    """One that never ends, or ended before, is refused."""
    with pytest.raises(ValueError, match="seconds above 0"):
        call("ask", 1, timeout, settings)


def test_many_calls_at_a_time_share_a_connection(anywhere):
    """Each gets its own answer; none is lost."""
    with Worker("ask", lambda n: n, anywhere, concurrency=4, prefetch=64) as worker:

        def ask(thread: int) -> list[int]:
            return [call("ask", thread * 1000 + n, 60, anywhere) for n in range(EACH)]

        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(ask, range(THREADS)))
        worker.wait_until(done=THREADS * EACH)

    assert found == [[thread * 1000 + n for n in range(EACH)] for thread in range(THREADS)]
    assert len(calls._requests) == 1


def test_call_can_be_awaited(anywhere):
    """Many at a time; errors are the same, and the loop goes on meanwhile."""

    async def ask():
        found = await asyncio.gather(*(call_async("ask", n, 20, anywhere) for n in range(20)))
        with pytest.raises(CallFailed, match="no such customer"):
            await call_async("ask", "bad", 20, anywhere)
        with pytest.raises(CallTimedOut):
            await call_async("idle", 1, 0.1, anywhere)
        return found

    declare("idle", settings=anywhere)
    with Worker("ask", answer, anywhere):
        assert asyncio.run(ask()) == [{"got": n} for n in range(20)]


def test_connection_lost_while_a_call_waits(settings, proxy):
    """The error comes at once and says that the broker has the request; the next call works."""
    begun, release = threading.Event(), threading.Event()

    def slow(n: int) -> int:
        begun.set()
        release.wait(20)
        return n

    with Worker("ask", slow, settings) as worker, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, "ask", 1, 60, proxy.settings)
        begun.wait(20)
        [requests] = calls._requests.values()
        wait_for(lambda: all(each.receipt.confirmed for each in requests._waiting.values()))
        proxy.cut()
        with pytest.raises(ConnectionLost, match="The broker has the request: it is handled"):
            asked.result(20)
        release.set()
        worker.wait_until(done=1)
        assert call("ask", 2, 20, proxy.settings) == 2


def test_messages_of_a_batch_are_answered_one_by_one(settings):
    """Each with its own element; one that failed, with its reason."""

    @stage(reads="ask", writes=["first", "second"], batch=Batch(10, within=0.2), retry_delays=())
    def doubled(values: list[int]) -> list[object]:
        if 3 in values:
            raise FailedItems({values.index(3): Reject("three")}, [2 * n for n in values])
        return [Send(2 * n, priority=1) if n == 1 else 2 * n for n in values]

    with doubled.start(settings), ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(call, "ask", n, 20, settings) for n in (1, 2, 3)]
        assert [each.result() for each in asked[:2]] == [2, 4]
        with pytest.raises(CallFailed, match="Reject: three"):
            asked[2].result()


# ---- other programs ------------------------------------------------------------------------------


def test_plain_pika_can_ask(settings):
    """Body and correlation id of the answer are plain; a failure has its reason in the body."""
    with Worker("ask", answer, settings), mousetrap.open_channel(settings) as channel:
        replies = channel.queue_declare("", exclusive=True).method.queue
        for n, body in enumerate((b'"many"', b'"bad"')):
            properties = pika.BasicProperties(reply_to=replies, correlation_id=f"c{n}")
            channel.basic_publish("", settings.topology.wire_name("ask"), body, properties)
        found = {}
        for _, properties, body in channel.consume(replies, auto_ack=True, inactivity_timeout=20):
            found[properties.correlation_id] = properties.content_type, json.loads(body)
            if len(found) == 2:
                break

    assert found == {
        "c0": ("application/json", [1, "two", None]),
        "c1": ("application/json", {"error": "Reject: no such customer"}),
    }


def test_plain_pika_can_answer(settings):
    """A server of another program that follows the convention answers our calls."""
    name = settings.topology.wire_name("theirs")
    declare("theirs", settings=settings)

    def serve():
        with mousetrap.open_channel(settings) as channel:
            for method, asked, body in channel.consume(name, inactivity_timeout=20):
                properties = pika.BasicProperties(correlation_id=asked.correlation_id)
                channel.basic_publish("", asked.reply_to, body.upper(), properties)
                channel.basic_ack(method.delivery_tag)
                break

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        assert call("theirs", "x", 20, settings) == "X"
        served.result(20)


def test_answer_that_nobody_takes_is_dropped(settings, caplog):
    """A reply queue that is full refuses it: the message is acked, and the answer counted."""
    caplog.set_level(logging.INFO, "mousetrap")
    full = settings.topology.wire_name("full")
    with Worker("ask", answer, settings) as worker, mousetrap.open_channel(settings) as channel:
        limits = {"x-max-length": 0, "x-overflow": "reject-publish", "x-expires": 60_000}
        channel.queue_declare(full, durable=True, arguments=limits)
        ask = settings.topology.wire_name("ask")
        for reply_to in (full, "nowhere-at-all", "amq.rabbitmq.reply-to.gone"):
            channel.basic_publish("", ask, b"1", pika.BasicProperties(reply_to=reply_to))
        worker.wait_until(done=3)
        wait_for(lambda: worker.statistics().dropped_answers == 1)
        channel.queue_delete(full)

    assert worker.statistics().problem == ""
    assert "an answer was dropped" in caplog.text


# ---- runs and handlers ---------------------------------------------------------------------------


@stage(reads="squares", retry_delays=(0.05,))
def square(n: int) -> int:
    return n * n


@stage(reads="sums", writes="out", retry_delays=(0.05,))
def add(n: int) -> int:
    """Ask another stage."""
    return n + call("squares", n, timeout=20)


@stage(reads="later", writes="out")
async def add_later(n: int) -> int:
    return n + await call_async(square, n, timeout=20)


@stage(reads="wrong", retry_delays=())
async def blocks(n: int) -> int:
    return call(square, n, timeout=5)


def test_handlers_can_ask_other_stages(anywhere):
    """In the run's namespace; requests belong to the job, and settle knows them."""
    with mousetrap.run([square, add, add_later], anywhere) as run:
        run.send_many([2, 3], "sums")
        run.send(4, "later")
        summary = run.settle(timeout=30)
        found = sorted(each.data for each in run.results())

    assert found == [6, 12, 20]
    assert (summary.sent, summary.done, summary.stages["square"].done) == (3, 3, 3)
    assert existing_queues(run) == {}


def test_call_in_a_coroutine_of_a_handler_is_refused(settings):
    """It would stop the event loop; the error names what to use."""
    with (
        mousetrap.run([square, blocks], settings) as run,
        pytest.raises(CallFailed, match="await mousetrap"),
    ):
        run.call(1, "wrong", timeout=20)


def test_call_of_a_run_counts_as_a_job(settings):
    """Its answer comes back, and the ledger has it."""
    with mousetrap.run([square, add], settings) as run:
        assert run.call(3, square, timeout=20) == 9
        assert run.call(3, "sums", timeout=20) == 12
        with pytest.raises(SettingsError, match="no stage reads 'out'"):
            run.call(3, "out")
        summary = run.settle(timeout=20)

    assert (summary.sent, summary.done, summary.lost) == (2, 2, 0)
    with pytest.raises(MousetrapError, match="is closed"):
        run.call(3, square)

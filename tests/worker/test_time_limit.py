"""The time limit: a handler that does not return has failed, and its worker goes on or says so."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal

import pytest
from support.messages import send
from support.waiting import wait_for

from mousetrap import stage
from mousetrap.errors import HandlersStuck, SettingsError
from mousetrap.job_queue import depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker import handling
from mousetrap.worker.worker import Worker

WORK = Queue("work", ())
RETRIED = Queue("work", (0.05,))
LIMIT = 0.3  # seconds


@pytest.fixture
def gate():
    """Set at the end of the test, so that the handlers that hang end."""
    gate = threading.Event()
    yield gate
    gate.set()


# ---- threads -------------------------------------------------------------------------------------


def test_handler_that_hangs_has_failed_and_its_neighbours_go_on(settings, gate):
    """The message is retried, then dead-lettered with the reason; a new thread takes over."""

    def handler(word: str) -> str:
        if word == "hang":
            gate.wait(30)
        return word

    send(settings, "hang", *["go"] * 10)
    # Two attempts hang one thread each: fewer than the concurrency.
    with Worker(RETRIED, handler, settings, writes="out", concurrency=3, timeout=LIMIT) as worker:
        now = worker.wait_until(done=10, retried=1, dead=1, timeout=10)
        assert (now.stuck, now.alive) == (2, True)
        gate.set()
        wait_for(lambda: worker.statistics().stuck == 0)
        send(settings, "go")
        worker.wait_until(done=11)

    [dead] = drain("work.dead", settings=settings)
    assert dead.reason == "HandlerTimedOut: handler had not returned after 0.3 s, its timeout; " \
        "it hangs, or it needs a longer one"  # fmt: skip
    assert len(drain("out", settings=settings)) == 11  # no late result is among them


def test_worker_ends_when_all_its_handlers_hang(settings, gate):
    """It says why, is not alive, and gives back what it holds, which is not counted as lost."""
    send(settings, *range(40))
    worker = Worker(WORK, lambda _: gate.wait(30), settings, concurrency=2, timeout=LIMIT).start()
    with pytest.raises(HandlersStuck, match=r"handlers were given up .* gives its messages back"):
        worker.wait(10)
    now = worker.statistics()
    assert (now.alive, now.state) == (False, "failed")
    worker.stop(0.1)

    left = drain("work", settings=settings)
    dead = drain("work.dead", settings=settings)
    assert {message.losses for message in left} == {0}
    assert sorted(m.data for m in [*left, *dead]) == list(range(40))


def test_slow_handler_that_ends_soon_after_the_limit_does_not_end_the_worker(settings):
    """With a concurrency of 1 its thread is replaced, and its late result is dropped."""

    def handler(seconds: float) -> float:
        time.sleep(seconds)  # the work
        return seconds

    send(settings, 2 * LIMIT, 0)
    with Worker(WORK, handler, settings, writes="out", timeout=LIMIT) as worker:
        worker.wait_until(done=1, dead=1)
        wait_for(lambda: worker.statistics().stuck == 0)
        send(settings, 0)
        worker.wait_until(done=2)

    assert [m.data for m in drain("out", settings=settings)] == [0, 0]


def slower_than_its_limit(_: int) -> None:
    time.sleep(0.1)  # the work


async def cancelled_at_its_limit(_: int) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize("handler", [slower_than_its_limit, cancelled_at_its_limit])
def test_handlers_that_end_soon_after_their_limit_do_not_end_the_worker_however_many(
    settings, handler
):
    """At any moment some were given up just now: they are slow, and do not hang."""
    send(settings, *range(80))
    with Worker(WORK, handler, settings, concurrency=2, timeout=0.04) as worker:
        counts = worker._processor.counts
        wait_for(lambda: worker.error or counts["dead"] + counts["done"] == 80, 60)
        wait_for(lambda: worker.statistics().stuck == 0)

    assert worker.error is None
    assert counts["dead"] > 40  # on a busy machine some handlers end before their limit is checked


def test_limit_does_not_count_the_time_that_the_broker_takes(settings, proxy):
    """The handler returned in time; the confirm of its output comes after the limit."""
    send(settings, Message(1, id="m1"))
    impatient = proxy.settings.replace(confirm_timeout=2.0)
    with Worker(WORK, lambda n: n, impatient, writes="out", timeout=LIMIT) as worker:
        proxy.at("Basic.Publish", action=lambda: proxy.hold("from broker")).wait()
        wait_for(lambda: worker.statistics().oldest > 2 * LIMIT)
        assert worker.statistics().stuck == 0
        proxy.release()
        worker.wait_until(done=1)

        assert worker.statistics().dead == 0


def test_limit_does_not_count_the_wait_of_a_message_that_was_left_to_the_broker(
    settings, proxy, gate, monkeypatch
):
    """Its channel is lost while its thread waits until the publisher has room for its outputs."""
    send(settings, Message(1, id="m1"))
    checked = []

    def handler(_: int) -> Iterator[int]:
        gate.wait(20)
        yield from range(3)

    narrow = proxy.settings.replace(max_in_flight=1)
    with Worker(WORK, handler, narrow, writes="out", timeout=1.0) as worker:
        time_out = worker._processor.time_limit._time_out

        def spy(delivery):
            checked.append((worker.statistics().in_progress, time_out(delivery)))
            return checked[-1][1]

        monkeypatch.setattr(worker._processor.time_limit, "_time_out", spy)
        step = proxy.at("Basic.Publish", action=lambda: proxy.hold("from broker"))
        gate.set()
        step.wait()
        proxy.refuse()
        proxy.cut()
        wait_for(lambda: any(not in_progress for in_progress, _ in checked), 20)
        proxy.release()
        proxy.accept()

        worker.wait_until(done=1)  # raises if the worker has ended
    assert not any(is_timed_out for _, is_timed_out in checked)


# ---- coroutines ----------------------------------------------------------------------------------


async def is_cancelled(_: object) -> None:
    await asyncio.Event().wait()


async def swallows_its_cancellation(_: object) -> None:
    while True:
        try:
            await asyncio.sleep(30)
            return
        except asyncio.CancelledError:
            pass


@pytest.mark.parametrize(("hang", "stuck"), [(is_cancelled, 0), (swallows_its_cancellation, 1)])
def test_coroutine_that_hangs_is_cancelled(settings, hang, stuck):
    """One that swallows its cancellation is replaced like a thread."""

    async def handler(word: str) -> str:
        if word == "hang":
            await hang(word)
        return word

    send(settings, "hang", *["go"] * 10)
    with Worker(WORK, handler, settings, writes="out", concurrency=2, timeout=LIMIT) as worker:
        worker.wait_until(done=10, dead=1, timeout=10)
        wait_for(lambda: worker.statistics().stuck == stuck)
        send(settings, "go")
        worker.wait_until(done=11)

    assert len(drain("out", settings=settings)) == 11


def test_coroutine_that_blocks_the_event_loop_ends_the_worker(settings, gate):
    """No other coroutine could go on, however high the concurrency."""

    async def handler(_: int) -> None:
        gate.wait(30)  # without await

    send(settings, 1)
    worker = Worker(WORK, handler, settings, concurrency=10, timeout=LIMIT).start()
    with pytest.raises(HandlersStuck, match="blocks the event loop"):
        worker.wait(10)
    worker.stop(0.1)

    assert depth("work.dead", settings).messages == 1


def many_outputs(word: str) -> Iterator[str]:
    yield from [word] * 3


def one_failure(word: str) -> str:
    raise ValueError(word)


@pytest.mark.parametrize("ends", [many_outputs, one_failure])
def test_coroutine_that_waits_for_room_to_publish_does_not_stop_its_neighbours(
    settings, proxy, ends
):
    """The broker confirms nothing for a while; the other coroutine goes on and ends in time."""
    send(settings, "many", "many", "slow")
    held, slow_has_ended = asyncio.Event(), threading.Event()

    async def handler(word: str) -> object:
        await held.wait()
        if word == "many":
            return ends(word)
        for _ in range(5):
            await asyncio.sleep(0.05)  # the work
        slow_has_ended.set()
        return None

    narrow = proxy.settings.replace(max_in_flight=1, confirm_timeout=2.0)
    with Worker(WORK, handler, narrow, writes="out", concurrency=3, timeout=2.0) as worker:
        wait_for(lambda: worker.statistics().in_progress == 3)
        proxy.hold("from broker")
        worker._processor.executor._call(held.set)
        assert slow_has_ended.wait(1.5)
        wait_for(lambda: worker.statistics().oldest > 2.5)  # the limit does not count the wait
        proxy.release()
        wait_for(lambda: worker.statistics().in_progress == 0)

        now = worker.statistics()
    kinds = {many_outputs: (3, 0), one_failure: (1, 2)}
    assert ((now.done, now.dead), now.stuck, worker.error) == (kinds[ends], 0, None)
    assert all("HandlerTimedOut" not in m.reason for m in drain("work.dead", settings=settings))


def test_coroutine_that_outlives_its_loop_is_destroyed_silently(settings):
    """The garbage collector may close it in any thread, also in code that holds locks of ours."""

    async def handler(_: int) -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    send(settings, 1)
    worker = Worker(WORK, handler, settings, concurrency=2, timeout=LIMIT).start()
    worker.wait_until(dead=1)
    wait_for(lambda: worker.statistics().stuck == 1)
    worker.stop(0.1)
    [task] = worker._processor.executor._stuck
    with ThreadPoolExecutor(1) as pool, worker._processor.attempts.lock, handling._lock:
        pool.submit(task.get_coro().close).result(10)  # as the collector does


# ---- what shows it -------------------------------------------------------------------------------


def test_statistics_have_the_age_of_the_oldest_message_in_progress(settings, gate, monkeypatch):
    """With or without a limit; after a while `problem` says it in words."""
    monkeypatch.setattr("mousetrap.worker.statistics.LONG_HANDLING", 0.2)
    with Worker(WORK, lambda _: gate.wait(30), settings) as worker:
        assert worker.statistics().oldest == 0.0
        send(settings, 1)
        wait_for(lambda: worker.statistics().oldest > 0.2)
        assert "has been handled for" in worker.statistics().problem
        gate.set()
        worker.wait_until(done=1)
        assert (worker.statistics().oldest, worker.statistics().problem) == (0.0, "")


# ---- the value -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [0, -1, 0.0, -0.5, math.nan, math.inf, -math.inf, "5", b"5", [5], True, False, 1j, Decimal(5),
     10**400, None.__class__],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_bad_limit_is_refused_at_definition(settings, value):
    """By the decorator and by the worker."""
    with pytest.raises(SettingsError, match="number of seconds above 0"):
        stage("work", timeout=value)(lambda _: None)
    with pytest.raises(SettingsError, match="number of seconds above 0"):
        Worker("work", lambda _: None, settings, timeout=value)


def test_limit_of_the_stage_is_the_one_of_its_worker(settings):
    """Each way to run a stage uses it, and an argument replaces it."""
    limited = stage("work", timeout=5)(lambda _: None)

    assert limited.worker(settings)._processor.time_limit.limit == 5
    assert limited.worker(settings, timeout=7)._processor.time_limit.limit == 7
    assert "timeout" in limited.options  # what `consume` compares

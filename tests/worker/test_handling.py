"""What a handler sends itself is an output of its handling: kept or dropped, with the same id."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest

import mousetrap
from mousetrap import Message, stage
from mousetrap.errors import MousetrapError
from mousetrap.model.message import current_message
from mousetrap.settings import Settings
from mousetrap.worker.handling import Handling, current_handling

OUTSIDE = ThreadPoolExecutor(1, thread_name_prefix="older-than-any-handling")


def sends_itself(n):
    mousetrap.send("side", n)


def sends_from_a_thread(n):
    thread = threading.Thread(target=mousetrap.send, args=("side", n))
    thread.start()
    thread.join()


def sends_from_a_timer(n):
    timer = threading.Timer(0.0, mousetrap.send, ("side", n))
    timer.start()
    timer.join()


def sends_from_a_thread_of_a_thread(n):
    thread = threading.Thread(target=sends_from_a_thread, args=(n,))
    thread.start()
    thread.join()


class OwnThread(threading.Thread):
    def __init__(self, n):
        super().__init__()
        self.n = n

    def run(self):
        mousetrap.send("side", self.n)


def sends_from_a_subclass_of_thread(n):
    thread = OwnThread(n)
    thread.start()
    thread.join()


def sends_from_a_pool(n):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(mousetrap.send, ["side"], [n]))


def sends_from_a_pool_of_the_module(n):
    OUTSIDE.submit(mousetrap.send, "side", n).result()


def sends_from_a_thread_of_a_pool_of_threads(n):
    with ThreadPool(1) as pool:
        pool.apply(mousetrap.send, ("side", n))


def sends_in_a_generator(n):
    mousetrap.send("side", n)
    yield from ()


async def sends_in_a_coroutine(n):
    await asyncio.sleep(0)
    mousetrap.send("side", n)


async def sends_in_a_task(n):
    async def later():
        mousetrap.send("side", n)

    await asyncio.create_task(later())


async def sends_by_to_thread(n):
    await asyncio.to_thread(mousetrap.send, "side", n)


async def sends_in_an_executor(n):
    await asyncio.get_running_loop().run_in_executor(None, mousetrap.send, "side", n)


def reads_side(n: int) -> None:
    """Read what the others send."""


WAYS = [
    sends_itself, sends_from_a_thread, sends_from_a_timer, sends_from_a_thread_of_a_thread,
    sends_from_a_subclass_of_thread, sends_from_a_pool, sends_from_a_pool_of_the_module,
    sends_from_a_thread_of_a_pool_of_threads, sends_in_a_generator, sends_in_a_coroutine,
    sends_in_a_task, sends_by_to_thread, sends_in_an_executor,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def pool_with_a_thread():
    """The thread of the module's pool is started outside any handling."""
    OUTSIDE.submit(int).result()


@pytest.mark.parametrize("way", WAYS)
def test_send_is_an_output_of_the_handling(way):
    """In whatever thread or task a handler sends: the same id each time, parent and job."""
    bound = stage(reads="work", writes="out")(way)
    source = Message(7, id="m1", job="j1", attempt=2)

    [first], [second] = bound.handle(source), bound.handle(source)

    assert first.id == second.id
    assert (first.data, first.parent, first.job, first.retries) == (7, "m1", "j1", 1)


@pytest.mark.parametrize("way", WAYS)
def test_send_reaches_its_queue_in_the_namespace_of_the_worker(way, settings, monkeypatch):
    """The environment names another broker: nothing is sent there."""
    monkeypatch.setenv("RABBITMQ_URL", "amqp://nobody@127.0.0.1:9/")
    first = stage(reads="work")(way)
    second = stage(reads="side")(reads_side)

    with mousetrap.run([first, second], settings) as run:
        receipts = run.send_many([1, 2], "work")
        summary = run.settle(timeout=20)

    assert (summary.sent, summary.done, summary.lost) == (2, 2, 0)
    assert summary.stages["reads_side"].done == 2
    families = {entry.job for entry in run.ledger.entries() if entry.queue == "side"}
    assert families == {receipt.message.id for receipt in receipts}


def test_ids_differ_by_queue_and_position_and_from_those_of_returned_values():
    """Two sends to one queue, one to another and a returned value: four ids."""

    @stage(reads="work", writes="out")
    def fan(n: int) -> int:
        mousetrap.send("a", [n, n])
        mousetrap.send("b", n)
        return n

    messages = fan.handle(Message(1, id="m"))

    assert len({each.id for each in messages}) == 4
    assert messages[0].id == Message(1, id="m").child(1, "fan", 0).id


def test_concurrent_sends_keep_their_ids_in_any_order():
    """Two threads send in the opposite order the next time: each body has the id it had before."""
    orders = [[2, 1, 2], [1, 2, 2]]

    @stage(reads="work")
    def both(n: int) -> None:
        for value in orders.pop():
            thread = threading.Thread(target=mousetrap.send, args=("a", value))
            thread.start()
            thread.join()

    first, second = (
        sorted((each.data, each.id) for each in both.handle(Message(1, id="m"))) for _ in range(2)
    )

    assert first == second
    assert len({id for _, id in first}) == 3


def test_a_failed_value_adds_nothing_of_its_call():
    """The first value is JSON, the second is not: a handler that goes on sends neither."""

    @stage(reads="work")
    def partly(n: int) -> None:
        mousetrap.send("a", 0)
        with pytest.raises(TypeError):
            mousetrap.send("a", [1, object()])

    assert [each.data for each in partly.handle(Message(1))] == [0]


def test_a_forwarded_message_gets_an_id_of_its_own():
    """The source is sent on as a `Message`: its body and headers, as a child of the source."""

    @stage(reads="work")
    def forward(message: Message) -> None:
        mousetrap.send("a", message)

    [sent] = forward.handle(Message({"n": 1}, id="m", headers={"tenant": "x"}))

    assert (sent.data, sent.headers, sent.parent) == ({"n": 1}, {"tenant": "x"}, "m")
    assert sent.id != "m"


def test_receipts_say_when_the_message_is_sent():
    """The result has the ids; waiting for a receipt inside the handler raises at once."""
    results = []

    @stage(reads="work")
    def waits(n: int) -> None:
        results.append(mousetrap.send("a", n))
        with pytest.raises(MousetrapError, match="when the handler returns"):
            results[0].receipts[0].wait()

    [sent] = waits.handle(Message(1))

    assert results[0].ids == [sent.id]
    assert repr(results[0]) == "1 will be sent when the handler returns → a"


def test_a_send_after_the_handling_is_an_error():
    """A thread that outlives the handler: its send raises, and nothing is added."""
    may_send, errors = threading.Event(), []

    def late():
        may_send.wait(10)
        try:
            mousetrap.send("a", 1)
        except MousetrapError as error:
            errors.append(str(error))

    threads = []

    @stage(reads="work")
    def leaves_a_thread(n: int) -> None:
        threads.append(threading.Thread(target=late))
        threads[0].start()

    assert leaves_a_thread.handle(Message(1, id="source")) == []
    may_send.set()
    threads[0].join(10)

    assert "message source, whose handling by leaves_a_thread has ended" in errors[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_send_in_a_forked_child_is_an_error():
    """A process that a handler forked cannot add to the handling: its send raises."""
    context = multiprocessing.get_context("fork")

    def child(answers):
        try:
            mousetrap.send("a", 1)
            answers.put("sent")
        except MousetrapError as error:
            answers.put(str(error))

    @stage(reads="work")
    def forks(n: int) -> None:
        answers = context.SimpleQueue()
        process = context.Process(target=child, args=(answers,))
        process.start()
        answer.append(answers.get())
        process.join(10)

    answer = []

    assert forks.handle(Message(1)) == []
    assert "this process was forked by the handler forks" in answer[0]


def test_pool_threads_that_a_handling_started_belong_to_no_handling_later():
    """The pool began in a handler; a task that is submitted outside is no part of it."""
    found = []
    with ThreadPoolExecutor(1) as pool:

        @stage(reads="work")
        def begins(n: int) -> None:
            found.append(pool.submit(current_handling.get, None).result())

        begins.handle(Message(1))
        found.append(pool.submit(current_handling.get, None).result())

    assert isinstance(found[0], Handling)
    assert found[1] is None


def test_settings_inside_a_handler_are_those_of_the_worker(settings):
    """`Settings.from_environment` in a handler: what it opens stays in the namespace of the run."""
    seen = []

    @stage(reads="work")
    def looks(n: int) -> None:
        seen.append((Settings.from_environment(), Settings.from_environment(os.environ)))

    with mousetrap.run(looks, settings) as run:
        run.send(1)
        run.settle(timeout=20)

    assert seen[0][0] == run.settings
    assert seen[0][1].namespace != run.namespace


def test_send_with_other_settings_leaves_the_handling(settings):
    """It is sent at once, although the handler raises, and the run does not count it."""
    other = settings.replace(namespace=f"{settings.namespace[:30]}-other")
    mousetrap.job_queue.declare("outside", settings=other)

    @stage(reads="work", retry_delays=())
    def deliberate(n: int) -> None:
        mousetrap.send("outside", n, settings=other)
        mousetrap.send("inside", n)
        raise ValueError("after both")

    with mousetrap.run(deliberate, settings) as run:
        run.send(5)
        summary = run.settle(timeout=20)

    [found] = mousetrap.job_queue.drain("outside", settings=other)
    assert (found.data, found.parent) == (5, None)
    assert (summary.dead, [e.queue for e in run.ledger.entries()]) == (1, ["work"])


def test_stage_that_was_handled_leaves_no_handling_behind():
    """After `Stage.handle`, code in this thread is in no handling."""
    bound = stage(reads="work")(sends_itself)
    bound.handle(Message(1))

    assert current_handling.get(None) is None
    assert current_message.get(None) is None


def test_a_queue_that_no_stage_reads_is_made_in_the_namespace(settings):
    """In a run a message to an unknown queue is a result, and its queue ends with the run."""

    @stage(reads="work")
    def to_nowhere(n: int) -> None:
        mousetrap.send("nowhere", n)

    with mousetrap.run(to_nowhere, settings) as run:
        run.send_many(range(5))
        summary = run.settle(timeout=20)
        found = run.results()

    assert (summary.done, sorted(each.data for each in found)) == (5, list(range(5)))
    assert mousetrap.job_queue.depths(["nowhere"], run.settings) == [None]

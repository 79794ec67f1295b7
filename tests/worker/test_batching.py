"""Batches in a worker: what one call gets, and what becomes of each of its messages."""

from __future__ import annotations

import asyncio
import copy
import gzip
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest
from support.messages import send
from support.waiting import wait_for

from mousetrap import Batch, FailedItems, Reject, Send, call
from mousetrap.amqp.delivery import Delivery
from mousetrap.errors import HandlersStuck
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.headers import LOSSES, TIMEOUTS
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.batch_executor import BatchExecutor, Work
from mousetrap.worker.batch_handler import BatchHandler
from mousetrap.worker.hooks import Hook
from mousetrap.worker.worker import Worker

WORK = Queue("work", ())
RETRIED = Queue("work", (0.05,))
LIMIT = 0.3  # seconds


class Calls:
    """A handler that keeps what each call got, and doubles it; *act* may raise."""

    def __init__(self, act: Callable[[list], object] = lambda _: None):
        self.got, self._act = [], act

    def __call__(self, values: list) -> list:
        self.got.append(copy.deepcopy(values))
        self._act(values)
        return [2 * each for each in values]

    @property
    def sizes(self) -> list[int]:
        return [len(each) for each in self.got]


def worker(function, settings, *, batch=Batch(5, within=0.1), queue=WORK, **options):  # noqa: B008 -- frozen
    return Worker(queue, BatchHandler(function, batch, "double"), settings, writes="out", **options)


def results(settings) -> list:
    return sorted(each.data for each in drain("out", settings=settings))


# ---- what one call gets: the executor alone ------------------------------------------------------


class Collected:
    """A `BatchExecutor` whose batches no thread takes until the test does, and whose time is over
    when the test says so.
    """

    def __init__(self, batch: Batch):
        self.submitted: list[Work] = []
        self.timers: list[Callable[[], object]] = []
        self.executor = BatchExecutor(
            self, batch, lambda _, function: self.timers.append(function), self.is_alone
        )

    def submit(self, work: Work) -> None:
        self.submitted.append(work)

    def is_alone(self, delivery: Delivery) -> bool:
        return delivery.body == b"alone"

    def deliver(self, *bodies: bytes, generation: int = 0) -> None:
        for body in bodies:
            self.executor.submit(Delivery(generation, 1, pika.BasicProperties(), body))

    def take(self) -> list[bytes]:
        """Return what the next call would get."""
        work = self.submitted.pop(0)
        self.executor.begin(work)
        return [each.body for each in iter(work.next_waiting, None)]


def test_batch_is_handled_when_it_is_full():
    """The next message begins another one."""
    it = Collected(Batch(2))
    it.deliver(b"a", b"b", b"c")

    assert it.take() == [b"a", b"b"]
    assert it.submitted == []


def test_batch_is_handled_when_its_time_is_over():
    """And goes on filling until a thread is free, but not beyond its size."""
    it = Collected(Batch(3))
    it.deliver(b"a")
    it.timers.pop()()
    it.deliver(b"b", b"c", b"d")

    assert [len(it.submitted), len(it.timers)] == [1, 1]
    assert it.take() == [b"a", b"b", b"c"]
    it.timers.pop()()
    assert it.take() == [b"d"]


def test_batch_that_was_begun_gets_no_more_messages():
    """They are for the next call."""
    it = Collected(Batch(3))
    it.deliver(b"a")
    it.timers.pop()()
    assert it.take() == [b"a"]
    it.deliver(b"b")

    assert it.submitted == []
    it.timers.pop()()
    assert it.take() == [b"b"]


def test_timer_of_a_batch_that_was_full_does_nothing():
    """It was handled before."""
    it = Collected(Batch(2))
    it.deliver(b"a", b"b")
    assert it.take() == [b"a", b"b"]

    it.timers.pop()()
    assert it.submitted == []


def test_message_that_is_handled_alone_waits_for_no_other():
    """It is a call of its own at once, and the batch that fills goes on filling."""
    it = Collected(Batch(2))
    it.deliver(b"a", b"alone", b"b")

    assert it.take() == [b"alone"]
    assert it.take() == [b"a", b"b"]


def test_deliveries_of_a_lost_channel_do_not_fill_a_batch():
    """The broker delivers them again."""
    it = Collected(Batch(2))
    it.deliver(b"a", generation=1)
    it.deliver(b"b", b"c", generation=3)

    assert it.take() == [b"b", b"c"]
    it.timers.pop(0)()
    assert it.submitted == []


# ---- with a broker -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_call_gets_a_batch_or_what_came_in_time(settings, is_async):
    """Twelve messages are three calls; each has its own outcome, and the outputs their ids."""
    calls = Calls()

    async def later(values: list) -> list:
        return calls(values)

    sent = send(settings, *range(12))
    with worker(later if is_async else calls, settings) as running:
        running.wait_until(done=12)

    assert calls.got == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    outputs = {each.parent: each for each in drain("out", settings=settings)}
    assert {each.id: outputs[each.id].data for each in sent} == {
        each.id: 2 * each.data for each in sent
    }
    assert all(outputs[each.id].id == each.child(0, "double", 0).id for each in sent)
    assert running.statistics().prefetch >= 10


def test_failed_items_fail_alone(settings):
    """One is dead-lettered, one is retried and done; the others are done at once."""
    rejected, attempts = Reject("no such city"), []

    def act(values: list) -> None:
        attempts.append(list(values))
        errors = {values.index(2): rejected} if 2 in values else {}
        if 3 in values and len(attempts) == 1:
            errors[values.index(3)] = ValueError("no luck")
        raise FailedItems(errors, [2 * each for each in values])

    send(settings, *range(5))
    with worker(Calls(act), settings, queue=RETRIED) as running:
        now = running.wait_until(done=4, dead=1)

    assert (now.retried, attempts) == (1, [[0, 1, 2, 3, 4], [3]])
    assert results(settings) == [0, 2, 6, 8]
    [dead] = drain("work.dead", settings=settings)
    assert (dead.data, dead.reason) == (2, "Reject: no such city")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("no luck"), SystemExit(1), "wrong number"], ids=lambda each: str(each)
)
def test_after_any_other_error_each_message_is_handled_alone_at_once(settings, error, is_async):
    """As the same attempt, with its data as they arrived; one bad row takes no other along."""

    def act(values: list) -> None:
        if [3] in values:
            if error == "wrong number":
                values.append([0])  # so that there is a result too many
            else:
                values[0].append(99)  # the list and what is in it are the function's to change
                values.clear()
                raise error

    calls = Calls(act)

    async def later(values: list) -> list:
        return calls(values)

    send(settings, *([n] for n in range(5)))
    function = later if is_async else calls
    with worker(function, settings) as running:
        now = running.wait_until(done=4, dead=1)

    assert (now.retried, now.in_progress) == (0, 0)
    assert calls.got == [[[0], [1], [2], [3], [4]], [[0]], [[1]], [[2]], [[3]], [[4]]]
    assert results(settings) == [[n, n] for n in (0, 1, 2, 4)]
    [dead] = drain("work.dead", settings=settings)
    assert (dead.data, dead.attempt) == ([3], 1)


def test_message_that_cannot_be_decoded_fails_alone(settings):
    """It never reaches the list; nor does an output that cannot be JSON harm its neighbours."""
    calls: list[list[int]] = []

    def double(values: list[int]) -> list:
        calls.append(values)
        return [object() if each == 2 else each for each in values]

    send(settings, 1, "text", 2, Message(body=b""), 3)
    with worker(double, settings) as running:
        running.wait_until(done=2, dead=3)

    assert calls == [[1, 2, 3]]
    assert results(settings) == [1, 3]
    reasons = sorted(
        each.reason.partition(":")[0] for each in drain("work.dead", settings=settings)
    )
    assert reasons == ["TypeError", "UndecodableMessage", "UndecodableMessage"]


def test_outputs_with_targets_of_their_own(settings):
    """A `Send`, an iterator of several, no output: as an element, what a plain handler returns."""

    def route(messages: list[Message]) -> list:
        return [Send(1, to="late"), iter([2, Send(3, to="late")]), None]

    declare("late", settings=settings)
    send(settings, *"abc")
    handler = BatchHandler(route, Batch(3, within=5))
    with Worker(WORK, handler, settings, writes="out", routes="late") as running:
        running.wait_until(done=3)

    assert results(settings) == [2]
    assert sorted(each.data for each in drain("late", settings=settings)) == [1, 3]


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_bytes_of_one_call_are_bounded(settings, encoding):
    """By the size after decompression; a message that is too large for others comes alone."""
    calls = Calls()
    body = b'"' + 1000 * b"a" + b'"'
    sent = gzip.compress(body) if encoding else body

    send(settings, *[Message(body=sent, content_encoding=encoding) for _ in range(5)])
    batch = Batch(5, within=5, max_bytes=2000)
    with worker(calls, settings, batch=batch) as running:
        running.wait_until(done=5)

    assert calls.sizes == [2, 2, 1]


@pytest.mark.parametrize("headers", [{LOSSES: 2}, {TIMEOUTS: 1}], ids=str)
def test_batches_from_the_quarantine_are_of_one(settings, headers):
    """Whatever queue it comes from: a possible poison message is handled alone."""
    calls = Calls()
    messages = [Message(n, headers=headers) for n in (3, 4)]
    declare("work.quarantine", settings=settings)
    send(settings, 0, 1, messages[0], 2)
    send(settings, messages[1], queue="work.quarantine")
    with worker(calls, settings, batch=Batch(3, within=30)) as running:
        running.wait_until(done=5)

    assert sorted(calls.got) == [[0, 1, 2], [3], [4]]


def test_handler_that_is_swapped_gets_the_next_batch(settings):
    """The batch size stays; a function without batches needs another worker."""
    gate, begun = threading.Event(), threading.Event()

    def wait(values: list) -> None:
        begun.set()
        gate.wait(20)

    first, second = Calls(wait), Calls()
    send(settings, *range(4))
    with worker(first, settings, batch=Batch(2, within=5)) as running:
        assert begun.wait(10)
        running.swap(BatchHandler(second, Batch(3), "other"))
        with pytest.raises(TypeError, match="functions of batches"):
            running.swap(lambda n: n)
        gate.set()
        running.wait_until(done=4)

    assert (first.got, second.got) == ([[0, 1]], [[2, 3]])


def test_hooks_are_called_with_each_message(settings):
    """Before the call with each, after it with the outcome of each."""
    happened = []

    class Noted(Hook):
        def started(self, _, message):
            happened.append(("started", message.data))

        def finished(self, _, outcome):
            happened.append((outcome.kind, outcome.id))

    sent = send(settings, *range(3))
    with worker(Calls(), settings, batch=Batch(3, within=5), hooks=[Noted()]) as running:
        running.wait_until(done=3)

    assert happened[:3] == [("started", n) for n in range(3)]
    assert sorted(happened[3:]) == sorted(("done", each.id) for each in sent)


# ---- the time limit ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_batch_that_takes_too_long_takes_no_neighbour_along(settings, is_async):
    """Its messages are handled alone, from the quarantine; only the one that hangs has failed."""
    gate = threading.Event()
    calls = Calls(lambda values: gate.wait(20) if 3 in values else None)

    async def later(values: list) -> list:
        while 3 in values and not gate.is_set():
            await asyncio.sleep(0.01)
        return calls(values)

    send(settings, *range(5))
    function = later if is_async else calls
    with worker(function, settings, timeout=LIMIT, concurrency=3) as running:
        running.wait_until(done=4, dead=1)
        gate.set()

    assert results(settings) == [0, 2, 4, 8]
    [dead] = drain("work.dead", settings=settings)
    assert dead.data == 3
    assert dead.reason.startswith("HandlerTimedOut: double had not returned after 0.3 s")


def test_batch_that_hangs_is_not_handled_for_ever(settings):
    """Each worker that ends because its handler hangs leaves the batch in the quarantine."""
    gate = threading.Event()
    calls = Calls(lambda values: gate.wait(60) if 3 in values else None)
    send(settings, *range(5))
    try:
        for _ in range(3):  # the batch; its message alone; the last one for the rest
            running = worker(calls, settings, timeout=LIMIT).start()
            try:
                running.wait_until(done=4, dead=1, timeout=3)
            except (HandlersStuck, TimeoutError):
                pass
            finally:
                running.stop(0.1)
    finally:
        gate.set()

    assert [each.data for each in drain("work.dead", settings=settings)] == [3]
    assert results(settings) == [0, 2, 4, 8]


# ---- stopping, and connections that are cut ------------------------------------------------------


@pytest.mark.parametrize("process_ends", [False, True])
def test_messages_that_wait_for_a_batch_to_fill_are_given_back(settings, process_ends):
    """A stop does not wait for the batch, begins none of it, and nothing counts as lost."""
    calls = Calls()
    send(settings, *range(3))
    running = worker(calls, settings, batch=Batch(5, within=60)).start()
    wait_for(lambda: running.unacked == 3)
    assert running.statistics().prefetched == 3

    running.stop(timeout=5.0, process_ends=process_ends)

    assert calls.got == []
    left = drain("work", settings=settings)
    assert sorted(each.data for each in left) == [0, 1, 2]
    assert not any(each.losses for each in left)


@pytest.mark.parametrize("fails", [False, True])
def test_batch_whose_handler_does_not_return_is_given_back(settings, fails):
    """All of it, also what waits to be handled alone; what the handler returns later is dropped."""
    gate, begun = threading.Event(), threading.Event()

    def act(values: list) -> None:
        if fails and len(values) > 1:
            raise ValueError("no luck")
        begun.set()
        gate.wait(30)

    send(settings, *range(4))
    running = worker(Calls(act), settings, batch=Batch(4, within=5)).start()
    assert begun.wait(10)
    running.stop(timeout=0.2)
    gate.set()

    assert running.given_back == 4
    left = drain("work", settings=settings)
    assert sorted(each.data for each in left) == [0, 1, 2, 3]
    assert {(each.losses, each.attempt) for each in left} == {(0, 1)}
    assert depth("out", settings).messages == 0


def test_batch_is_handled_again_after_its_connection_was_cut(settings, proxy):
    """What waited and what was handled is delivered again; nothing is lost, or counted as lost."""
    gate, begun = threading.Event(), threading.Event()

    def act(values: list) -> None:
        begun.set()
        gate.wait(20)

    calls = Calls(act)
    send(settings, *range(7))
    with worker(calls, proxy.settings, batch=Batch(5, within=1.0)) as running:
        assert begun.wait(10)
        proxy.cut()
        wait_for(lambda: running.statistics().reconnects and running.unacked == 7)
        gate.set()
        wait_for(lambda: running.unacked == 0 and len(calls.got) >= 3)

    assert set(results(settings)) == {2 * n for n in range(7)}
    with open_channel(settings) as channel:
        name = settings.topology.wire_name("work.quarantine")
        assert channel.queue_declare(name, passive=True).method.message_count == 0


def test_each_message_of_a_batch_is_answered(settings):
    """With the element that is its own."""
    calls = Calls()
    with worker(calls, settings, batch=Batch(3, within=5)), ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(call, "work", n, timeout=20, settings=settings) for n in range(3)]
        answers = [each.result() for each in asked]

    assert (answers, calls.sizes) == ([0, 2, 4], [3])

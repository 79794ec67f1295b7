"""The worker: a message is acked only after everything that came of it is confirmed."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from support.messages import QUICK, double, send
from support.waiting import wait_for

from mousetrap.errors import AccessRefused, MousetrapError, Reject, TopologyMismatch
from mousetrap.job_queue import declare, delete, depth, drain, open_channel
from mousetrap.model.message import Message, current_message
from mousetrap.model.targets import OutputTargets
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker


@dataclass(frozen=True)
class Job:
    seed: int
    name: str = ""


def always_fails(_: object) -> None:
    raise ValueError("no luck")


def test_worker_sends_results_on_and_acks(settings):
    """Each message becomes a result, and the source queue is empty then."""
    send(settings, *range(50))

    with Worker(QUICK, double, settings, writes="out") as worker:
        statistics = worker.wait_until(done=50, timeout=10)

    assert "<caption" in (shown := statistics._repr_html_())  # a table in a notebook
    assert "a worker: 50 done, 0 retried, 0 dead" in shown
    assert sorted(m.data for m in drain("out", settings=settings)) == [2 * n for n in range(50)]
    assert depth("work", settings).messages == 0


def test_worker_results_have_the_same_id_each_time(settings):
    """The results of a job that was done twice have the same id, and name parent and job."""
    [job] = send(settings, Message(3, id="j1"))
    with Worker(QUICK, double, settings, writes="out") as worker:
        worker.wait_until(done=1)
        send(settings, Message(3, id="j1"))
        worker.wait_until(done=2)

    first, second = drain("out", settings=settings)
    assert first.id == second.id
    assert first.id != job.id
    assert (first.parent, first.job) == ("j1", "j1")


def test_worker_retries_with_the_configured_delays_and_then_succeeds(settings):
    """A handler that fails twice is called a third time, and its result is sent."""
    attempts = []

    def fails_twice(n: int) -> int:
        attempts.append(current_message.get().attempt)
        if len(attempts) < 3:
            raise ConnectionError("not yet")
        return n

    send(settings, 7)
    with Worker(QUICK, fails_twice, settings, writes="out") as worker:
        worker.wait_until(done=1, retried=2)

    [result] = drain("out", settings=settings)
    assert attempts == [1, 2, 3]
    assert (result.data, result.retries) == (7, 2)


def test_worker_dead_letters_when_retries_are_used_up(settings):
    """A job that always fails is in the dead queue once, with the reason of its failure."""
    [sent] = send(settings, {"seed": 1})

    with Worker(QUICK, always_fails, settings) as worker:
        worker.wait_until(dead=1, timeout=5)

    [dead_lettered] = drain(QUICK.dead, settings=settings)
    assert dead_lettered.id == sent.id
    assert dead_lettered.attempt == 3
    assert dead_lettered.reason == "ValueError: no luck"
    assert "always_fails" in dead_lettered.traceback
    assert dead_lettered.origin == "work"


def test_worker_dead_letters_a_rejected_message_at_once(settings):
    """After `Reject` the message is not retried."""

    def rejects(_: object) -> None:
        raise Reject("there is no such customer")

    send(settings, 1)
    with Worker(QUICK, rejects, settings) as worker:
        now = worker.wait_until(dead=1)

    assert now.retried == 0
    assert drain(QUICK.dead, settings=settings)[0].attempt == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{bad json", "not JSON"),
        (b'{"seed": "one"}', "wrong type"),
        (b"\xff\xfe", "not"),
        (b"NaN", "not JSON"),
        (b"", "empty body"),
        (b'{"seed":' * 10_000, "wrong type"),
    ],
)
def test_worker_dead_letters_what_it_cannot_decode(settings, body, reason):
    """A malformed message keeps its body and gets a reason; its neighbours are handled."""
    send(settings, {"seed": 1}, Message(body=body), {"seed": 2})

    def seed_of(job: Job) -> int:
        return job.seed

    with Worker(QUICK, seed_of, settings, writes="out") as worker:
        worker.wait_until(done=2, dead=1)

    [dead_lettered] = drain(QUICK.dead, settings=settings)
    assert dead_lettered.body == body
    assert dead_lettered.reason.startswith("UndecodableMessage: ")
    assert reason in dead_lettered.reason
    assert [m.data for m in drain("out", settings=settings)] == [1, 2]


def test_worker_survives_a_handler_that_exits(settings):
    """`sys.exit` in a handler is a failure of that message and does not end the worker."""

    def exits(n: int) -> int:
        if n == 0:
            raise SystemExit(0)
        return n

    send(settings, 0, 1)
    with Worker(QUICK, exits, settings) as worker:
        worker.wait_until(done=1, dead=1)

    assert drain(QUICK.dead, settings=settings)[0].reason == "SystemExit: 0"


def test_worker_keeps_what_another_client_set(settings):
    """Correlation id and foreign headers are kept in retries and in the dead letter."""
    import pika

    declare(QUICK, settings=settings)
    with open_channel(settings) as channel:
        channel.basic_publish(
            "",
            settings.topology.wire_name("work"),
            b"1",
            pika.BasicProperties(correlation_id="c-1", headers={"tenant": "x"}, expiration="60000"),
        )
        with Worker(QUICK, always_fails, settings) as worker:
            worker.wait_until(dead=1)
        _, properties, _ = channel.basic_get(settings.topology.wire_name(QUICK.dead), auto_ack=True)

    assert properties.correlation_id == "c-1"
    assert properties.headers["tenant"] == "x"
    assert properties.expiration is None  # a dead letter must not expire
    assert not [key for key in properties.headers if key.startswith("x-")]


def test_worker_dead_letters_a_message_whose_headers_fill_a_frame(settings):
    """The body is kept; headers that do not fit a frame with ours are dropped and named."""
    import pika

    declare(QUICK, settings=settings)
    with open_channel(settings) as channel:
        properties = pika.BasicProperties(headers={"absurd": "x" * 125_000})
        channel.basic_publish("", settings.topology.wire_name("work"), b"1", properties)
    with Worker(QUICK, always_fails, settings) as worker:
        worker.wait_until(dead=1)
        assert worker.statistics().reconnects == 0

    [dead_lettered] = drain(QUICK.dead, settings=settings)
    assert dead_lettered.body == b"1"
    assert "would not fit" in dead_lettered.headers["mousetrap-dropped"]


@pytest.mark.parametrize("value", [1.5, -1e300, datetime(9999, 12, 31, tzinfo=UTC)])
def test_worker_keeps_header_values_that_pika_would_change(settings, value):
    """A double or a far date in a foreign header reaches the dead letter unchanged."""
    import pika

    declare(QUICK, settings=settings)
    with open_channel(settings) as channel:
        properties = pika.BasicProperties(headers={"value": [{"value": value}]})
        channel.basic_publish("", settings.topology.wire_name("work"), b"1", properties)
    with Worker(QUICK, always_fails, settings) as worker:
        worker.wait_until(dead=1)

    [dead_lettered] = drain(QUICK.dead, settings=settings)
    assert dead_lettered.headers["value"] == [{"value": value}]


def test_worker_does_not_ack_before_the_result_is_confirmed(settings):
    """While the output queue is full, the source stays unacked; later every result arrives once."""
    name = settings.topology.wire_name("out")
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish", "x-expires": 60_000}
    with open_channel(settings) as channel:
        channel.queue_declare(name, durable=True, arguments=arguments)
        channel.basic_publish("", name, b"fills it")
        send(settings, 1, 2, 3)
        worker = Worker(QUICK, double, settings)
        worker._processor.targets = OutputTargets(
            "out"
        )  # without declaring it: its arguments are not ours
        with worker:
            wait_for(lambda: "refused" in worker.statistics().problem)
            assert worker.statistics().done == 0
            results = []
            while len(results) < 4:  # the queue holds one at a time
                method, _, body = channel.basic_get(name, auto_ack=True)
                results += [body] if method else []
                channel.connection.process_data_events(0.05)
            worker.wait_until(done=3)

    assert sorted(results) == [b"2", b"4", b"6", b"fills it"]
    assert depth("work", settings).messages == 0


def test_worker_declares_a_deleted_output_queue_again(settings):
    """When the output queue is deleted, the result waits and the queue is declared again."""
    gate = threading.Event()

    def waits(n: int) -> int:
        gate.wait(10)
        return n

    send(settings, 5)
    with Worker(QUICK, waits, settings, writes="out") as worker:
        wait_for(lambda: worker.statistics().in_progress == 1)
        delete("out", settings=settings)
        gate.set()
        worker.wait_until(done=1, timeout=10)

    assert [m.data for m in drain("out", settings=settings)] == [5]


def test_worker_consumes_again_when_its_queue_is_deleted(settings):
    """A consumer that the broker cancels declares its queue and consumes again."""
    with Worker(QUICK, double, settings, writes="out") as worker:
        delete("work", settings=settings)
        wait_for(lambda: worker.statistics().reconnects == 1)
        send(settings, 4)
        worker.wait_until(done=1)

    assert [m.data for m in drain("out", settings=settings)] == [8]


def test_worker_loses_nothing_when_the_connection_is_cut(settings, proxy):
    """After cuts under load every job has a result; some have two, none is missing."""
    jobs = send(settings, *range(300))
    with Worker(QUICK, double, proxy.settings, writes="out", concurrency=4) as worker:
        for done in (50, 100, 150, 200):
            worker.wait_until(done=done)
            proxy.cut()
        wait_for(
            lambda: depth("work", settings).messages == 0 and not worker.statistics().in_progress
        )

    results = drain("out", settings=settings, idle=0.2)
    assert {result.job for result in results} == {job.id for job in jobs}
    assert depth("work", settings).messages == 0


def test_worker_returns_messages_that_it_has_not_begun(settings):
    """Stopping finishes the message in progress; prefetched ones are in the queue again."""
    begun, gate = threading.Event(), threading.Event()

    def waits(n: int) -> int:
        begun.set()
        gate.wait(10)
        return n

    send(settings, *range(10))
    worker = Worker(QUICK, waits, settings, writes="out").start()
    assert begun.wait(10)
    threading.Timer(0.2, gate.set).start()
    worker.stop()

    assert worker.statistics().done == 1
    assert depth("out", settings).messages == 1
    assert depth("work", settings).messages == 9


def test_worker_handles_as_many_messages_at_a_time_as_allowed(settings):
    """With a concurrency of 5, five calls of the handler meet at a barrier."""
    barrier = threading.Barrier(5, timeout=10)

    def meets(n: int) -> int:
        barrier.wait()  # passes only when five threads wait
        return n

    send(settings, *range(20))
    with Worker(QUICK, meets, settings, concurrency=5) as worker:
        worker.wait_until(done=20)


def test_worker_runs_coroutines_concurrently(settings):
    """Twenty calls of an `async def` handler wait on one event loop at the same time."""
    waiting = 0

    async def meets(n: int) -> int:
        nonlocal waiting
        waiting += 1
        while waiting < 20:
            await asyncio.sleep(0)
        return n

    send(settings, *range(20))
    with Worker(QUICK, meets, settings, writes="out", concurrency=20) as worker:
        worker.wait_until(done=20)

    assert len(drain("out", settings=settings)) == 20


def test_worker_retries_coroutines_too(settings):
    """A failing coroutine is retried and dead-lettered like a failing function."""

    async def fails(_: int) -> None:
        raise ValueError("no luck")

    send(settings, 1)
    with Worker(QUICK, fails, settings) as worker:
        worker.wait_until(retried=2, dead=1)


def test_worker_sends_each_value_of_a_generator(settings):
    """Each value of a generator is an output; a generator that raises sends nothing."""

    def split(n: int):
        yield from range(n)
        if n == 2:
            raise ValueError("half-way")

    send(settings, 3, 2)
    with Worker(QUICK, split, settings, writes="out") as worker:
        worker.wait_until(done=1, dead=1)

    results = drain("out", settings=settings)
    assert [m.data for m in results] == [0, 1, 2]
    assert len({m.id for m in results}) == 3


@pytest.mark.long
@pytest.mark.timeout(400)
def test_worker_idle_for_three_minutes_and_a_handler_of_one(settings):
    """With a heartbeat of 20 s: 180 s idle, then a handler of 60 s, and no reconnect."""

    def slow(_: int) -> None:
        threading.Event().wait(60)

    with Worker(QUICK, slow, settings.replace(heartbeat=20.0)) as worker:
        assert worker.wait(180) is False
        send(settings, 1)
        worker.wait_until(done=1, timeout=90)

        assert worker.statistics().reconnects == 0


def test_worker_keeps_its_namespace_alive(settings):
    """Queues that expire after one second still exist after three, with their messages."""
    short = settings.replace(queue_expiry=1.0)
    queue = Queue("work", retry_delays=(2.5,))

    def fails_once(n: int) -> int:
        if current_message.get().attempt == 1:
            raise ValueError("later")
        return n

    with Worker(queue, fails_once, short, writes="out") as worker:
        send(short, 1)
        worker.wait_until(done=1, retried=1)

        assert depth("out", short).messages == 1


def test_worker_does_not_start_without_access(settings, caplog):
    """With a wrong password `start` raises, logs nothing, and leaves no thread behind."""
    before = set(threading.enumerate())
    with pytest.raises(AccessRefused):
        Worker(QUICK, double, settings.replace(password="x")).start()

    assert not set(threading.enumerate()) - before
    assert [each for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []


def test_worker_does_not_start_on_a_mismatched_queue(settings, caplog):
    """When the queue has other arguments, `start` raises an error that names them, and no log."""
    name = settings.topology.wire_name("work")
    with open_channel(settings) as channel:
        channel.queue_declare(name, durable=True, arguments={"x-max-length": 5})
        with pytest.raises(TopologyMismatch, match="the broker's"):
            Worker(QUICK, double, settings).start()
        channel.queue_delete(name)
    assert [each for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_reports_a_defect_in_a_handler_thread(settings, monkeypatch):
    """A defect of ours in a handler's thread stops the worker with an error."""
    worker = Worker(QUICK, double, settings, writes="out")
    monkeypatch.setattr(worker._processor, "publish_outputs", lambda *_: 1 / 0)
    send(settings, 1)

    with worker, pytest.raises(MousetrapError, match="ZeroDivisionError"):
        worker.wait_until(done=1)

    assert worker.statistics().state == "failed"
    assert depth("work", settings).messages == 1


def test_worker_wait_until_reports_the_counts_on_timeout(settings):
    """The error has the counts that were reached."""
    with (
        Worker(QUICK, double, settings) as worker,
        pytest.raises(TimeoutError, match="received=0"),
    ):
        worker.wait_until(done=1, timeout=0.1)


def test_worker_logs_no_body_and_no_error_text(settings, caplog):
    """The log has only the type of an error, because its text may quote the body."""

    def quotes(card: str) -> None:
        raise ValueError(f"cannot charge {card}")

    send(settings, "4711-canary")
    with Worker(Queue("work", ()), quotes, settings) as worker:
        worker.wait_until(dead=1)

    assert "ValueError" in caplog.text
    assert "4711-canary" not in caplog.text

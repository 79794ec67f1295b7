"""Messages that are sent to come later, first, or not too late."""

from __future__ import annotations

import threading
import time

import pytest
from support.messages import existing_queues
from support.waiting import wait_for

import mousetrap
from mousetrap import Exchange, Queue, Send, stage
from mousetrap.amqp import new_queues
from mousetrap.errors import MessageDied, NotSettled, QueueMissing, SettingsError
from mousetrap.flows.send import send
from mousetrap.job_queue import declare, depth, peek
from mousetrap.model.delays import delay_queue, waiting_time
from mousetrap.worker.worker import Worker

LATE = 0.5  # seconds that a busy machine may take beside the delay


class Arrivals:
    """A handler that knows when each message came."""

    def __init__(self) -> None:
        self.at: dict[object, float] = {}
        self.order: list[object] = []

    def __call__(self, value: object) -> None:
        self.at[value] = time.monotonic()
        self.order.append(value)


def test_delayed_messages_come_when_their_delay_is_over(anywhere):
    """The shortest behind the longest; none comes early, beyond the rounding."""
    declare("remind", settings=anywhere)
    sent = {}
    for delay in (604_800, 1.23, 0.4, 0.05):
        sent[delay] = time.monotonic()
        assert send("remind", delay, settings=anywhere, delay=delay).counts == {"confirmed": 1}
    arrivals = Arrivals()
    with Worker("remind", arrivals, anywhere) as worker:
        worker.wait_until(done=3)

    for delay, at in arrivals.at.items():
        assert waiting_time(delay) <= at - sent[delay] + 0.005
    assert set(arrivals.at) == {1.23, 0.4, 0.05}
    assert depth("remind.delay.600000s", anywhere).messages == 1


def test_delay_is_kept_within_a_tenth_of_a_second(settings):
    """With the message already on its way when a worker waits for it."""
    arrivals = Arrivals()
    late = []
    with Worker("remind", arrivals, settings) as worker:
        for n, delay in enumerate((0.05, 0.3, 0.3, 0.05, 0.3)):
            before = time.monotonic()
            send("remind", n, settings=settings, delay=delay)
            worker.wait_until(done=n + 1)
            late.append(arrivals.at[n] - before - delay)

    assert sorted(late)[1] < 0.1  # of five: other load of the machine may make some later
    assert min(late) > -0.005


def test_any_number_of_delays_uses_few_queues(settings):
    """A hundred different delays within 5 % wait in at most three queues."""
    declare("remind", settings=settings)
    places = {delay_queue("remind", waiting_time(600 + n / 4)) for n in range(100)}
    for n in range(0, 100, 25):
        send("remind", n, settings=settings, delay=600 + n / 4)

    assert len(places) <= 3
    waiting = [depth(each, settings).messages for each in places]
    assert sum(waiting) == 4


def test_delay_to_a_queue_that_does_not_exist_is_refused(settings):
    """It would wait there for ever: nothing is sent, and the delay queue is not declared."""
    with pytest.raises(QueueMissing, match=r"no queue 'remindd'.*nothing was sent"):
        send("remindd", 1, settings=settings, delay=60)
    with pytest.raises(QueueMissing):
        depth("remindd.delay.60s", settings)


def test_delay_to_an_exchange_is_refused(settings):
    """By `send` as well: nothing is sent."""
    with pytest.raises(SettingsError, match="only queues have delay queues") as refused:
        send(Exchange("orders")["order.paid"], 1, settings=settings, delay=1)

    assert refused.value.receipts == []


def test_first_send_with_a_delay_waits_until_its_queue_is_safe(settings, monkeypatch):
    """Confirms of a new quorum queue do not count at once; those of an old one do."""
    monkeypatch.setattr(new_queues, "NEW_QUEUE_TIME", 1.0)
    declare("remind", settings=settings)
    first = send("remind", 1, settings=settings, delay=30).seconds
    second = send("remind", 2, settings=settings, delay=30).seconds

    assert first >= 1.0 > second


def test_priority_is_kept_by_delays_and_retries(settings):
    """It is the property of AMQP; what it means depends on the queue."""
    seen = []

    def failing(message: mousetrap.Message) -> None:
        seen.append(message.attempt)
        raise ValueError("no luck")

    queue = Queue("remind", retry_delays=(0.05,))
    declare(queue, settings=settings)
    send("remind", 1, settings=settings, delay=0.05, priority=7)
    with Worker(queue, failing, settings) as worker:
        worker.wait_until(dead=1)
    with mousetrap.open_channel(settings) as channel:
        _, properties, _ = channel.basic_get(settings.topology.wire_name("remind.dead"), True)

    assert seen == [1, 2]
    assert properties.priority == 7


def test_message_that_expired_is_dead_lettered_with_that_reason(anywhere):
    """Never silently; one that is begun in time is handled; a replay is handled, too."""
    declare("work", settings=anywhere)
    send("work", "late", settings=anywhere, expires=0.05)
    send("work", "in time", settings=anywhere, expires=60)
    send("work", "delayed", settings=anywhere, delay=0.05, expires=30)
    time.sleep(0.1)  # the time itself is the subject
    arrivals = Arrivals()
    with Worker("work", arrivals, anywhere) as worker:
        worker.wait_until(done=2, dead=1)
        [letter] = peek("work.dead", settings=anywhere)
        mousetrap.dead("work", settings=anywhere).replay()
        worker.wait_until(done=3)

    assert (letter.data, letter.attempt) == ("late", 1)
    assert letter.reason.startswith("Expired: no worker began with it in the time")
    assert set(arrivals.at) == {"late", "in time", "delayed"}


# ---- flows -----------------------------------------------------------------------------------


@stage(reads="tasks", writes="first", routes=["second"])
def later(n: int):
    """Send *n* to both queues: to one later, and to the other by itself."""
    yield Send(n, delay=0.2, priority=3)
    mousetrap.send("second", n, delay=0.3)


@stage(reads="first")
def first(n: int) -> None: ...


@stage(reads="second")
def second(n: int) -> None: ...


def test_settle_waits_for_delayed_messages(anywhere):
    """Jobs and outputs; their wait does not count the delay; the run deletes their queues."""
    with mousetrap.run([later, first, second], anywhere) as run:
        run.send_many(range(3), "tasks", delay=0.4)
        began = time.monotonic()
        summary = run.settle(timeout=30)
        seconds = time.monotonic() - began
        queues = existing_queues(run)

    assert seconds > 0.4
    assert (summary.sent, summary.done, summary.dead, summary.lost) == (3, 3, 0, 0)
    assert [each.done for each in summary.stages.values()] == [3, 3, 3]
    assert max(each.wait["p50"] for each in summary.stages.values()) < LATE
    delayed = {each.removeprefix(f"{run.namespace}.") for each in queues if ".delay." in each}
    assert delayed == {"tasks.delay.0.4s", "first.delay.0.2s", "second.delay.0.3s"}
    assert existing_queues(run) == {}


def test_settle_that_times_out_says_what_waits_until_when(settings):
    """In the table and in a line for each delay."""
    with mousetrap.run([first, second], settings) as run:
        run.send(1, "first", delay=3600)
        with pytest.raises(NotSettled) as error:
            run.settle(timeout=0.5)

    assert "first, after 3600 s" in repr(error.value.table)
    assert "first.delay.3600s: 1 were sent to come later, until 20" in str(error.value)


def test_settle_waits_for_delayed_messages_of_another_program(settings):
    """The run does not know them; it knows their delay queue, and deletes it."""
    with mousetrap.run([first, second], settings) as run:
        send("first", 1, settings=run.settings, delay=1.0)
        wait_for(lambda: run._queues.delay_queues())
        run.settle(timeout=30)
        done = run.ledger.counts()["first"]["done"]

    assert done == 1
    assert existing_queues(run) == {}


def test_handler_that_sends_later_to_a_queue_it_does_not_name_fails(settings):
    """If there were no such queue, nobody would learn it; the error says what to do."""

    @stage(reads="tasks", retry_delays=())
    def careless(n: int) -> None:
        mousetrap.send("second", n, delay=1)

    with mousetrap.run([careless, second], settings) as run:
        run.send(1, "tasks")
        with pytest.raises(MessageDied, match="Name it in routes"):
            run.settle(timeout=20, fail_fast=True)


def test_delay_queue_with_other_arguments_is_not_used(anywhere):
    """A message might never come back from it: another queue stands in, and is deleted, too."""
    with mousetrap.run([later, first, second], anywhere) as run:
        with mousetrap.open_channel(run.settings) as channel:
            taken = f"{run.namespace}.second.delay.0.3s"
            channel.queue_declare(taken, durable=True)
        run.send(1, "tasks")
        summary = run.settle(timeout=30)
        queues = existing_queues(run)

    assert (summary.done, summary.lost) == (1, 0)
    assert {taken, f"{taken}.2"} <= queues.keys()
    assert existing_queues(run) == {}


def test_expired_jobs_of_a_run_are_dead_with_one_reason(settings):
    """They count as dead; the summary groups them."""
    release = threading.Event()

    @stage(reads="tasks")
    def slow(n: int) -> None:
        release.wait(20)

    with mousetrap.run([slow], settings) as run:
        run.send(0)
        run.send_many(range(3), expires=0.1)
        time.sleep(0.2)  # the time itself is the subject
        release.set()
        summary = run.settle(timeout=20)

    assert (summary.done, summary.dead) == (1, 3)
    assert list(summary.reasons.values()) == [3]

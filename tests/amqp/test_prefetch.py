"""The automatic prefetch: enough for quick handlers, one more than the slow ones need."""

from __future__ import annotations

import threading

import pytest
from support.messages import send
from support.waiting import wait_for

from mousetrap.amqp import prefetch
from mousetrap.amqp.consumer import Consumer
from mousetrap.amqp.prefetch import AutomaticPrefetch
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import ensure
from mousetrap.job_queue import declare, delete, depth, open_channel
from mousetrap.model.message import Message
from mousetrap.settings import Settings
from mousetrap.worker.worker import Worker

TYPES = pytest.mark.parametrize("queue_type", ["classic", "quorum"])


class Handlers:
    """Handlers that are free at once, or busy with all that was delivered."""

    def __init__(self):
        self.are_quick = True
        self.deliveries = []

    def load(self):
        return (0 if self.are_quick else 1), self.are_quick

    def handle(self, delivery):
        self.deliveries.append(delivery)
        if self.are_quick:
            self.consumer.ack(delivery)


@pytest.fixture
def handlers():
    return Handlers()


@pytest.fixture
def consume(handlers):
    """Start a consumer of an existing queue, whose prefetch follows *handlers*."""
    opened = []

    def consume(settings, least=2, queue="work"):
        handlers.prefetch = AutomaticPrefetch(least, handlers.load)
        handlers.consumer = Consumer(
            settings, settings.topology.wire_name(queue), handlers.prefetch, [],
            on_delivery=handlers.handle, on_failed=print,
        )  # fmt: skip
        opened.append(handlers.consumer)
        handlers.consumer.open()
        return handlers.consumer

    yield consume
    for consumer in opened:
        consumer.close(5)


@TYPES
def test_quick_handlers_get_many_messages(settings, queue_type):
    """The number grows while handlers wait for messages, and each message is handled once."""
    settings = settings.replace(queue_type=queue_type)
    numbers = []
    worker = Worker("work", lambda n: numbers.append(n), settings)
    with worker:
        for start in range(0, 40_000, 2_000):
            send(settings, *range(start, start + 2_000))
            worker.wait_until(done=start + 2_000)
            if worker.statistics().prefetch > 16:
                break
        assert worker.statistics().prefetch > 16
        assert sorted(numbers) == list(range(start + 2_000))
        assert worker.statistics().received == len(numbers)
    delete("work", settings=settings)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_slow_handlers_keep_one_message_more_than_they_handle(settings, hold, concurrency):
    """The other messages stay in the queue, where another worker gets them."""
    send(settings, *range(12))
    with Worker("work", hold.wait, settings, concurrency=concurrency) as first:
        wait_for(lambda: first.statistics().in_progress == concurrency)
        wait_for(lambda: depth("work", settings).messages == 12 - concurrency - 1)
        with Worker("work", hold.wait, settings, concurrency=concurrency) as second:
            wait_for(lambda: second.statistics().in_progress == concurrency)
            wait_for(lambda: depth("work", settings).messages == max(0, 12 - 2 * (concurrency + 1)))
            assert first.statistics().prefetch == concurrency + 1
            hold.event.set()
            wait_for(lambda: first.statistics().done + second.statistics().done == 12)


@pytest.fixture
def hold():
    """A handler that returns when its event is set, at the latest with the test."""

    class Hold:
        event = threading.Event()

        def wait(self, _: object) -> None:
            self.event.wait(60)

    hold = Hold()
    yield hold
    hold.event.set()


@TYPES
@pytest.mark.parametrize("version", ["external", "embedded"])
def test_no_switch_loses_or_repeats_a_message(settings, consume, handlers, queue_type, version):
    """Twelve switches under a stream of messages: each arrives once."""
    with ensure(version, Settings()) if version == "embedded" else _the_same(settings) as broker:
        settings = broker.settings.replace(
            namespace=settings.namespace, queue_type=queue_type, queues_expire=False
        )
        declare("work", settings=settings)
        consumer = consume(settings)
        handlers.prefetch._most = 1  # only the switches of this test
        left = [16, 256] * 6
        room = sum(left)
        _switch_to_each(left, handlers.prefetch, consumer)
        with Publisher(settings) as publisher:
            for start in range(0, 6_000, 50):
                messages = [Message(n, id=f"m{n}") for n in range(start, start + 50)]
                publisher.publish_until_confirmed(messages, "work")
        wait_for(lambda: not left)
        wait_for(lambda: len(handlers.deliveries) >= 6_000)
        wait_for(lambda: consumer.unacked == 0)
        assert {each.properties.message_id for each in handlers.deliveries} == {
            f"m{n}" for n in range(6_000)
        }
        assert len(handlers.deliveries) == 6_000
        lost = sum(each.is_possible_poison for each in handlers.deliveries)
        # see the module: of a quorum queue, what a cancelled consumer had room for; each once
        assert lost <= (room if queue_type == "quorum" else 0)
        consumer.close(5)
        delete("work", settings=settings)


def _switch_to_each(numbers, automatic, consumer):
    """Have the prefetch switch to each of *numbers*, which are removed, the next at once."""
    retire = automatic._retire

    def retire_and_go_on(switch):
        retire(switch)
        if numbers and not automatic.is_switching:
            automatic._switch(numbers.pop(0))

    automatic._retire = retire_and_go_on
    automatic._has_switched = True
    consumer.connection.call(lambda: automatic._switch(numbers.pop(0)))


class _the_same:  # noqa: N801 -- a context manager like `ensure`
    def __init__(self, settings):
        self.settings = settings

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_it_shrinks_when_handlers_become_slow_or_idle(settings, consume, handlers, monkeypatch):
    """Otherwise a burst of long jobs after a quick one would wait at one worker."""
    monkeypatch.setattr(prefetch, "SHRINK_INTERVAL", 0.2)
    send(settings, *range(3_000))
    consume(settings)
    wait_for(lambda: len(handlers.deliveries) == 3_000)
    assert handlers.prefetch.number > 2
    wait_for(lambda: handlers.prefetch.number == 2 and not handlers.prefetch.is_switching)

    handlers.are_quick = False
    send(settings, *range(50))
    wait_for(lambda: len(handlers.deliveries) == 3_002)
    assert depth("work", settings).messages == 48


def test_large_messages_are_bounded_in_bytes(settings, consume, handlers, monkeypatch):
    """The number times the mean size of the bodies stays within `MAX_BYTES`."""
    monkeypatch.setattr(prefetch, "MAX_BYTES", 100_000)
    send(settings, *["x" * 10_000] * 400)
    consume(settings)
    wait_for(lambda: len(handlers.deliveries) == 400)
    assert 2 < handlers.prefetch.number <= 10


@TYPES
def test_an_idle_worker_has_one_consumer(settings, consume, handlers, queue_type):
    """Also if the number was about to grow when the last message was handled."""
    settings = settings.replace(queue_type=queue_type)
    send(settings, *range(2))
    consumer = consume(settings)
    wait_for(lambda: consumer.unacked == 0 and len(handlers.deliveries) == 2)
    consumer.connection.call(lambda: handlers.prefetch._switch(4))
    wait_for(lambda: handlers.prefetch.is_switching)
    wait_for(lambda: depth("work", settings).consumers == 1)
    assert handlers.prefetch.number == 2
    send(settings, *range(3_000))
    wait_for(lambda: len(handlers.deliveries) == 3_002)
    assert handlers.prefetch.number > 2


@TYPES
def test_a_single_active_consumer_stays_the_same(settings, consume, handlers, queue_type):
    """A switch would make another worker the active one, while this one still has messages."""
    name = settings.topology.wire_name("work")
    with open_channel(settings.replace(namespace="")) as channel:
        channel.queue_declare(
            name, durable=True,
            arguments={"x-single-active-consumer": True, "x-queue-type": queue_type},
        )  # fmt: skip
        for n in range(1_000):
            channel.basic_publish("", name, str(n).encode())
        consume(settings)
        others = []
        channel.basic_consume(name, lambda *_: others.append(1))  # waits for its turn
        wait_for(lambda: len(handlers.deliveries) == 1_000)
        wait_for(lambda: handlers.prefetch.tags and not handlers.prefetch.is_switching)
        assert len(handlers.prefetch.tags) == 1
        channel.connection.process_data_events(0.1)
        assert not others
        channel.queue_delete(name)


def test_a_stop_in_a_switch_leaves_no_message_as_lost(settings, consume, handlers, monkeypatch):
    """What was on its way, and the acks that were held back, arrive before the consumer ends."""
    monkeypatch.setattr(prefetch, "QUIET_TIME", 5.0)  # so long the switch lasts
    send(settings, *range(2_000))
    consumer = consume(settings)
    wait_for(lambda: handlers.prefetch.is_switching)
    cancelled = threading.Event()
    consumer.cancel(cancelled.set)
    assert cancelled.wait(20)
    consumer.close(5)
    left = depth("work", settings).messages
    assert left + len(handlers.deliveries) == 2_000


def test_a_stop_ends_a_consumer_that_is_about_to_begin(settings, consume, handlers, monkeypatch):
    """The second one of a switch, whose `basic.consume` waits for the answer to `basic.qos`."""
    send(settings, *range(2_000))
    cancelled, switch = threading.Event(), AutomaticPrefetch._switch

    def switch_and_stop(self, number):
        switch(self, number)
        if self.is_switching and not cancelled.is_set():
            handlers.consumer._cancel(cancelled.set)  # in the same turn of the I/O loop

    monkeypatch.setattr(AutomaticPrefetch, "_switch", switch_and_stop)
    consumer = consume(settings)
    assert cancelled.wait(20)
    wait_for(lambda: depth("work", settings).consumers == 0)
    consumer.close(5)
    assert depth("work", settings).messages + len(handlers.deliveries) == 2_000


def test_after_a_lost_connection_it_begins_again(settings, proxy, consume, handlers, monkeypatch):
    """Each message arrives, and the number grows again."""
    monkeypatch.setattr(prefetch, "QUIET_TIME", 5.0)  # so long the switch lasts
    send(settings, *range(3_000))
    consumer = consume(proxy.settings)
    wait_for(lambda: handlers.prefetch.is_switching)
    monkeypatch.undo()
    proxy.cut()
    wait_for(lambda: consumer.connection.reconnects)
    wait_for(lambda: len({each.body for each in handlers.deliveries}) == 3_000)
    wait_for(lambda: consumer.unacked == 0)
    assert handlers.prefetch.number > 2
    assert depth("work", settings).messages == 0

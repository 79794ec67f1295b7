"""The consumer: deliveries, their acks across channels, and what the broker says of both."""

from __future__ import annotations

import threading

import pytest
from pika import BasicProperties
from support.waiting import wait_for

from mousetrap.amqp.consumer import Consumer
from mousetrap.errors import AccessRefused
from mousetrap.job_queue import delete, depth, open_channel
from mousetrap.model.topology import Queue

WORK = Queue("work", ())


class Deliveries:
    """Keeps what a consumer delivers, in order; shows bodies as text."""

    def __init__(self):
        self.all = []
        self.failure = None

    def wait(self, count):
        wait_for(lambda: len(self.all) >= count)
        return self.all[:count]

    @property
    def bodies(self):
        return [each.body.decode() for each in self.all]

    def fail(self, error):
        self.failure = error


@pytest.fixture
def deliveries():
    return Deliveries()


@pytest.fixture
def consume(deliveries):
    """Start a consumer of the queue work, which is closed with the test."""
    opened = []

    def consume(settings, prefetch=10, **options):
        topology = settings.topology
        consumer = Consumer(
            settings, topology.wire_name("work"), prefetch, topology.declarations(WORK),
            on_delivery=deliveries.all.append, on_failed=deliveries.fail, **options,
        )  # fmt: skip
        opened.append(consumer)
        consumer.open()
        return consumer

    yield consume
    for consumer in opened:
        consumer.close(5)


@pytest.fixture
def send(settings):
    """Publish bodies, each with an id, to a queue: work unless another is named."""

    def send(*bodies, queue="work"):
        with open_channel(settings) as channel:
            for body in bodies:
                properties = BasicProperties(message_id=f"{settings.namespace} {body}")
                name = settings.topology.wire_name(queue)
                channel.basic_publish("", name, body.encode(), properties)

    return send


def ready(settings, count, queue="work"):
    """Wait until *count* messages are ready in *queue*."""
    wait_for(lambda: depth(queue, settings).messages == count)


def test_consumer_delivers_in_order_and_acks(settings, consume, send, deliveries):
    """What is acked is gone; the broker requeues the rest when the consumer closes."""
    consumer = consume(settings)
    send("a", "b", "c")
    first, second, _ = deliveries.wait(3)
    consumer.ack(first, second)
    wait_for(lambda: consumer.unacked == 1)
    consumer.close(5)

    assert deliveries.bodies == ["a", "b", "c"]
    ready(settings, 1)


def test_close_sends_the_acks_that_are_due(settings, consume, send, deliveries):
    """Acked just before `close`: the messages do not come again."""
    consumer = consume(settings)
    send(*"abcdefgh")
    consumer.ack(*deliveries.wait(8))
    consumer.close(5)

    assert depth("work", settings).messages == 0


def test_ack_does_not_include_a_slow_delivery_before_it(settings, consume, send, deliveries):
    """Neighbours are acked by one frame, but only up to the first that is not settled."""
    consumer = consume(settings)
    send(*"abcde")
    a, _, c, d, e = deliveries.wait(5)
    consumer.ack(e, a, d, c)
    wait_for(lambda: consumer.unacked == 1)
    consumer.close(5)

    with open_channel(settings) as channel:
        *_, body = channel.basic_get(settings.topology.wire_name("work"), auto_ack=True)
    assert body == b"b"
    ready(settings, 0)


def test_ack_of_an_older_generation_is_dropped(settings, proxy, consume, send, deliveries):
    """On the new channel the same tag may be another message: it stays unacked."""
    consumer = consume(proxy.settings)
    send("a", "b")
    old = deliveries.wait(2)
    proxy.cut()
    new = deliveries.wait(4)[2:]

    assert not any(consumer.is_current(each) for each in old)
    assert all(consumer.is_current(each) for each in new)
    assert {each.tag for each in old} == {each.tag for each in new}
    consumer.ack(*old)
    consumer.ack(new[0])
    wait_for(lambda: consumer.unacked == 1)
    consumer.close(5)
    ready(settings, 1)


def test_redelivery_after_a_broken_link_is_no_possible_poison(proxy, consume, send, deliveries):
    """The process held the message and survived, so the message did not crash it."""
    consumer = consume(proxy.settings)
    send("a")
    deliveries.wait(1)
    proxy.cut()
    first, again = deliveries.wait(2)

    assert (first.is_possible_poison, again.is_possible_poison) == (False, False)
    assert not again.has_ack_timed_out
    consumer.ack(again)


def test_redelivery_from_another_process_is_possible_poison(settings, consume, send, deliveries):
    """A consumer that is not of this process was lost with it: perhaps because of it."""
    with open_channel(settings) as channel:
        channel.queue_declare(
            settings.topology.wire_name("work"), durable=True,
            arguments=dict(settings.topology.declarations(WORK)[0].arguments),
        )  # fmt: skip
        send("a")
        wait_for(lambda: channel.basic_get(settings.topology.wire_name("work"))[0])
    consume(settings)

    [delivery] = deliveries.wait(1)
    assert delivery.is_possible_poison


def test_prefetch_bounds_the_unacked_deliveries(settings, consume, send, deliveries):
    """The broker holds the rest back until one is acked."""
    consumer = consume(settings, prefetch=2)
    send(*"abcd")
    first, _ = deliveries.wait(2)
    ready(settings, 2)
    assert consumer.unacked == 2

    consumer.ack(first)
    deliveries.wait(3)
    ready(settings, 1)


def test_quarantine_is_consumed_one_message_at_a_time(settings, consume, send, deliveries):
    """Whatever the prefetch of the work queue is."""
    quarantine = settings.topology.wire_name(WORK.quarantine)
    consumer = consume(settings, quarantine=quarantine)
    send("a", "b", "c", queue=WORK.quarantine)
    [first] = deliveries.wait(1)
    ready(settings, 2, WORK.quarantine)

    consumer.ack(first)
    deliveries.wait(2)
    ready(settings, 1, WORK.quarantine)
    assert consumer.unacked == 1


def test_cancel_ends_the_deliveries_and_keeps_the_acks(settings, consume, send, deliveries):
    """After it the broker delivers nothing more; what was delivered can still be acked."""
    consumer = consume(settings)
    send("a")
    [delivery] = deliveries.wait(1)
    consumer.cancel()
    wait_for(lambda: depth("work", settings).consumers == 0)
    send("b")
    ready(settings, 1)
    consumer.ack(delivery)
    consumer.close(5)

    assert deliveries.bodies == ["a"]
    assert depth("work", settings).messages == 1


def test_count_is_what_the_broker_says(settings, consume):
    """All consumers of the queue, this one and others; none after `cancel`."""
    consumer = consume(settings)
    assert consumer.count(10) == 1

    consume(settings)
    assert consumer.count(10) == 2

    consumer.cancel()
    wait_for(lambda: consumer.count(10) == 1)


def test_count_is_none_without_an_answer(proxy, consume):
    """A broker that does not answer within the time-out: no number, and no error."""
    consumer = consume(proxy.settings)
    proxy.hold()

    assert consumer.count(0.1) is None
    proxy.release()


def test_consumer_whose_queue_was_deleted_declares_it_again(settings, consume, send, deliveries):
    """The broker cancels it; on a new channel it consumes the new queue."""
    reconnected = threading.Event()
    consumer = consume(settings, on_reconnected=reconnected.set)
    send("a")
    [old] = deliveries.wait(1)
    delete("work", settings=settings)
    assert reconnected.wait(20)
    send("b")
    new = deliveries.wait(2)[1]

    assert (new.body, consumer.is_current(new), consumer.is_current(old)) == (b"b", True, False)
    consumer.ack(old, new)


def test_consumer_that_is_refused_says_so(settings, consume, deliveries):
    """A wrong password is an error of `open`, and a permanent one."""
    with pytest.raises(AccessRefused):
        consume(settings.replace(password="wrong"))

    assert isinstance(deliveries.failure, AccessRefused)


def test_a_defect_in_what_happens_with_a_delivery_is_reported(settings, deliveries):
    """It is no broken connection: the message would be delivered again and again."""

    def on_delivery(delivery):
        deliveries.all.append(delivery)
        raise ZeroDivisionError("a defect")

    topology = settings.topology
    with open_channel(settings) as channel:
        name = topology.wire_name("work")
        channel.queue_declare(name, durable=True, arguments={"x-expires": 60_000})
        channel.basic_publish("", name, b"1")
    consumer = Consumer(
        settings, topology.wire_name("work"), 1, topology.declarations(WORK),
        on_delivery=on_delivery, on_failed=deliveries.fail,
    )  # fmt: skip
    consumer.open()
    try:
        failure = wait_for(lambda: deliveries.failure)
        assert isinstance(failure.__cause__, ZeroDivisionError)
        assert "a defect" in str(failure)
        assert consumer.connection.reconnects == 0
    finally:
        consumer.close(5)

"""Outcomes on the events exchange: several in one body, sent again until they are confirmed."""

from __future__ import annotations

import pytest
from support.messages import QUICK, double, send

from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import ConnectionLost
from mousetrap.job_queue import open_channel
from mousetrap.model.message import Message
from mousetrap.model.outcome import Outcome, unpack
from mousetrap.settings import Settings
from mousetrap.worker import events as events_module
from mousetrap.worker.events import Events
from mousetrap.worker.worker import Worker


def outcome(n, reason=""):
    kind = "dead" if reason else "done"
    return Outcome(f"m{n}", kind, "double", "work", "host:1", 0.0, 0.1, reason=reason)


class Sent:
    """Events whose publisher is not connected; the test flushes them and answers."""

    def __init__(self, monkeypatch, **settings):
        self.publisher = Publisher(Settings(**settings))
        self.confirmed = []  # batches
        self.receipts = []
        self.flushes = []  # functions that the I/O thread is asked to call
        self.scheduled = []  # functions that it is asked to call later
        self.sent_again = []
        self.error = None

        def publish_to_exchange(body, exchange, key, callback):
            if self.error is not None:
                raise self.error
            receipt = Receipt(Message(body=body), key, 0, None, 0.0, callback, exchange)
            self.receipts.append(receipt)

        connection = self.publisher.connection
        monkeypatch.setattr(self.publisher, "publish_to_exchange", publish_to_exchange)
        monkeypatch.setattr(self.publisher, "send_again", self.sent_again.append)
        monkeypatch.setattr(connection, "call_soon", self.flushes.append)
        monkeypatch.setattr(connection, "call_later", lambda _, call: self.scheduled.append(call))
        self.events = Events(self.publisher, self.confirmed.append)

    def flush(self):
        flushes, self.flushes[:] = list(self.flushes), []
        for flush in flushes:
            flush()

    def ids(self):
        return [[each.id for each in unpack(r.message.body)] for r in self.receipts]


def answer(receipt, state):
    receipt.state = state
    receipt._callback(receipt)


@pytest.fixture
def sent(monkeypatch):
    return Sent(monkeypatch)


def test_outcomes_before_one_flush_are_sent_in_one_body(sent):
    """The I/O thread is asked once; the next outcome asks it again."""
    for n in range(3):
        sent.events.publish(f"delivery {n}", outcome(n))
    assert (len(sent.flushes), sent.receipts) == (1, [])

    sent.flush()
    sent.events.publish("delivery 3", outcome(3))
    sent.flush()
    assert sent.ids() == [["m0", "m1", "m2"], ["m3"]]
    assert sent.receipts[0].exchange == sent.publisher.settings.topology.events_exchange


def test_deliveries_are_confirmed_with_their_body(sent):
    """One call with all deliveries and outcomes of the body, when the broker has confirmed it."""
    batch = [(f"delivery {n}", outcome(n)) for n in range(2)]
    for delivery, each in batch:
        sent.events.publish(delivery, each)
    sent.flush()
    assert sent.confirmed == []

    answer(sent.receipts[0], "confirmed")
    assert sent.confirmed == [batch]


@pytest.mark.parametrize("state", ["refused", "returned", "unknown"])
def test_event_is_sent_again_until_it_is_confirmed(sent, state):
    """The same receipt is sent again after a delay, as often as needed."""
    sent.events.publish("delivery", outcome(0))
    sent.flush()
    [receipt] = sent.receipts
    for times in (1, 2):
        answer(receipt, state)
        sent.scheduled.pop()()
        assert sent.sent_again == [receipt] * times
    assert sent.confirmed == []

    answer(receipt, "confirmed")
    assert sent.confirmed == [[("delivery", outcome(0))]]


def test_body_that_is_too_large_is_split(sent, monkeypatch):
    """It is halved until it fits; a single outcome is sent whatever its size."""
    monkeypatch.setattr(events_module, "MAX_EVENT_BYTES", 1000)
    for n in range(4):
        sent.events.publish(n, outcome(n, reason="x" * (2000 if n == 0 else 300)))
    sent.flush()

    assert sent.ids() == [["m0"], ["m1"], ["m2", "m3"]]


def test_without_events_the_outcome_counts_as_confirmed(monkeypatch):
    """Nothing is sent; the call happens in the thread that publishes."""
    sent = Sent(monkeypatch, events_exchange="")
    sent.events.publish("delivery", outcome(0))

    assert (sent.flushes, sent.receipts) == ([], [])
    assert sent.confirmed == [[("delivery", outcome(0))]]


def test_failed_publisher_is_no_error(sent):
    """The I/O thread goes on; messages without an ack are delivered again."""
    sent.error = ConnectionLost("gone")
    sent.events.publish("delivery", outcome(0))
    sent.flush()

    assert (sent.confirmed, sent.scheduled) == ([], [])


def test_outcomes_arrive_in_a_bound_queue(settings):
    """With a broker: a queue bound to the exchange receives the outcome of every message."""
    topology = settings.topology
    with open_channel(settings) as channel, Worker(QUICK, double, settings) as worker:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, topology.events_exchange, topology.events_key)
        sent = send(settings, 1, 2, 3)
        worker.wait_until(done=3)
        received = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            received += unpack(got[2])

    assert sorted(each.id for each in received) == sorted(message.id for message in sent)
    assert {(each.kind, each.stage, each.queue) for each in received} == {
        ("done", "double", "work"),
    }  # fmt: skip

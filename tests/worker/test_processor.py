"""The processor alone: what is published, in which order, and when a message is acked.

No broker takes part: the worker is not started, and the test answers what its publisher publishes.
The same behaviour with a broker is tested in ``test_worker.py``.
"""

from __future__ import annotations

import asyncio

import pika
import pytest

from mousetrap import Send
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import ConnectionLost
from mousetrap.model import poison_messages
from mousetrap.model.headers import LOSSES
from mousetrap.model.message import Message, current_message
from mousetrap.model.outcome import unpack
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker.moves import move_rule
from mousetrap.worker.processor import MAX_FAILURES
from mousetrap.worker.worker import Worker

RETRIED_ONCE = Queue("work", retry_delays=(5.0,))


class UnconnectedWorker:
    """A worker that is not started: it keeps what its processor publishes and acks."""

    def __init__(self, monkeypatch, handler, writes="out", routes=None, **settings):
        self.worker = Worker(
            RETRIED_ONCE, handler, Settings(**settings), writes=writes, routes=routes
        )
        self.processor = self.worker._processor
        self.published = []  # receipts of messages
        self.events = []  # receipts of events
        self.sent_again = []  # receipts
        self.acked = []  # deliveries
        self.scheduled = []  # functions that `call_later` is to call
        publisher, consumer = self.worker._publisher, self.worker._consumer

        def publish(message, queue, *, properties, callback):
            self.published.append(Receipt(message, queue, 0, properties, 0.0, callback))

        def publish_to_exchange(body, exchange, key, callback):
            receipt = Receipt(Message(body=body), key, 0, None, 0.0, callback, exchange)
            self.events.append(receipt)

        monkeypatch.setattr(publisher, "publish", publish)
        monkeypatch.setattr(publisher, "publish_to_exchange", publish_to_exchange)
        monkeypatch.setattr(publisher, "send_again", self.sent_again.append)
        monkeypatch.setattr(consumer, "ack", lambda *deliveries: self.acked.extend(deliveries))
        for connection in (publisher.connection, consumer.connection):
            monkeypatch.setattr(connection, "call_soon", lambda function: function())
            monkeypatch.setattr(
                connection, "call_later", lambda _, function: self.scheduled.append(function)
            )

    def handle(self, body=b"1", id="m1", headers=None, **flags):
        """Handle one delivery as the executor does, and return it."""
        properties = pika.BasicProperties(message_id=id, headers=headers)
        delivery = Delivery(0, 1, properties, body, **flags)
        if self.processor.handler.is_async:
            asyncio.run(self.processor._handle_async(delivery))
        else:
            self.processor._handle(delivery)
        return delivery

    @property
    def outcomes(self):
        """The outcomes in all events."""
        return [outcome for event in self.events for outcome in unpack(event.message.body)]

    @property
    def counts(self):
        """The counts that are not 0."""
        return {name: count for name, count in self.processor.snapshot().items() if count}


def answer(receipt, state="confirmed", *, is_final=False):
    """Answer one publish as the broker does."""
    receipt.state, receipt.is_final = state, is_final
    receipt._callback(receipt)


@pytest.fixture
def unconnected(monkeypatch):
    """Return a function that makes an `UnconnectedWorker`."""

    def make(handler=lambda n: 2 * n, **options):
        return UnconnectedWorker(monkeypatch, handler, **options)

    return make


# ---- the order of publishing and acking ----------------------------------------------------------


def test_message_is_acked_after_its_outputs_and_its_outcome_are_confirmed(unconnected):
    """Two outputs: both confirmed, then the outcome published and confirmed, then the ack."""

    def twice(n: int):
        yield n
        yield n

    it = unconnected(twice)
    delivery = it.handle(b"7")
    first, second = it.published
    assert (it.events, it.counts) == ([], {"in_progress": 1})

    answer(second)
    assert it.events == []
    answer(first)
    [event] = it.events
    assert (it.acked, it.counts) == ([], {"in_progress": 1})

    answer(event)
    assert (it.acked, it.counts) == ([delivery], {"done": 1})
    [outcome] = it.outcomes
    assert (outcome.id, outcome.kind, len(outcome.outputs)) == ("m1", "done", 2)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_message_is_acked_after_the_outputs_to_all_targets_are_confirmed(unconnected, order):
    """Whichever target confirms last: the outcome, which names each, is published after it."""
    it = unconnected(
        lambda n: iter([n, Send(n, to="c", priority=3)]), writes=["a", "b"], routes="c"
    )
    delivery = it.handle(b"7")
    assert [each.queue for each in it.published] == ["a", "b", "c"]
    assert [each.base and each.base.priority for each in it.published] == [None, None, 3]

    for number in order:
        assert it.events == []
        answer(it.published[number])
    [event] = it.events
    assert it.acked == []
    answer(event)
    [outcome] = it.outcomes
    ids = [each.message.id for each in it.published]
    assert it.acked == [delivery]
    assert [(each.id, each.queue) for each in outcome.outputs] == list(zip(ids, "abc", strict=True))


def test_message_from_an_exchange_has_an_id_of_its_own_in_each_queue(unconnected):
    """Retries and outputs, too: another queue may have a copy with the id of the original."""
    it = unconnected(lambda n: 1 // n)
    for body in (b"0", b"1"):
        it.handle(body, id="m", exchange="orders")
    it.handle(b"0", id="m")
    retry, output, direct = (each.message for each in it.published)

    assert (retry.id, retry.job, output.parent) == ("m@work", "m@work", "m@work")
    assert direct.id == "m"


def test_send_to_a_target_that_is_not_named_is_a_failure_of_the_handler(unconnected):
    """Nothing is sent, not even what came before; the message is retried like after any error."""
    it = unconnected(lambda n: iter([n, Send(n, to="nowhere")]), writes=["a", "b"])
    it.handle()

    [retry] = it.published
    assert retry.queue == "work.retry.5s"
    answer(retry)
    [outcome] = it.outcomes
    assert "to 'nowhere', which is none of its targets (they are: 'a', 'b')" in outcome.reason


def test_failed_message_is_acked_after_its_retry_and_its_outcome_are_confirmed(unconnected):
    """The copy in the retry queue is confirmed first; it is the next attempt at the message."""
    it = unconnected(lambda _: 1 / 0)
    delivery = it.handle()
    [retry] = it.published
    assert (retry.queue, retry.message.id, retry.message.attempt) == ("work.retry.5s", "m1", 2)
    assert it.events == []

    answer(retry)
    answer(it.events[0])
    assert (it.acked, it.counts) == ([delivery], {"retried": 1})
    [outcome] = it.outcomes
    assert (outcome.kind, outcome.delay) == ("retried", 5.0)
    assert outcome.reason == "ZeroDivisionError: division by zero"


def test_event_that_is_not_confirmed_is_sent_again_before_the_ack(unconnected):
    """An outcome whose confirm is missing keeps the message unacked."""
    it = unconnected(writes=None)
    it.handle()
    [event] = it.events
    answer(event, "unknown")
    [send_again] = it.scheduled
    send_again()

    assert it.sent_again == [event]
    assert (it.acked, it.counts) == ([], {"in_progress": 1})


def test_results_are_dropped_where_no_queue_is_written(unconnected):
    """The outcome is published at once, without outputs."""
    it = unconnected(writes=None)
    it.handle()

    assert it.published == []
    assert [outcome.outputs for outcome in it.outcomes] == [()]


def test_without_events_the_confirmed_output_is_enough_for_the_ack(unconnected):
    """Events switched off: nothing is published about outcomes, and counts are kept."""
    it = unconnected(events_exchange="")
    delivery = it.handle()
    answer(it.published[0])

    assert it.events == []
    assert (it.acked, it.counts) == ([delivery], {"done": 1})


# ---- answers other than a confirm ----------------------------------------------------------------


@pytest.mark.parametrize("state", ["refused", "returned", "unknown"])
def test_output_that_is_not_confirmed_is_sent_again_later(unconnected, state):
    """The message stays in progress, and the problem can be read in the statistics."""
    it = unconnected()
    it.handle()
    [output] = it.published
    answer(output, state)
    assert "message" in it.processor.problem
    assert it.counts == {"in_progress": 1}

    [send_again] = it.scheduled
    send_again()
    assert it.sent_again == [output]


def test_output_is_not_sent_again_when_its_channel_is_gone(unconnected):
    """The message will be delivered again: it is no longer in progress, and not acked."""
    it = unconnected()
    it.handle()
    answer(it.published[0], "refused")
    it.worker._consumer.lost(ConnectionLost("cut"))
    [send_again] = it.scheduled
    send_again()

    assert (it.sent_again, it.acked, it.counts) == ([], [], {})


def test_output_that_can_never_be_published_dead_letters_its_message(unconnected):
    """One of two outputs is refused for good: one dead letter, and no outcome ``done``."""

    def twice(n: int):
        yield n
        yield n

    it = unconnected(twice)
    it.handle()
    first, second = it.published
    answer(first, "refused", is_final=True)
    answer(second, "refused", is_final=True)
    [dead_letter] = it.published[2:]
    answer(dead_letter)
    answer(it.events[0])

    assert dead_letter.queue == "work.dead"
    assert [outcome.kind for outcome in it.outcomes] == ["dead"]
    assert it.counts == {"dead": 1}


# ---- handlers ------------------------------------------------------------------------------------


def seen_by(n: int) -> list[object]:
    return [n, current_message.get().id]


async def seen_later_by(n: int) -> list[object]:
    await asyncio.sleep(0)
    return seen_by(n)


@pytest.mark.parametrize("handler", [seen_by, seen_later_by])
def test_functions_and_coroutine_functions_are_called_alike(unconnected, handler):
    """Both get the data, find the current message, and have one output."""
    it = unconnected(handler)
    it.handle(b"7")

    assert [receipt.message.data for receipt in it.published] == [[7, "m1"]]
    with pytest.raises(LookupError):
        current_message.get()


def leaves(_: object) -> None:
    raise SystemExit(3)


async def leaves_later(_: object) -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


@pytest.mark.parametrize("handler", [leaves, leaves_later])
def test_exit_in_a_handler_is_a_failure_of_the_message(unconnected, handler):
    """`sys.exit` ends neither the thread nor the event loop."""
    it = unconnected(handler)
    it.handle()

    assert [receipt.queue for receipt in it.published] == ["work.retry.5s"]
    assert [type(error) for _, error in it.processor.failures] == [SystemExit]


def test_handler_that_is_swapped_is_called_from_the_next_message_on(unconnected):
    """Outcomes have the name of the handler that was called."""
    it = unconnected(seen_by, writes=None)
    it.handle(id="m1")
    it.worker.swap(leaves)
    it.handle(id="m2")
    answer(it.published[0])

    assert [(outcome.id, outcome.stage) for outcome in it.outcomes] == [
        ("m1", "seen_by"), ("m2", "leaves"),
    ]  # fmt: skip


def test_latest_failures_are_kept(unconnected):
    """Ten of them, the newest last."""
    it = unconnected(leaves)
    for n in range(MAX_FAILURES + 2):
        it.handle(id=f"m{n}")

    assert [id for id, _ in it.processor.failures] == [f"m{n}" for n in range(2, MAX_FAILURES + 2)]


@pytest.mark.parametrize(
    ("limit", "job", "output"), [(0, None, None), (1, b"7", None), (2, b"7", b"14")]
)
def test_bodies_up_to_the_limit_are_in_the_outcome(unconnected, limit, job, output):
    """`Settings.keep_bodies` is a size in bytes, for the job's body and for each output's."""
    it = unconnected(keep_bodies=limit)
    it.handle(b"7")
    answer(it.published[0])

    [outcome] = it.outcomes
    assert (outcome.body, outcome.outputs[0].body) == (job, output)


# ---- messages that are not handled ---------------------------------------------------------------


def test_delivery_of_a_lost_channel_is_not_handled(unconnected):
    """It will be delivered again on the new channel."""
    it = unconnected()
    it.worker._consumer.lost(ConnectionLost("cut"))
    it.handle()

    assert (it.published, it.counts) == ([], {})


def test_delivery_is_not_handled_when_the_worker_is_stopping(unconnected):
    """It goes back to its queue when the connection is closed."""
    it = unconnected()
    it.processor.stop()
    it.handle()

    assert (it.published, it.acked, it.counts) == ([], [], {})


def test_possible_poison_message_is_published_again_before_it_is_handled(unconnected):
    """The copy has the count of lost workers; its source is acked when the copy is confirmed."""
    handled = []
    it = unconnected(handled.append)
    delivery = it.handle(is_possible_poison=True)
    [copy] = it.published
    assert (copy.message.id, copy.message.headers[LOSSES]) == ("m1", 1)
    assert it.acked == []

    answer(copy)
    assert (it.acked, it.counts, handled) == ([delivery], {}, [])


def test_copy_waits_until_its_source_is_acked(unconnected):
    """Else two copies of the message would be left if handling it ended this process."""
    it = unconnected()
    it.handle(is_possible_poison=True)
    submitted = []
    it.processor.executor.submit = submitted.append

    early = it.handle()
    [try_later] = it.scheduled
    try_later()
    assert (len(it.published), submitted) == (1, [early])

    answer(it.published[0])
    for function in it.scheduled:
        function()
    it.handle()
    assert len(it.published) == 2


UNCOUNTED = poison_messages.uncounted


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ({}, None),
        ({"is_near_delivery_limit": True}, UNCOUNTED),
        ({"is_possible_poison": True}, poison_messages.after_loss),
        ({"has_ack_timed_out": True}, poison_messages.after_ack_timeout),
    ],
)
def test_rule_by_which_a_message_is_published_again(flags, rule):
    """It depends on the flags of the delivery."""
    delivery = Delivery(0, 1, pika.BasicProperties(message_id="m1"), b"1", **flags)

    assert move_rule(delivery) is rule

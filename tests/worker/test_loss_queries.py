"""Before a loss is counted, others are asked: one that is alive may have held the message."""

from __future__ import annotations

import contextlib
import time
import uuid

import msgspec
import pika
import pytest
from support.waiting import wait_for

from mousetrap.amqp import redeliveries
from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth, open_channel
from mousetrap.model.headers import LOSSES, TIMEOUTS
from mousetrap.model.message import Message, current_message
from mousetrap.model.poison_messages import ALONE_FROM
from mousetrap.model.topology import Queue
from mousetrap.settings import Settings
from mousetrap.worker import loss_queries
from mousetrap.worker.discovery_messages import SurvivorAnswer, SurvivorQuery
from mousetrap.worker.loss_queries import LAST_ASKED_DELIVERY, MAX_ASKED
from mousetrap.worker.worker import Worker

WORK = Queue("work", ())
LONG = 60.0  # seconds, longer than any test


class OtherProcess:
    """Another process of the namespace, as far as questions about losses go."""

    def __init__(self, settings: Settings, channel) -> None:
        self._topology, self._channel = settings.topology, channel
        self.name = f"{self._topology.wire_name('work')}.who.{uuid.uuid4().hex}"
        channel.queue_declare(self.name, exclusive=True)
        channel.exchange_declare(self._topology.events_exchange, "topic", durable=True)
        channel.queue_bind(self.name, self._topology.events_exchange, self._topology.discovery_key)

    def receive(self, kind, timeout=10.0):
        """Return the next message of *kind* and its reply-to; None after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            _, properties, body = self._channel.basic_get(self.name, auto_ack=True)
            with contextlib.suppress(msgspec.ValidationError):
                if body is not None:
                    return msgspec.json.decode(body, type=kind), properties.reply_to
            self._channel.connection.sleep(0.02)
        return None

    def answer(self, losses: int, *, has_ack_timed_out: bool = False) -> None:
        """Answer the next query: this process held all of it, and is alive."""
        query, reply_to = self.receive(SurvivorQuery)
        assert {each[1] for each in query.messages} == {losses}
        answer = SurvivorAnswer([(*each, has_ack_timed_out) for each in query.messages])
        self._channel.basic_publish("", reply_to, msgspec.json.encode(answer))

    def ask(self, process: str, *messages: tuple[str, int]) -> None:
        """Ask as *process* about *messages* of the work queue."""
        query = SurvivorQuery(self._topology.wire_name("work"), process, messages)
        self._channel.basic_publish(
            self._topology.events_exchange, self._topology.discovery_key,
            msgspec.json.encode(query), pika.BasicProperties(reply_to=self.name),
        )  # fmt: skip


@pytest.fixture
def other(settings):
    with open_channel(settings) as channel:
        yield OtherProcess(settings, channel)


@pytest.fixture
def no_timeout(monkeypatch):
    """Questions have no time-out, as far as a test can see."""
    monkeypatch.setattr(loss_queries, "SURVIVOR_TIMEOUT", LONG)


def redeliver(settings, losses, number=1):
    """Send messages with *losses* that another process got, and whose connection then ended."""
    declare(WORK, settings=settings)
    with Publisher(settings) as publisher:
        messages = [Message(n, id=f"m{n}", headers={LOSSES: losses}) for n in range(number)]
        publisher.publish_until_confirmed(messages, "work")
    with open_channel(settings) as channel:
        for _ in range(number):
            assert channel.basic_get(settings.topology.wire_name("work"))[0]
    wait_for(lambda: depth("work", settings).messages == number)


class Handled(list):
    """The headers of the messages that its worker handled."""

    def __call__(self, _: object) -> None:
        headers = current_message.get().headers
        self.append({name: headers.get(name, 0) for name in (LOSSES, TIMEOUTS)})


def test_message_that_a_living_process_held_is_not_counted(settings, other, no_timeout):
    """It is handled as it is, from its queue; the process that asked is named in the query."""
    redeliver(settings, ALONE_FROM - 1)
    handled = Handled()
    with Worker(WORK, handled, settings) as worker:
        other.answer(losses=ALONE_FROM - 1)
        now = worker.wait_until(done=1)

    assert handled == [{LOSSES: ALONE_FROM - 1, TIMEOUTS: 0}]
    assert now.received == 1  # it was not published again


def test_message_whose_ack_timed_out_elsewhere_is_known_as_such(settings, other, no_timeout):
    """The process that held it is alive, and says that its handler took too long."""
    redeliver(settings, ALONE_FROM - 1)
    handled = Handled()
    with Worker(WORK, handled, settings) as worker:
        other.answer(losses=ALONE_FROM - 1, has_ack_timed_out=True)
        worker.wait_until(done=1)

    assert handled == [{LOSSES: ALONE_FROM - 1, TIMEOUTS: 1}]


def test_loss_is_counted_when_nobody_answers(settings, other, monkeypatch):
    """As by workers of an older version. Until then the query is repeated."""
    monkeypatch.setattr(loss_queries, "SURVIVOR_TIMEOUT", 1.2)
    redeliver(settings, ALONE_FROM - 1)
    handled = Handled()
    with Worker(WORK, handled, settings) as worker:
        worker.wait_until(done=1)

    assert handled == [{LOSSES: ALONE_FROM, TIMEOUTS: 0}]
    assert other.receive(SurvivorQuery)
    assert other.receive(SurvivorQuery)


def test_first_loss_is_counted_without_a_question(settings, other, no_timeout):
    """Nothing follows from it, so a crash is recovered from at once."""
    redeliver(settings, 0)
    handled = Handled()
    with Worker(WORK, handled, settings) as worker:
        worker.wait_until(done=1)

    assert handled == [{LOSSES: 1, TIMEOUTS: 0}]
    assert other.receive(SurvivorQuery, timeout=0.2) is None


@pytest.mark.parametrize("how", ["switched off", "refused"])
def test_loss_is_counted_at_once_where_nobody_can_be_asked(settings, no_timeout, monkeypatch, how):
    """Without events, or where the broker forbids the queue for the answers."""
    if how == "switched off":
        settings = settings.replace(events_exchange="")
    else:
        forbidden = f"amq.forbidden.{uuid.uuid4().hex}"  # the broker refuses names that begin so
        monkeypatch.setattr("mousetrap.worker.consumer_discovery._stem", lambda _: forbidden)
    redeliver(settings, ALONE_FROM - 1)
    handled = Handled()
    with Worker(WORK, handled, settings) as worker:
        worker.wait_until(done=1)

    assert handled == [{LOSSES: ALONE_FROM, TIMEOUTS: 0}]


def test_worker_that_waits_for_an_answer_goes_on_and_stops(settings, no_timeout):
    """No handler waits, nor does a stop; the message is in its queue again, with its count."""
    redeliver(settings, ALONE_FROM - 1)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(n) for n in range(5)], "work")
    handled = Handled()
    with Worker(WORK, handled, settings) as worker:
        worker.wait_until(done=5)
        wait_for(lambda: worker.unacked == 1)
        worker.stop(timeout=LONG, process_ends=True)

    with open_channel(settings) as channel:
        method, properties, _ = channel.basic_get(settings.topology.wire_name("work"))
        assert method.redelivered  # so the next worker asks
        assert properties.headers[LOSSES] == ALONE_FROM - 1


def test_message_is_handed_over_once(settings, other):
    """The process that asked first gets the same answer again, another one none.

    If that process crashes, its loss is counted.
    """
    messages = ("held", 1), ("counted since", 2), ("unknown", 1)
    held = [redeliveries.Held("held", 1, True), redeliveries.Held("counted since", 1)]
    redeliveries.remember(settings.topology.wire_name("work"), held)
    with Worker(WORK, lambda _: None, settings) as worker:
        wait_for(lambda: worker._discovery.own_queue.name)
        answers = []
        for process in ("first", "second", "first"):
            other.ask(process, *messages)
            answer = other.receive(SurvivorAnswer, timeout=2.0 if process == "first" else 0.3)
            answers.append(answer and answer[0].messages)

    assert answers == [[("held", 1, True)], None, [("held", 1, True)]]


def test_no_answer_goes_to_a_queue_of_another_kind(settings, other):
    """A query whose reply-to is a work queue is not answered."""
    declare("precious", settings=settings)
    name = settings.topology.wire_name("work")
    redeliveries.remember(name, [redeliveries.Held("held", 1)])
    query = msgspec.json.encode(SurvivorQuery(name, "first", [("held", 1)]))
    with Worker(WORK, lambda _: None, settings) as worker:
        wait_for(lambda: worker._discovery.own_queue.name)
        precious = settings.topology.wire_name("precious")
        worker._discovery._on_message(query, precious)
        worker._discovery._on_message(query, None)
        other.ask("second", ("held", 1))

        assert other.receive(SurvivorAnswer)[0].messages == [("held", 1, False)]
    assert depth("precious", settings).messages == 0


def test_connection_that_breaks_meanwhile_leaves_the_question_open(settings, proxy, no_timeout):
    """The message comes again, and nothing was counted: the same worker asks again."""
    redeliver(settings, ALONE_FROM - 1)
    handled = Handled()
    with Worker(WORK, handled, proxy.settings) as worker, open_channel(settings) as channel:
        other = OtherProcess(settings, channel)
        wait_for(lambda: worker.unacked == 1)
        proxy.cut()
        wait_for(lambda: worker.statistics().reconnects and worker.unacked == 1)
        other.answer(losses=ALONE_FROM - 1)
        worker.wait_until(done=1)

    assert handled == [{LOSSES: ALONE_FROM - 1, TIMEOUTS: 0}]


# ---- without a broker ----------------------------------------------------------------------------


class Unconnected:
    """A worker that is not started; the test calls what it has scheduled."""

    def __init__(self, monkeypatch) -> None:
        self.worker = worker = Worker(WORK, lambda _: None, Settings())
        self.scheduled, self.published, self.asked = [], [], []
        self.connection = worker._publisher.connection
        call_later = lambda _, function: self.scheduled.append(function)  # noqa: E731
        monkeypatch.setattr(worker._consumer.connection, "call_later", call_later)
        monkeypatch.setattr(worker._consumer.connection, "call_soon", self.scheduled.append)
        monkeypatch.setattr(worker._discovery, "ask_survivors", self.asked.append)
        monkeypatch.setattr(
            worker._publisher, "publish", lambda message, *_, **__: self.published.append(message)
        )

    def deliver(self, id="m", deliveries=0):
        headers = {LOSSES: ALONE_FROM - 1, "x-delivery-count": deliveries}
        properties = pika.BasicProperties(message_id=id, headers=headers)
        self.worker._processor.submit(Delivery(0, 1, properties, b"1", is_possible_poison=True))

    def run_scheduled(self):
        due, self.scheduled[:] = list(self.scheduled), []
        for function in due:
            function()


@pytest.fixture
def unconnected(monkeypatch):
    return Unconnected(monkeypatch)


@pytest.mark.parametrize("deliveries", [LAST_ASKED_DELIVERY - 1, LAST_ASKED_DELIVERY])
def test_message_near_the_delivery_limit_is_published_at_once(unconnected, deliveries):
    """A quorum queue drops a message at its 21st delivery; each broken connection is one."""
    unconnected.deliver(deliveries=deliveries)

    assert bool(unconnected.published) is (deliveries == LAST_ASKED_DELIVERY)


def test_time_runs_only_while_the_broker_accepts_messages(unconnected, monkeypatch):
    """Before that nobody can be asked, and no loss be counted."""
    monkeypatch.setattr(loss_queries, "SURVIVOR_TIMEOUT", 0.0)
    unconnected.deliver()
    for _ in range(3):
        unconnected.run_scheduled()
    assert not unconnected.published

    unconnected.connection.state = "open"
    unconnected.run_scheduled()
    assert [each.losses for each in unconnected.published] == [ALONE_FROM]


def test_deliveries_of_one_turn_are_asked_for_together(unconnected):
    """In as few queries as their number allows, and again until there is an answer."""
    for n in range(MAX_ASKED + 1):
        unconnected.deliver(f"m{n}")
    unconnected.run_scheduled()

    assert [len(each) for each in unconnected.asked] == [MAX_ASKED, 1] * 2
    assert len(unconnected.scheduled) == 1

"""Confirms of new quorum queues count only after a while."""

from __future__ import annotations

import pytest

from mousetrap.amqp.new_queues import NEW_QUEUE_TIME, NewQueues
from mousetrap.amqp.receipt import Receipt
from mousetrap.model.message import Message


@pytest.fixture
def new(monkeypatch):
    monkeypatch.setattr("mousetrap.amqp.new_queues.NEW_QUEUE_TIME", NEW_QUEUE_TIME)
    new = NewQueues()
    new.connected("RabbitMQ 4.3.6")
    return new


def receipt(queue, exchange=""):
    return Receipt(Message(1), queue, 0, None, 0.0, None, exchange)


def test_a_confirm_counts_when_the_queue_is_old_enough(new):
    """Its time begins with the first confirm, which shows that the queue exists."""
    first, second = receipt("a"), receipt("a")
    new.declared("a")

    assert new.counted([first], 100.0) == []
    assert new.counted([second], 101.0) == []
    assert new.take(100.0 + NEW_QUEUE_TIME / 2) == []
    assert new.take(100.0 + NEW_QUEUE_TIME) == [first, second]
    assert new.counted([receipt("a")], 110.0) != []


def test_another_new_queue_begins_the_time_again(new):
    """RabbitMQ postpones the writing of the names with each new one."""
    first, second = receipt("a"), receipt("b")
    new.declared("a")
    new.declared("b")
    new.counted([first], 100.0)
    new.counted([second], 101.0)

    assert new.take(100.0 + NEW_QUEUE_TIME) == []
    assert new.take(101.0 + NEW_QUEUE_TIME) == [first, second]


def test_other_confirms_count_at_once(new):
    """Those of other queues, of exchanges, of queues that were declared before, and at the end."""
    other, routed, held = receipt("out"), receipt("a", "exchange"), receipt("a")
    new.declared("a")

    assert new.counted([other, routed, held], 100.0) == [other, routed]
    assert new.count_all() == [held]
    new.declared("b")
    assert new.counted([other, receipt("b")], 100.0) != [other]


def test_receipts_of_a_lost_channel_are_taken(new):
    """Their messages are published again, and the queue is as new as before."""
    first, again = receipt("a"), receipt("a")
    new.declared("a")
    new.counted([first], 100.0)

    assert new.take_held() == [first]
    new.declared("a")
    assert new.counted([again], 101.0) == []
    assert new.take(100.0 + NEW_QUEUE_TIME) == [again]


def test_an_old_queue_is_old_on_the_next_connection(new):
    """Until it is deleted: then it begins again."""
    new.declared("a")
    new.counted([receipt("a")], 100.0)
    assert len(new.take(100.0 + NEW_QUEUE_TIME)) == 1

    new.connected("RabbitMQ 4.3.6")
    new.declared("a")
    new.exist(["a"], 200.0)
    assert new.counted([receipt("a")], 200.0) != []

    new.deleted("a")
    new.declared("a")
    assert new.counted([receipt("a")], 201.0) == []


def test_a_queue_that_is_not_old_is_new_again_on_the_next_connection(new):
    """The broker may have been killed, and have forgotten it."""
    new.declared("a")
    new.counted([receipt("a")], 100.0)
    assert new.take(100.0 + NEW_QUEUE_TIME / 2) == []

    new.connected("RabbitMQ 4.3.6")
    new.declared("a")

    assert new.counted([receipt("a")], 200.0) == []


def test_queues_of_a_connection_are_new_from_its_beginning(new):
    """They were declared then; a worker that was idle for so long acks at once."""
    held, later = receipt("out"), receipt("out")
    new.exist(["out"], 100.0)

    assert new.counted([held], 101.9) == []
    assert new.take(100.0 + NEW_QUEUE_TIME) == [held]
    assert new.counted([later], 102.1) == [later]


def test_a_queue_that_was_deleted_is_new_again(new):
    """What is held already is not held any longer, however often the queue is declared."""
    first, second = receipt("out"), receipt("out")
    new.exist(["out"], 0.0)
    new.take(50.0)
    new.declared_again("out")

    assert new.counted([first], 100.0) == []
    new.declared_again("out")
    assert new.counted([second], 101.0) == []
    assert new.take(100.0 + NEW_QUEUE_TIME) == [first, second]


def test_only_rabbitmq_forgets_queues():
    """The embedded broker keeps everything in memory anyway."""
    new = NewQueues()
    new.connected("mousetrap")
    new.declared("a")
    confirmed = [receipt("a")]

    assert new.counted(confirmed, 100.0) is confirmed

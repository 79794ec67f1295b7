import pika
import pytest
from pika import spec

from mousetrap.amqp.delivery import Delivery
from mousetrap.amqp.recovered_messages import RecoveredMessages

QUEUE, QUARANTINE = "work", "work.quarantine"


class Channel:
    """Answers each passive declaration with the number of messages in that queue."""

    def __init__(self, **messages):
        self.messages = messages

    def queue_declare(self, queue, *, passive, callback):
        assert passive
        count = self.messages.get(queue, 0)
        callback(pika.frame.Method(1, spec.Queue.DeclareOk(queue, count, 0)))


def recovered(outstanding=(), **messages):
    found = RecoveredMessages((QUEUE, QUARANTINE))
    found.connection_lost(outstanding)
    assert found.is_due
    found.count(Channel(**messages))
    return found


def includes(found, marks, queue=QUEUE, id="m", **headers):
    properties = pika.BasicProperties(message_id=id, headers=headers)
    return [found.includes(queue, properties, mark == "r") for mark in marks]


@pytest.mark.parametrize(
    ("messages", "marks", "expected"),
    [
        (0, "r", "0"),  # the queue was empty: a worker was lost since
        (3, "rrrr", "1110"),  # no more than there were
        (3, "rrnrr", "11000"),  # a new one: all those before it were delivered
        (3, "nrr", "000"),  # the broker was not restarted, or ended in good order
    ],
)
def test_messages_that_were_there_at_the_restart(messages, marks, expected):
    found = recovered(work=messages)

    assert includes(found, marks) == [each == "1" for each in expected]
    assert found.are_left == (messages > expected.count("1") and "n" not in marks)


def test_each_queue_has_its_own_number():
    found = recovered(work=1, **{QUARANTINE: 1})

    assert includes(found, "n") == [False]
    assert found.are_left
    assert includes(found, "rr", QUARANTINE) == [True, False]


def test_the_mark_of_a_quorum_queue_is_believed():
    assert includes(recovered(work=2), "rr", **{"x-delivery-count": 1}) == [False, False]


def test_a_mark_from_before_the_restart_is_believed():
    """The worker had asked what the mark means, and has no answer yet."""
    asked = Delivery(1, 1, pika.BasicProperties(message_id="a"), b"1", is_possible_poison=True)
    found = recovered([asked], work=3)

    assert includes(found, "r", id="a") == [False]
    assert includes(found, "r", id="b") == [True]
    found.connection_lost([])  # again, before it was delivered again
    found.count(Channel(work=3))
    assert includes(found, "r", id="a") == [False]


def test_none_are_known_before_a_connection_was_lost():
    assert not RecoveredMessages((QUEUE,)).are_left

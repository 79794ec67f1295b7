"""A broker with an alarm takes no messages: that is said, waited for with a bound, and passes."""

from __future__ import annotations

import threading

import pytest

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import OutcomeUnknown
from mousetrap.job_queue import depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker


@pytest.mark.local
def test_alarm_is_said_and_what_was_sent_arrives_when_it_is_over(node):
    """Under a memory alarm the publisher is *blocked* and its receipt waits; then all goes on."""
    settings = node.settings
    begun, gate = threading.Event(), threading.Event()

    def double(n: int) -> int:
        begun.set()
        gate.wait(20)
        return 2 * n

    worker = Worker(Queue("work", ()), double, settings, writes="out")
    with worker, Publisher(settings) as publisher:
        publisher.publish(Message(1), "work").wait()
        assert begun.wait(10)
        node.rabbitmqctl("set_vm_memory_high_watermark", "0")
        receipt = publisher.publish(Message(2), "work")
        reaches(publisher.connection, "blocked")
        gate.set()  # the worker's result now waits at the broker's door, unacked
        with pytest.raises(TimeoutError):
            receipt.wait(0.5)
        assert worker.statistics().done == 0

        node.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
        receipt.wait(20)
        reaches(publisher.connection, "open")
        worker.wait_until(done=2)

    assert sorted(m.data for m in drain("out", settings=settings)) == [2, 4]
    assert depth("work", settings).messages == 0


@pytest.mark.local
def test_alarm_does_not_hold_a_sender_for_ever(node):
    """The confirm time-out holds under an alarm too: the outcome is unknown, and says *blocked*."""
    with Publisher(node.settings.replace(confirm_timeout=1.0)) as publisher:
        publisher.declare([node.settings.topology.work_queue("work")])
        publisher.publish(Message(1), "work").wait()
        node.rabbitmqctl("set_vm_memory_high_watermark", "0")
        receipt = publisher.publish(Message(2), "work")

        with pytest.raises(OutcomeUnknown, match="blocked"):
            receipt.wait(10)
        assert publisher.connection.state == "blocked"  # and it waits: elsewhere it is no better
        assert publisher.connection.reconnects == 0


def reaches(connection, state):
    """Wait until *connection* is in *state*, ten seconds at most."""
    assert connection._changed.wait_for(lambda: connection.state == state, 10)

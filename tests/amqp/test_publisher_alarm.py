"""A broker with an alarm accepts no messages: the publisher reports it and waits, with a limit."""

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
def test_publishes_under_an_alarm_arrive_when_it_ends(node):
    """During a memory alarm the publisher is *blocked* and its receipt waits; then both go on."""
    settings = node.settings
    started, gate = threading.Event(), threading.Event()

    def double(n: int) -> int:
        started.set()
        gate.wait(20)
        return 2 * n

    worker = Worker(Queue("work", ()), double, settings, writes="out")
    with worker, Publisher(settings) as publisher:
        publisher.publish(Message(1), "work").wait()
        assert started.wait(10)
        node.rabbitmqctl("set_vm_memory_high_watermark", "0")
        receipt = publisher.publish(Message(2), "work")
        wait_for_state(publisher.connection, "blocked")
        gate.set()  # the worker's result waits in its publisher, and its message is not acked
        with pytest.raises(TimeoutError):
            receipt.wait(0.5)
        assert worker.statistics().done == 0

        node.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
        receipt.wait(20)
        wait_for_state(publisher.connection, "open")
        worker.wait_until(done=2)

    assert sorted(m.data for m in drain("out", settings=settings)) == [2, 4]
    assert depth("work", settings).messages == 0


@pytest.mark.local
def test_receipt_is_unknown_at_its_deadline_under_an_alarm(node):
    """The confirm time-out applies during an alarm too; the error says *blocked*."""
    with Publisher(node.settings.replace(confirm_timeout=1.0)) as publisher:
        publisher.declare([node.settings.topology.work_queue("work")])
        publisher.publish(Message(1), "work").wait()
        node.rabbitmqctl("set_vm_memory_high_watermark", "0")
        receipt = publisher.publish(Message(2), "work")

        with pytest.raises(OutcomeUnknown, match="blocked"):
            receipt.wait(10)
        assert publisher.connection.state == "blocked"  # so would be any other connection
        assert publisher.connection.reconnects == 0


def wait_for_state(connection, state):
    """Wait until *connection* is in *state*, ten seconds at most."""
    assert connection._changed.wait_for(lambda: connection.state == state, 10)

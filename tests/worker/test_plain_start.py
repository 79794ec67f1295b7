"""What a worker without special queues sends at its start, and for each message."""

from __future__ import annotations

import pytest
from pika.connection import Connection

import mousetrap
from mousetrap import Queue, Worker
from mousetrap.job_queue import declare, delete

QUEUE = Queue("work", (0.1,))
PUBLISHER = ["Channel.Open", *["Queue.Declare"] * 3, "Exchange.Declare", "Confirm.Select"]
CONSUMER = ["Channel.Open", *["Queue.Declare"] * 3, "Basic.Qos", "Basic.Consume", "Basic.Qos",
            "Basic.Consume"]  # fmt: skip


@pytest.fixture
def sent(monkeypatch):
    """The methods that this process sends on channels 1, which a connection opens first."""
    found = []
    send = Connection._send_method

    def record(self, channel, method, content=None):
        if channel == 1:
            found.append((id(self), method.NAME, getattr(method, "nowait", False)))
        return send(self, channel, method, content)

    monkeypatch.setattr(Connection, "_send_method", record)
    return found


@pytest.mark.parametrize("is_in_a_run", [True, False])
def test_start_asks_without_waiting_if_all_queues_exist(settings, sent, is_in_a_run):
    """As many round trips as when every queue was declared; and none for a message."""
    settings = settings.replace(queues_expire=is_in_a_run)
    declare(QUEUE.name, QUEUE.quarantine, "out", settings=settings)
    sent.clear()

    with Worker(QUEUE, abs, settings, writes="out", prefetch=16) as worker:
        names = {one: [name for each, name, _ in sent if each == one] for one, _, _ in sent}
        waited = [name for _, name, nowait in sent if name.endswith("Declare") and not nowait]
        sent.clear()
        mousetrap.send("work", range(50), settings=settings)
        worker.wait_until(done=50, timeout=20)
        worker_sent = [name for one, name, _ in sent if one in names]

    assert (list(names.values()), waited) == ([PUBLISHER, CONSUMER], [])
    assert set(worker_sent) <= {"Basic.Ack", "Basic.Publish"}
    delete(QUEUE, "out", settings=settings)


def test_start_opens_a_channel_more_for_each_missing_queue(settings, sent):
    """At the very first start only: the work queue and the queue that it writes."""
    settings = settings.replace(queues_expire=False)

    with Worker(QUEUE, abs, settings, writes="out"):
        publisher = [name for one, name, _ in sent if one == sent[0][0]]

    opened = [n for n, name in enumerate(publisher) if name == "Confirm.Select"]
    assert len(opened) == 2  # and one on channel 2
    delete(QUEUE, "out", settings=settings)

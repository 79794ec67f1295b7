"""Faults while messages wait for their delay."""

from __future__ import annotations

import time

import pytest
from rig.trial import Trial, trial_counts
from support.waiting import wait_for

from mousetrap import Send
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, depth
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

DELAYS = (2.0, 3.0, 4.0)  # seconds
MESSAGES = 60  # for each delay


def same(id: str) -> str:
    return id


def send_later(trial, prefix):
    """Publish messages with each delay; return when the broker has confirmed them."""
    with Publisher(trial.settings) as publisher:
        receipts = []
        for delay in DELAYS:
            ids = [f"{prefix}-{delay:g}-{n}" for n in range(MESSAGES)]
            trial.history.attempted |= set(ids)
            messages = [Message(id, id=id) for id in ids]
            receipts += publisher.publish_many(messages, publisher.delayed("work", delay))
        publisher.flush(30)
    trial.history.confirmed |= {each.message.id for each in receipts if each.confirmed}
    assert all(each.confirmed for each in receipts)


@pytest.mark.fault("F55")
@trial_counts(1, 10)
@pytest.mark.parametrize("moment", ["wait", "return"])
def test_broker_killed_while_delayed_messages(rabbit, rabbit_settings, fault_row, moment, times):
    """They come after the restart, at their time or at once; those that return, too."""
    queue = Queue("work", (0.2,))
    for n in range(times):
        settings = rabbit_settings.replace(namespace=f"{rabbit_settings.namespace}-{n}")
        with Trial(settings, queue) as trial:
            send_later(trial, n)
            if moment == "return":
                wait_for(lambda settings=settings: depth("work", settings).messages)
            rabbit.kill()
            rabbit.start()
            with Worker(queue, same, settings, writes="out", prefetch=64) as worker:
                trial.settle(60)
                trial.wait_until_idle(worker)
            fault_row.add(trial.drain_queues())


@pytest.mark.fault("F55")
@trial_counts(1, 10)
def test_broker_killed_after_a_handler_sent_later(rabbit, rabbit_settings, fault_row, times):
    """The source of an output that RabbitMQ forgets, in a new delay queue, is not acked yet."""
    queue = Queue("work", (0.2,))
    for n in range(times):
        settings = rabbit_settings.replace(namespace=f"{rabbit_settings.namespace}-{n}")
        declare("out", settings=settings)
        handled: list[str] = []

        def later(id: str, handled=handled):
            handled.append(id)
            return Send(id, delay=3.0)

        with (
            Trial(settings, queue) as trial,
            Worker(queue, later, settings, writes="out", prefetch=64) as worker,
        ):
            trial.send(f"{n}-{i}" for i in range(MESSAGES))
            wait_for(lambda handled=handled: len(handled) >= MESSAGES)
            time.sleep(0.1)  # the fault: the confirms come meanwhile
            rabbit.kill()
            rabbit.start()
            trial.settle(60)
            trial.wait_until_idle(worker)
            fault_row.add(trial.drain_queues())


@pytest.mark.fault("F55")
@trial_counts(1, 5)
def test_target_of_delayed_messages_is_missing(rabbit, rabbit_settings, fault_row, times):
    """They come when it is there; messages to another queue, with that delay, come at once.

    RabbitMQ has 32 of them under way at a time, which must not hold up others.
    """
    queue = Queue("work", ())
    for n in range(times):
        settings = rabbit_settings.replace(namespace=f"{rabbit_settings.namespace}-{n}")
        with Trial(settings, queue) as trial, Publisher(settings) as publisher:
            place = publisher.delayed("gone", 0.2)
            publisher.publish_until_confirmed((Message(i) for i in range(100)), place)
            wait_for(lambda p=place, s=settings: not depth(p, s).messages)
            ids = [f"{n}-{i}" for i in range(MESSAGES)]
            trial.history.attempted |= set(ids)
            messages = [Message(id, id=id) for id in ids]
            publisher.publish_until_confirmed(messages, publisher.delayed("work", 0.2))
            trial.history.confirmed |= set(ids)
            with Worker(queue, same, settings, writes="out", prefetch=64) as worker:
                trial.settle(20)
                trial.wait_until_idle(worker)
            fault_row.add(trial.drain_queues())

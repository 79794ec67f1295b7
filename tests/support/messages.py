"""Sending messages to a queue, and counting those that are left in one."""

from __future__ import annotations

from mousetrap import job_queue
from mousetrap.amqp.publisher import Publisher
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue

QUICK = Queue("work", retry_delays=(0.05, 0.1))


def send(settings, *messages, queue="work"):
    """Declare *queue* and publish *messages* to it, each a `Message` or the data of one."""
    job_queue.declare(queue, settings=settings)
    with Publisher(settings) as publisher:
        receipts = [
            publisher.publish(each if isinstance(each, Message) else Message(each), queue)
            for each in messages
        ]
        for receipt in receipts:
            receipt.wait()
    return [receipt.message for receipt in receipts]


def double(n: int) -> int:
    return 2 * n


def open_messages(run):
    """Return how many messages of *run* are in a work queue or wait for a retry."""
    names = [name for queue in run.queues for name in queue.names() if name != queue.dead]
    return sum(each.messages for each in job_queue.depths(names, run.settings) if each)


def existing_queues(run):
    """Return the queues of *run* that exist at the broker, with their numbers of messages."""
    found = job_queue.depths(run._queues.wire_names(), run.settings.replace(namespace=""))
    return {each.queue: each.messages for each in found if each is not None}

"""What tests of commands share: messages to work on, and reading a terminal."""

from __future__ import annotations

import os
import select
import time

from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue


def send(settings, *data, queue="work"):
    declare(Queue(queue), settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(each) for each in data], queue)


def read_until(terminal, text, timeout=10.0):
    """Read from a terminal until it has printed *text*."""
    seen = b""
    deadline = time.monotonic() + timeout
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{text!r} was not printed within {timeout:g} s: {seen!r}"
        seen += os.read(terminal, 4096)
    return seen


def drain_when_there(queue, n, settings):
    """Wait for *n* messages in a queue that a worker is about to declare."""
    declare(queue, settings=settings)
    return drain(queue, n, timeout=15, settings=settings)

"""What tests of commands share: messages to work on, and reading a terminal."""

from __future__ import annotations

import contextlib
import os
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
    os.set_blocking(terminal, False)
    while text not in seen and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            seen += os.read(terminal, 4096)
    os.set_blocking(terminal, True)
    assert text in seen
    return seen


def drain_when_there(queue, n, settings):
    """Wait for *n* messages in a queue that a worker is about to declare."""
    declare(queue, settings=settings)
    return drain(queue, n, timeout=15, settings=settings)

"""Reads messages from a queue over a blocking channel: with one request each, or many at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any, TypeAlias

from mousetrap.amqp.blocking_channel import JobChannel
from mousetrap.amqp.error_translation import PIKA_ERRORS
from mousetrap.model.message import Message
from mousetrap.runtime import clock

MAX_SINGLE_GETS = 10  # messages; up to this number `take` uses basic.get, above it a consumer
DRAIN_IDLE_TIMEOUT = 0.5  # seconds without a delivery after which the queue is empty; a guess

GotMessage: TypeAlias = tuple[Any, Any, bytes]  # method, properties and body, as pika returns them


def take(
    channel: JobChannel, name: str, limit: int, deadline: float
) -> Generator[tuple[Message, int], None, None]:
    """Yield up to *limit* messages, each with the number that is left, as far as is known.

    There must be *limit* messages in the queue. Each is acked when the caller asks for the next
    one; if the caller closes the generator first, the last one goes back to the queue.
    """
    if limit <= MAX_SINGLE_GETS:
        for _ in range(limit):
            method, properties, body = channel.basic_get(name)
            if method is None:
                return
            yield Message.from_wire(body, properties), method.message_count
            channel.basic_ack(method.delivery_tag)
        return
    tag = 0  # messages up to this tag are taken
    channel.basic_qos(prefetch_count=limit)  # they are acked all at once, so no more arrive
    try:
        deliveries = channel.consume(name, inactivity_timeout=DRAIN_IDLE_TIMEOUT)
        for method, properties, body in deliveries:
            if method is None:  # another consumer has taken the rest
                break
            limit -= 1
            yield Message.from_wire(body, properties), limit
            tag = method.delivery_tag
            if not limit or clock.monotonic() > deadline:
                break
    except BaseException:
        with suppress(*PIKA_ERRORS):  # if the connection is lost, all of them come again
            if tag:
                channel.basic_ack(tag, multiple=True)
            channel.basic_nack(0, multiple=True)
        raise
    if tag:
        channel.basic_ack(tag, multiple=True)
    channel.cancel()


def get(channel: JobChannel, name: str, n: int) -> list[GotMessage]:
    """Return up to *n* messages, which the caller acks or returns to the queue."""
    found: list[GotMessage] = []
    while len(found) < n:
        method, properties, body = channel.basic_get(name)
        if method is None:
            break
        found.append((method, properties, body))
    return found

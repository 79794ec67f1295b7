"""Reads messages from a queue over a blocking channel, and returns messages to it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from mousetrap.amqp.blocking_channel import JobChannel
from mousetrap.amqp.error_translation import PIKA_ERRORS
from mousetrap.amqp.properties import is_near_delivery_limit, kept_properties
from mousetrap.amqp.publisher import Publisher
from mousetrap.model.headers import without_delivery_counts
from mousetrap.model.message import Message
from mousetrap.runtime import clock
from mousetrap.settings import Settings

MAX_SINGLE_GETS = 10  # messages; up to this number `take` uses basic.get, above it a consumer
REPUBLISH_TIMEOUT = 3.0  # seconds to wait for the confirms of republished messages
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


def requeue(
    channel: JobChannel,
    queue: str,
    got: Sequence[GotMessage],
    settings: Settings,
    timeout: float = REPUBLISH_TIMEOUT,
) -> None:
    """Return the messages that were *got* from *queue* to it, in the same order.

    A message near the delivery limit of a quorum queue is published again instead, behind the
    others. Before RabbitMQ 4.3 such a queue counts each return as a failed delivery, and drops the
    message at the 21st (measured). If the broker does not confirm the copy within *timeout*
    seconds, `REPUBLISH_TIMEOUT` at most, the message is returned like the others.
    """
    staying = got
    if near_limit := [each for each in got if is_near_delivery_limit(each[1])]:
        republished = _republish(near_limit, queue, settings, min(timeout, REPUBLISH_TIMEOUT))
        for tag in republished:
            channel.basic_ack(tag)
        staying = [each for each in got if each[0].delivery_tag not in republished]
    if staying:
        # Closing the channel would return them as well, but RabbitMQ 4.3 counts that, too.
        channel.basic_nack(staying[-1][0].delivery_tag, multiple=True, requeue=True)


def _republish(
    messages: Sequence[GotMessage], queue: str, settings: Settings, timeout: float
) -> set[int]:
    """Publish copies of *messages* to *queue*; return the delivery tags of the confirmed ones."""
    publisher = Publisher(settings, "requeue").open()
    try:
        receipts = {}
        for method, properties, body in messages:
            message = Message.from_wire(body, properties)
            if method.exchange and properties.message_id:
                message = message.in_queue(queue)
            copy = message.copy(message.attempt, without_delivery_counts(message.headers))
            kept = kept_properties(properties)
            receipts[method.delivery_tag] = publisher.publish(copy, queue, properties=kept)
        with suppress(TimeoutError):  # an alarm, or the broker is gone: they are returned instead
            publisher.flush(timeout)
        return {tag for tag, receipt in receipts.items() if receipt.confirmed}
    finally:
        publisher.close(0.0)

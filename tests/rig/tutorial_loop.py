"""The worker loop of RabbitMQ's tutorial, and variants with mistakes that the rig must find.

A program of its own, run as ``tutorial_loop.py MISTAKE SOURCE TARGET``. It imports no module of
mousetrap. ``tutorial`` is the loop as the tutorial has it, ``ack first``, ``auto ack`` and ``old
tags`` are mistakes.
"""

from __future__ import annotations

import json
import os
import sys
import time

import pika

mistake, source, target = sys.argv[1:4]
parameters = pika.URLParameters(os.environ["RABBITMQ_URL"])
parameters.heartbeat = int(os.environ.get("HEARTBEAT", "60"))
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "0"))  # seconds that a message takes
held: list[int] = []


def settle(channel):
    """Send a request: the broker answers it after everything that was sent before."""
    channel.queue_declare(source, passive=True)


def callback(channel, method, properties, body):
    """Handle one message: decode it, work, publish the result, ack; in another order by mistake."""
    job = json.loads(body)
    if mistake == "ack first":
        channel.basic_ack(method.delivery_tag)
        settle(channel)
    time.sleep(WORK_SECONDS)  # the work
    channel.basic_publish(exchange="", routing_key=target, body=json.dumps(job))
    if mistake not in ("ack first", "auto ack"):
        channel.basic_ack(method.delivery_tag)


def consume():
    """Open a channel and consume until an error ends it."""
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)
    channel.basic_consume(source, callback, auto_ack=mistake == "auto ack")
    print("consuming", flush=True)
    channel.start_consuming()


def take(connection, number):
    """Consume *number* messages on a new channel without acking them."""
    channel = connection.channel()
    deadline = time.monotonic() + 20
    while channel.queue_declare(source, passive=True).method.message_count < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the broker has not yet requeued what the old connection held
    channel.basic_qos(prefetch_count=number)
    taken = []
    channel.basic_consume(source, lambda _c, method, _p, body: taken.append((method, body)))
    while len(taken) < number:
        connection.process_data_events(time_limit=1)
    return channel, taken


def reconnect_with_old_tags():
    """Keep an unacked message over a reconnect, and ack it there by its old delivery tag."""
    channel, [(first, body), (second, other)] = take(pika.BlockingConnection(parameters), 2)
    channel.basic_publish("", target, body)
    channel.basic_ack(first.delivery_tag)
    settle(channel)
    print("first done", flush=True)
    try:
        while True:  # the connection breaks meanwhile
            channel.connection.process_data_events(time_limit=1)
    except pika.exceptions.AMQPError:
        channel, _ = take(pika.BlockingConnection(parameters), 2)
    channel.basic_publish("", target, other)
    channel.basic_ack(
        second.delivery_tag
    )  # on this channel the tag means the third message, which was not handled
    channel.exchange_declare(
        "amq.direct", passive=True
    )  # answered when the broker has processed the ack
    while True:
        channel.connection.process_data_events(time_limit=1)


if mistake == "old tags":
    reconnect_with_old_tags()
else:
    consume()

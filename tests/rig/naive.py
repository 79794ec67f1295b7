"""Workers as people write them, each with a mistake: what the rig must catch.

A program of its own, run as ``naive.py MISTAKE SOURCE TARGET``; it reads no module of ours, because
nobody who writes such a loop has one. ``tutorial`` is the loop of the tutorial, as it stands there.
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
HANDLING = float(os.environ.get("HANDLING", "0"))  # seconds that a message takes
held: list[int] = []


def settle(channel):
    """Ask the broker something: it answers after it has dealt with what was sent before."""
    channel.queue_declare(source, passive=True)


def callback(channel, method, properties, body):
    """Handle one message: read it, take a while, send it on, ack it; mostly in that order."""
    job = json.loads(body)
    if mistake == "ack first":
        channel.basic_ack(method.delivery_tag)
        settle(channel)
    time.sleep(HANDLING)  # the work
    channel.basic_publish(exchange="", routing_key=target, body=json.dumps(job))
    if mistake not in ("ack first", "auto ack"):
        channel.basic_ack(method.delivery_tag)


def consume():
    """Open a channel and consume until something ends it."""
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=10)
    channel.basic_consume(source, callback, auto_ack=mistake == "auto ack")
    print("consuming", flush=True)
    channel.start_consuming()


def take(connection, number):
    """Take *number* messages without acking them: the queue as it looks from a new channel."""
    channel = connection.channel()
    deadline = time.monotonic() + 20
    while channel.queue_declare(source, passive=True).method.message_count < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the broker has not put back yet what the old connection held
    channel.basic_qos(prefetch_count=number)
    taken = []
    channel.basic_consume(source, lambda _c, method, _p, body: taken.append((method, body)))
    while len(taken) < number:
        connection.process_data_events(time_limit=1)
    return channel, taken


def reconnect_with_old_tags():
    """Keep what is in hand over a reconnect, and ack it there by the tag that it had."""
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
    channel.basic_ack(second.delivery_tag)  # here this tag is the third message, not done by us
    channel.exchange_declare("amq.direct", passive=True)  # answered when the ack has been heard
    while True:
        channel.connection.process_data_events(time_limit=1)


if mistake == "old tags":
    reconnect_with_old_tags()
else:
    consume()

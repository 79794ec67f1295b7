"""Names of queues: which are valid, which the broker makes, and what an empty name means."""

from __future__ import annotations

import pytest
from client import (
    expect_error,
    publish,
    take_bodies,
)

NAMES = {
    "a space": "a b", "dots": "a.b.c", "UTF-8": "zürich 東京", "200 characters": "x" * 200,
    "slashes": "a/b", "only digits": "12", "punctuation": "#*%'\"<>",
}  # fmt: skip


@pytest.mark.parametrize("word", NAMES)
def test_a_name_of_a_queue(word, channel, name):
    """A name is any UTF-8 text of up to 255 bytes."""
    queue = name(NAMES[word])
    assert channel.queue_declare(queue, durable=True).method.queue == queue
    publish(channel, queue, b"hello")

    assert take_bodies(channel, queue) == [b"hello"]


def test_a_server_named_queue(channel):
    """A queue that is declared without a name gets one that begins with amq.gen-."""
    first = channel.queue_declare("", exclusive=True).method.queue
    second = channel.queue_declare("", exclusive=True).method.queue

    assert first.startswith("amq.gen-")
    assert first != second


def test_a_reserved_name_of_a_queue(channel):
    """A client cannot declare a name that begins with amq."""
    with expect_error(403, text="reserved prefix 'amq.*'"):
        channel.queue_declare("amq.mine", durable=True)


def test_an_empty_name_is_the_last_queue(channel, queue):
    """An empty name means the queue that this channel declared last."""
    channel.queue_declare(queue, durable=True)
    publish(channel, queue, b"hello")

    assert channel.basic_get("", auto_ack=True)[2] == b"hello"


def test_an_empty_name_without_a_last_queue(channel):
    """It fails with 404 if this channel has declared no queue."""
    with expect_error(404):
        channel.basic_get("")


def test_declaring_an_empty_name_makes_a_new_queue(channel, queue):
    """Only in a declaration an empty name makes a new queue."""
    channel.queue_declare(queue, durable=True)

    assert channel.queue_declare("", exclusive=True).method.queue != queue

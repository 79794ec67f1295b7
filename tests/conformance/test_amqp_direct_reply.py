"""Direct reply-to: answers without a queue, to the channel that asked."""

from __future__ import annotations

import pika
import pytest
from client import CHANNEL, CONNECTION, expect_error, get, publish
from support.waiting import wait_for

REPLY_TO = "amq.rabbitmq.reply-to"


def ask(channel, queue, **properties):
    """Consume answers on *channel*, send a request; return its name for answers, and them."""
    answers = []
    channel.basic_consume(REPLY_TO, lambda *answer: answers.append(answer[1:]), auto_ack=True)
    publish(channel, queue, b"request", reply_to=REPLY_TO, **properties)
    channel.queue_declare(queue, passive=True)
    _, asked, _ = get(channel, queue)
    return asked.reply_to, answers


@pytest.fixture
def other(target):
    """A channel of another connection, with confirms."""
    with target.connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def test_answer_arrives_where_the_request_came_from(channel, queue, other, target):
    """With all its properties, by the default exchange, not marked as redelivered."""
    name, answers = ask(channel, queue, correlation_id="c", priority=3)
    properties = pika.BasicProperties(correlation_id="c", headers={"a": 1}, expiration="60000")
    for body in (b"one", b""):
        other.basic_publish("", name, body, properties)
    wait_for(lambda: channel.connection.process_data_events(0.05) or len(answers) == 2)

    assert name.startswith(f"{REPLY_TO}.")
    assert [body for *_, body in answers] == [b"one", b""]
    method, found, _ = answers[0]
    assert (method.exchange, method.routing_key, method.redelivered) == ("", name, False)
    assert (found.correlation_id, found.headers, found.expiration) == ("c", {"a": 1}, "60000")
    first, second = (each[0].delivery_tag for each in answers)
    assert second == first + (target.version >= (4, 3))  # before, tags of answers do not count up


def test_request_keeps_its_other_properties(channel, queue):
    """Only the name in ``reply_to`` is replaced; another name stays."""
    channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)
    publish(channel, queue, b"x", reply_to=REPLY_TO, priority=3, correlation_id="c", type="t")
    publish(channel, queue, b"y", reply_to="elsewhere", headers={"in": REPLY_TO})

    _, first, _ = get(channel, queue)
    _, second, _ = get(channel, queue)
    assert (first.priority, first.correlation_id, first.type) == (3, "c", "t")
    assert second.reply_to == "elsewhere"


def test_name_for_answers_can_be_looked_at(channel, queue, other):
    """A passive declaration says whether the one that asked is still there."""
    name, _ = ask(channel, queue)
    found = other.queue_declare(name, passive=True).method
    channel.close()

    assert (found.queue, found.message_count, found.consumer_count) == (name, 0, 1)
    with expect_error(404, CHANNEL, f"no queue '{name}'"):
        other.queue_declare(name, passive=True)


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_answer_to_one_that_is_gone_is_confirmed(channel, queue, other, target, end):
    """It is dropped; 4.3 does not return it, older ones do."""
    name, answers = ask(channel, queue)
    if end == "cancel":
        for tag in channel.consumer_tags:
            channel.basic_cancel(tag)
    else:
        channel.close()

    other.basic_publish("", name, b"late")
    if target.version >= (4, 3):
        other.basic_publish("", name, b"late", mandatory=True)
    assert answers == []


def test_answer_by_another_exchange_finds_nobody(channel, queue, other):
    """Only the default exchange knows the names of channels."""
    name, _ = ask(channel, queue)

    with pytest.raises(pika.exceptions.UnroutableError):
        other.basic_publish("amq.direct", name, b"x", mandatory=True)


def test_answers_cannot_be_acked(channel):
    """So a consumer of answers has to say that it will not."""
    with expect_error(406, CHANNEL, "reply consumer cannot acknowledge"):
        channel.basic_consume(REPLY_TO, lambda *_: None)


def test_channel_has_one_consumer_of_answers(channel):
    """A second one is refused; after it was cancelled, there may be another."""
    consume = lambda: channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)  # noqa: E731 -- short
    channel.basic_cancel(consume())
    consume()

    with expect_error(406, CHANNEL, "reply consumer already set"):
        consume()


def test_request_without_a_consumer_of_answers_is_refused(target, name):
    """Whether the request would find a queue or not; a consumer of another channel is no help."""
    raw = target.connect_raw()
    raw.publish("nowhere", properties=pika.BasicProperties(reply_to=REPLY_TO))

    closed = raw.expect_close(CHANNEL, 406)
    assert "fast reply consumer does not exist" in closed.reply_text


def test_tag_of_another_consumer_is_taken(target, queue):
    """A consumer of answers cannot have the tag of a consumer of a queue on its channel."""
    raw = target.connect_raw()
    consume = pika.spec.Basic.Consume(queue=queue, consumer_tag="a", no_ack=True)
    raw.call(consume, pika.spec.Basic.ConsumeOk)
    raw.send(pika.spec.Basic.Consume(queue=REPLY_TO, consumer_tag="a", no_ack=True))

    assert "attempt to reuse consumer tag 'a'" in raw.expect_close(CONNECTION, 530).reply_text


@pytest.mark.parametrize("method", ["basic_get", "queue_purge"])
def test_name_of_all_answers_is_no_queue(channel, method):
    """It can be declared, and consumed; nothing can be taken out of it."""
    channel.queue_declare(REPLY_TO, passive=True)

    with expect_error(404, CHANNEL, f"no queue '{REPLY_TO}'"):
        getattr(channel, method)(REPLY_TO)

"""A message's AMQP properties: our own encoding and decoding give exactly what pika's give."""

from __future__ import annotations

import struct

import pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika import frame
from support.publishes import BASES, MESSAGES, PARENT

from mousetrap.amqp import properties
from mousetrap.amqp.properties import (
    basic_properties,
    decode_properties,
    encode_properties,
    kept_properties,
)
from mousetrap.model.message import Message

SENT = 1_790_000_000  # seconds since 1970
CHILD = PARENT.child([1], "fetch", 0)


def pikas_payload(message, size, sent, base):
    """The payload of the content header frame as pika alone encodes it."""
    return frame.Header(1, size, basic_properties(message, sent, base)).marshal()[7:-1]


@pytest.fixture
def left_to_pika(monkeypatch):
    """The messages whose properties pika has encoded, in order."""
    left = []

    def basic(message, sent, base):
        left.append(message)
        return basic_properties(message, sent, base)

    monkeypatch.setattr(properties, "basic_properties", basic)
    return left


@pytest.mark.parametrize("message", [PARENT, CHILD], ids=["job", "child"])
def test_encoding_of_an_ordinary_message_does_without_pika(message, left_to_pika):
    """A first attempt without headers of its own: nearly every message."""
    payload = encode_properties(message, 5, SENT, None)

    assert left_to_pika == []
    assert payload == pikas_payload(message, 5, SENT, None)


@pytest.mark.parametrize(
    ("message", "base"),
    [
        (Message(1, headers={"unknown": "header"}), {}),
        (Message(1, headers={"mousetrap-of-a-later-version": 1}), {}),
        (Message(1, headers={"traceparent": "00-0af7651916cd43dd-b7ad6b71-01", "n": None}), {}),
        (PARENT.copy(2, {}), {}),
        (Message(1, correlation_id="order 7"), {}),
        (Message(1, content_encoding="gzip"), {}),
        (CHILD.copy(1, {"mousetrap-reason": "OSError: down"}), {}),
        (Message(1, past_retries=3), {}),
        (PARENT, {"priority": 5}),
        (PARENT, {"user_id": "guest"}),
        (PARENT, {"expiration": "60000", "reply_to": "here", "cluster_id": "x"}),
        (CHILD, {"content_type": "text/csv", "timestamp": 5}),
    ],
    ids=["header", "header of ours", "headers", "retry", "correlation id", "gzip", "dead",
         "retried ancestor", "priority", "user", "request", "type and time"],
)  # fmt: skip
def test_encoding_of_anything_else_is_left_to_pika(message, base, left_to_pika):
    """A header or property that the fast way does not know: the bytes and the values of pika."""

    def base_properties():
        return pika.BasicProperties(**base) if base else None

    payload = encode_properties(message, 5, SENT, base_properties())

    assert left_to_pika == [message]
    assert payload == pikas_payload(message, 5, SENT, base_properties())
    found = decode_properties(payload)
    assert vars(found) == vars(basic_properties(message, SENT, base_properties()))
    assert found.headers == message.wire_headers()
    assert base.items() <= vars(found).items()


def test_encoding_knows_every_field_of_a_message():
    """If this fails, a message has something new: the condition of the fast way must ask for it."""
    known = {
        "_body", "_data", "attempt", "content_encoding", "correlation_id", "headers", "id", "job",
        "parent", "past_retries", "sent",
    }  # fmt: skip

    assert set(Message.__slots__) == known


@given(MESSAGES, st.integers(0, 2**40), BASES)
@example(PARENT, SENT, None)
@example(CHILD, SENT, None)
def test_encoding_gives_the_bytes_of_pika(message, sent, base):
    """Whatever the message and its properties."""
    one, two = (base and pika.BasicProperties(**base) for _ in range(2))

    assert encode_properties(message, 5, sent, one) == pikas_payload(message, 5, sent, two)


@pytest.mark.parametrize("value", [2**64, {1, 2}, object()])
def test_encoding_of_an_impossible_header_raises(value):
    """The publisher refuses that message, before anything of it was written."""
    with pytest.raises((pika.exceptions.UnsupportedAMQPFieldException, struct.error)):
        encode_properties(Message(1, headers={"x": value}), 5, SENT, None)


@given(MESSAGES, st.integers(0, 2**40), BASES, st.data())
@example(PARENT, SENT, None, None)
@example(CHILD, SENT, None, None)
def test_decoding_gives_what_pika_gives(message, sent, base, data):
    """Ours or not, complete, cut or with a wrong byte: the same properties, or the same error."""
    made = basic_properties(message, sent, base and pika.BasicProperties(**base))
    payload = frame.Header(1, 5, made).marshal()[7:-1]
    if data is not None and data.draw(st.booleans()):
        where = data.draw(st.integers(12, len(payload) - 1))
        payload = payload[:where] + data.draw(st.binary(max_size=1)) + payload[where + 1 :]
    try:
        expected = vars(pika.BasicProperties().decode(payload, 12))
    except Exception as error:
        with pytest.raises(type(error)):
            decode_properties(payload)
    else:
        assert vars(decode_properties(payload)) == expected


def test_kept_properties_are_those_that_harm_no_copy():
    """An expiration would lose the copy, another user's id would have it refused."""
    everything = {
        "content_type": "text/csv", "content_encoding": "utf-8", "headers": {"x": 1},
        "delivery_mode": 1, "priority": 3, "correlation_id": "c", "reply_to": "here",
        "expiration": "100", "message_id": "m", "timestamp": 5, "type": "t", "user_id": "guest",
        "app_id": "a", "cluster_id": "k",
    }  # fmt: skip
    kept = vars(kept_properties(pika.BasicProperties(**everything)))

    dropped = {"headers", "delivery_mode", "expiration", "message_id", "user_id", "cluster_id"}
    assert {name for name in everything if kept[name] is None} == dropped
    assert all(kept[name] == everything[name] for name in everything.keys() - dropped)

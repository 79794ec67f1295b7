"""The methods of AMQP as bytes, compared with pika's codec."""

from __future__ import annotations

import pika.frame
import pytest
from pika import spec

from mousetrap.embedded_broker import codec, methods

BIG_TAG = 2**40
FROM_PIKA = [
    (
        spec.Basic.Publish(exchange="x", routing_key="k", mandatory=True),
        "basic.publish",
        {"ticket": 0, "exchange": "x", "routing_key": "k", "mandatory": True, "immediate": False},
    ),
    (
        spec.Basic.Nack(BIG_TAG, multiple=True, requeue=False),
        "basic.nack",
        {"delivery_tag": BIG_TAG, "multiple": True, "requeue": False},
    ),
    (
        spec.Queue.Bind(queue="q", exchange="x", routing_key="k", arguments={"a": 1}),
        "queue.bind",
        {
            "ticket": 0, "queue": "q", "exchange": "x", "routing_key": "k", "nowait": False,
            "arguments": {"a": 1},
        },
    ),
    (
        spec.Connection.TuneOk(5, 8192, 30),
        "connection.tune_ok",
        {"channel_max": 5, "frame_max": 8192, "heartbeat": 30},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "name", "arguments"), FROM_PIKA, ids=lambda each: str(each)[:30]
)
def test_decode_reads_what_pika_sends(method, name, arguments):
    """The name and every argument come back, bits included."""
    payload = pika.frame.Method(1, method).marshal()[7:-1]

    assert methods.decode(payload) == (name, arguments)


def test_pika_reads_what_encode_sends():
    """A basic.deliver is a valid frame for a client."""
    payload = methods.encode("basic.deliver", "tag", BIG_TAG, True, "x", "k")
    head = b"\x01\x00\x01" + len(payload).to_bytes(4, "big")
    _, frame = pika.frame.decode_frame(head + payload + b"\xce")

    method = frame.method
    assert (method.consumer_tag, method.delivery_tag, method.redelivered) == ("tag", BIG_TAG, True)
    assert (method.exchange, method.routing_key) == ("x", "k")


@pytest.mark.parametrize("name", [name for name, given in methods.ARGUMENTS.items() if given])
def test_a_method_cut_short_is_malformed(name):
    """A method whose arguments are missing raises Malformed, and no other error."""
    with pytest.raises(codec.Malformed):
        methods.decode(methods.ID_OF[name])

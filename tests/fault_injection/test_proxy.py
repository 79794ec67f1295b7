"""The proxy acts at a step of the protocol, and keeps the stream valid."""

from __future__ import annotations

import pytest

from mousetrap import open_channel
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import declare, depth
from mousetrap.model.message import Message


@pytest.mark.fault("F03")
@pytest.mark.parametrize(
    ("name", "direction", "when", "is_there"),
    [
        ("Basic.Publish", "to broker", "before", False),
        ("Basic.Publish", "to broker", "after", True),
        ("Basic.Ack", "from broker", "before", True),
    ],
)
def test_proxy_cuts_at_a_step(settings, proxy, name, direction, when, is_there):
    """Cut before or after a publish, or before its confirm: the broker has it or has not."""
    declare("work", settings=settings)
    with Publisher(proxy.settings) as publisher:
        step = proxy.at(name, direction, when)
        if when == "after":  # the confirm may arrive before the cut
            proxy.at("Basic.Ack", "from broker", "before")
        receipt = publisher.publish(Message(1), "work")
        step.wait()

        with pytest.raises(MousetrapError):
            receipt.wait(10)

    assert receipt.state == "unknown"
    assert depth("work", settings).messages == is_there


def test_trigger_raises_when_it_was_not_reached(proxy):
    """A trigger that was not reached raises, and so does an unknown method."""
    step = proxy.at("Basic.Ack")

    with pytest.raises(TimeoutError, match="did not happen"):
        step.wait(0.05)
    with pytest.raises(ValueError, match="no method"):
        proxy.at("Basic.Akc")


@pytest.mark.fault("F19")
def test_proxy_delays_and_slices_without_breaking_the_stream(settings, proxy):
    """With a delay of 50 ms, one byte at a time, everything arrives at the same rate."""
    declare("work", settings=settings)
    proxy.delay(0.05)
    proxy.slice(1)
    with Publisher(proxy.settings) as publisher:
        receipts = publisher.publish_many((Message(n) for n in range(200)), "work")
        publisher.flush(10)

        assert all(receipt.confirmed for receipt in receipts)
        assert publisher.connection.reconnects == 0


def test_proxy_counts_the_channels_that_consume(settings, proxy):
    """A second consumer on a channel, as in a change of the prefetch, is no further one."""
    declare("work", settings=settings)
    queue = settings.topology.wire_name("work")
    with open_channel(proxy.settings) as channel:
        [link] = proxy.links()
        first = channel.basic_consume(queue, print)
        second = channel.basic_consume(queue, print)
        assert (link.consumers, proxy.opened["consumers"]) == (1, 1)

        channel.basic_cancel(first)
        assert link.consumers == 1

        channel.basic_cancel(second)
        assert link.consumers == 0

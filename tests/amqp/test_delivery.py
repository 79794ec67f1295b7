"""Which deliveries are suspected when the broker closes a channel because an ack timed out."""

from __future__ import annotations

import pytest

from mousetrap.amqp.delivery import Delivery, mark_ack_timeouts
from mousetrap.amqp.properties import AMQPProperties
from mousetrap.runtime import clock


def delivery(id, age, handled=None):
    """Return a delivery that came *age* s ago, and whose handler began *handled* s ago, if any."""
    delivery = Delivery(1, 1, AMQPProperties(message_id=id), b"")
    delivery.received = clock.monotonic() - age
    if handled is not None:
        delivery.handling_started = clock.monotonic() - handled
    return delivery


NOTHING: set[str] = set()


@pytest.mark.parametrize(
    ("outstanding", "of_lost_channels", "marked"),
    [
        ([("a", 10, 10), ("b", 10)], [], {"a"}),
        ([("a", 10, 9.5), ("b", 10, 3), ("c", 2, 2)], [], {"a"}),
        ([("a", 10, 3), ("b", 10)], [], NOTHING),  # the oldest only waited: the prefetch
        ([("a", 10)], [], NOTHING),
        # A handler that hangs since before the channel was replaced, and what waits for it:
        ([("a", 10)], [("a", 25, 25)], {"a"}),
        ([("a", 10), ("b", 10)], [("a", 25, 20)], {"a"}),
        ([("b", 10)], [("a", 25, 25)], {"a"}),
        ([("b", 10)], [("a", 25, 3)], NOTHING),
        ([], [("a", 25, 25)], NOTHING),  # no ack can have timed out
        ([(None, 10), (None, 9)], [(None, 25, 25)], {None}),
    ],
)
def test_ack_timeouts_are_of_messages_whose_handlers_have_run_for_as_long(
    outstanding, of_lost_channels, marked
):
    """A message that only waited is not suspected, unless it waited for its own handler."""
    present = [delivery(*each) for each in outstanding]
    lost = [delivery(*each) for each in of_lost_channels]
    mark_ack_timeouts(present, [*present, *lost])

    found = [each for each in (*present, *lost) if each.has_ack_timed_out]
    assert {each.properties.message_id for each in found} == marked
    if marked == {None}:  # without an id nothing says that they are the same message
        assert found == lost

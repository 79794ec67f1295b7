"""Delays are rounded to a bounded number of waiting times; what cannot be sent later is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap import Exchange, Send
from mousetrap.model.delays import (
    MAX_SEND_DELAY,
    MIN_SEND_DELAY,
    SendOptions,
    delay_queue,
    delayed_target,
    has_expired,
    waiting_time,
)
from mousetrap.model.headers import EXPIRES
from mousetrap.model.topology import Topology, check_queue_name, work_queue_of
from mousetrap.runtime import clock


@given(st.floats(MIN_SEND_DELAY, MAX_SEND_DELAY))
def test_delay_is_kept_within_five_percent_or_a_tenth_of_a_second(delay):
    """With a part of it left for the broker."""
    error = waiting_time(delay) - delay

    assert -max(0.05 * delay, 0.1) <= error <= max(0.0466 * delay, 0.051)


def test_number_of_delay_queues_is_bounded():
    """Whatever the delay, down to a millisecond: a target has at most 223 delay queues."""
    steps = range(200_001)
    ratio = MAX_SEND_DELAY / MIN_SEND_DELAY
    found = {waiting_time(MIN_SEND_DELAY * ratio ** (n / 200_000)) for n in steps}

    assert len(found) == 223
    assert {waiting_time(each) for each in found} == found


@pytest.mark.parametrize(
    "delay", [0.05, 0.1, 1, 2.5, 5, 10, 15, 30, 60, 300, 900, 1800, 3600, 36000]
)
def test_usual_delay_is_exact(delay):
    """Seconds, minutes and hours that people write are not rounded."""
    assert waiting_time(delay) == delay


@given(st.floats(MIN_SEND_DELAY, MAX_SEND_DELAY))
def test_name_of_a_delay_queue_names_its_target(delay):
    """Also that of the queue that stands in for it; both fit where the target's name fits."""
    target = check_queue_name("n" * 190)
    name = delay_queue(target, waiting_time(delay))

    assert delayed_target(name) == delayed_target(f"{name}.2") == work_queue_of(name) == target
    assert len(name) - len(target) <= len(".retry.1.23457e-05s")
    assert delayed_target(target) is None


def test_delay_queue_keeps_messages_until_the_target_has_them():
    """A quorum queue that publishes at least once; the largest delay is within seven days."""
    waits = waiting_time(MAX_SEND_DELAY)
    found = Topology("ns").waiting_queue(delay_queue("remind", waits), "remind", waits)

    assert found.name == "ns.remind.delay.600000s"
    assert found.arguments == {
        "x-queue-type": "quorum",
        "x-message-ttl": 600_000_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "ns.remind",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"delay": -1}, "from 0 to 604800"),
        ({"delay": math.nan}, "from 0 to 604800"),
        ({"delay": 604_801}, "seven days"),
        ({"delay": True}, "number of seconds"),
        ({"delay": "60"}, "number of seconds"),
        ({"priority": 256}, "in 0..255"),
        ({"priority": -1}, "in 0..255"),
        ({"priority": 1.0}, "in 0..255"),
        ({"expires": 0}, "above 0"),
        ({"expires": math.inf}, "above 0"),
        ({"expires": 60, "delay": 60}, "before it is delivered"),
    ],
)
def test_options_that_cannot_work_are_refused(options, problem):
    """Where they are given, with what is allowed."""
    with pytest.raises(ValueError, match=problem):
        SendOptions.checked(**options)
    with pytest.raises(ValueError, match=problem):
        Send("x", to="q", **options)


def test_delay_of_less_than_the_shortest_waiting_time_is_none():
    """It would be off by more than if the message was sent at once."""
    assert SendOptions.checked(delay=0.049).delay == 0.0
    assert SendOptions.checked(delay=0.05).delay == 0.05


def test_exchange_cannot_be_sent_to_later():
    """The error says what to do instead."""
    orders = Exchange("orders")

    with pytest.raises(ValueError, match="a queue whose stage writes to the exchange"):
        Send("x", to=orders["order.paid"], delay=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-1.0, True), (60.0, False), ("soon", False), (None, False), (math.nan, False)],
)
def test_message_expires_at_the_time_in_its_header(value, expected):
    """Any client can set the header: what is no time is ignored."""
    is_time = isinstance(value, float)

    assert has_expired({EXPIRES: clock.time() + value if is_time else value}) is expected

"""Possible poison messages are counted, then handled alone, then dead-lettered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.amqp.properties import AMQPProperties
from mousetrap.errors import AckTimedOut, WorkerLost
from mousetrap.model.headers import LOSSES, TIMEOUTS
from mousetrap.model.message import MAX_ATTEMPT, Message
from mousetrap.model.poison_messages import (
    ALONE_FROM,
    MAX_ACK_TIMEOUTS,
    MAX_LOSSES,
    Move,
    after_ack_timeout,
    after_loss,
    is_handled_alone,
    uncounted,
)
from mousetrap.model.retry_policy import DeadLetter, decide
from mousetrap.model.topology import Queue

WORK = Queue("work", ())


@pytest.mark.parametrize(
    ("header", "losses"),
    [(None, 0), (3, 3), (-5, 0), (10**9, MAX_ATTEMPT), ("many", 0), (True, 0), (2.5, 0)],
)
def test_a_forged_count_is_clamped(header, losses):
    """A count that another client wrote is read as a number within bounds, or as zero."""
    headers = {} if header is None else {LOSSES: header}
    message = Message.from_wire(b"1", AMQPProperties(message_id="m", headers=headers))

    assert message.losses == losses


def test_each_loss_is_counted_until_the_message_is_dead_lettered():
    """Back to its queue, then to quarantine, then dead; its id and its other headers stay."""
    message, targets = Message(1, id="m", headers={"tenant": "x"}), []
    while isinstance(what_next := after_loss(message, WORK), Move):
        targets.append(what_next.target)
        message = what_next.copy

    assert isinstance(what_next, WorkerLost)
    assert targets == ["work"] * (ALONE_FROM - 1) + ["work.quarantine"] * (MAX_LOSSES - ALONE_FROM)
    assert (message.id, message.attempt, message.headers["tenant"]) == ("m", 1, "x")
    assert decide(1, what_next, WORK) == DeadLetter(reason=f"WorkerLost: {what_next}")


def test_each_ack_timeout_is_counted_until_the_message_is_dead_lettered():
    """To quarantine at once, then dead; losses are counted separately, and none is forgotten."""
    message, targets = Message(1, id="m", headers={LOSSES: 1}), []
    while isinstance(what_next := after_ack_timeout(message, WORK), Move):
        targets.append(what_next.target)
        message = what_next.copy

    assert isinstance(what_next, AckTimedOut)
    assert targets == ["work.quarantine"] * (MAX_ACK_TIMEOUTS - 1)
    assert (message.id, message.attempt, message.losses) == ("m", 1, 1)
    assert after_loss(message, WORK).copy.timeouts == MAX_ACK_TIMEOUTS - 1
    assert decide(1, what_next, WORK) == DeadLetter(reason=f"AckTimedOut: {what_next}")


@given(st.integers(0, MAX_LOSSES - 1), st.integers(0, MAX_ACK_TIMEOUTS - 1), st.integers(1, 9))
def test_uncounted_changes_neither_the_counts_nor_the_queue(losses, timeouts, attempt):
    """The copy differs only in what the broker counts; it goes to where its counts belong."""
    headers = {LOSSES: losses, TIMEOUTS: timeouts, "tenant": "x", "x-delivery-count": 20}
    message = Message({"seed": 1}, attempt=attempt, headers=headers)

    move = uncounted(message, WORK)

    copy = move.copy
    assert (copy.id, copy.attempt, copy.body) == (message.id, attempt, message.body)
    assert (copy.losses, copy.timeouts, copy.headers["tenant"]) == (losses, timeouts, "x")
    assert "x-delivery-count" not in copy.headers
    assert move.target == (WORK.quarantine if is_handled_alone(message) else WORK.name)
    assert is_handled_alone(copy) == is_handled_alone(message)

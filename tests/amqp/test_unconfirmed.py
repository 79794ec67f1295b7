"""Publishes without an answer: each answer of the broker takes the right ones, once."""

from __future__ import annotations

import pytest

from mousetrap.amqp.receipt import Receipt
from mousetrap.amqp.unconfirmed import UnconfirmedPublishes
from mousetrap.model.message import Message


@pytest.fixture
def unconfirmed():
    """Publishes of the messages a to e to the queues q0, q1, q0, ..., with deadlines 0, 1, ..."""
    unconfirmed = UnconfirmedPublishes()
    for n, id in enumerate("abcde"):
        unconfirmed.add(Receipt(Message(n, id=id), f"q{n % 2}", 0, None, float(n), None))
    return unconfirmed


def ids(receipts):
    return "".join(receipt.message.id for receipt in receipts)


def test_one_tag_takes_one_receipt_once(unconfirmed):
    """A second answer for the same tag, as after a return, finds nothing."""
    assert ids(unconfirmed.take(2, multiple=False)) == "b"
    assert ids(unconfirmed.take(2, multiple=False)) == ""


def test_multiple_takes_all_up_to_the_tag(unconfirmed):
    """Without those that were taken before."""
    unconfirmed.take(2, multiple=False)

    assert ids(unconfirmed.take(4, multiple=True)) == "acd"
    assert ids(unconfirmed.take_all()) == "e"


def test_a_return_takes_the_first_with_its_id_and_queue(unconfirmed):
    """The same message may have been published twice, or to two queues."""
    unconfirmed.add(Receipt(Message(0, id="a"), "q1", 0, None, 9.0, None))
    unconfirmed.add(Receipt(Message(0, id="a"), "q0", 0, None, 9.0, None))

    [first] = unconfirmed.take_returned("a", "q0")
    [second] = unconfirmed.take_returned("a", "q0")
    assert (first.deadline, second.deadline) == (0.0, 9.0)
    assert unconfirmed.take_returned("a", "q0") == []
    assert ids(unconfirmed.take(6, multiple=True)) == "bcdea"


def test_late_receipts_are_those_past_their_deadline(unconfirmed):
    """The others stay, and keep their tags."""
    assert ids(unconfirmed.take_late(2.5)) == "abc"
    assert ids(unconfirmed.take(4, multiple=False)) == "d"


def test_tags_start_again_on_a_new_channel(unconfirmed):
    """After `take_all` the next publish has tag 1."""
    assert ids(unconfirmed.take_all()) == "abcde"
    unconfirmed.add(Receipt(Message(0, id="f"), "q0", 0, None, 0.0, None))

    assert ids(unconfirmed.take(1, multiple=False)) == "f"

"""A receipt waits, is settled once, and raises the error that belongs to its outcome."""

from __future__ import annotations

import threading

import pytest

from mousetrap.amqp.publish_window import PublishWindow
from mousetrap.amqp.publisher import Publisher
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import OutcomeUnknown, PublishRefused, Unroutable
from mousetrap.job_queue import declare
from mousetrap.model.message import Message
from mousetrap.settings import Settings

ERRORS = {"returned": Unroutable, "refused": PublishRefused, "unknown": OutcomeUnknown}


def new_receipt(callback=None):
    return Receipt(Message({"n": 1}, id="0123456789abcdef"), "work", 0, None, 0.0, callback)


def settle(receipt, state, reason="", is_final=False):
    """Settle *receipt* as the publisher does when the broker answers."""
    PublishWindow(Settings(), None, print).settle([receipt], state, reason, is_final)


def test_receipt_waits_at_first():
    """It has no outcome, hence no error, and says so."""
    receipt = new_receipt()

    assert (receipt.state, receipt.confirmed, receipt.error) == ("waiting", False, None)
    assert repr(receipt) == "<Receipt 01234567 → work: waiting>"


def test_receipt_that_is_confirmed_returns_itself_from_wait():
    """So that one can write `publish(...).wait().message`."""
    receipt = new_receipt()
    settle(receipt, "confirmed")

    assert receipt.wait(0) is receipt
    assert receipt.confirmed
    assert receipt.error is None


@pytest.mark.parametrize("state", ERRORS)
def test_receipt_raises_the_error_of_its_outcome(state):
    """Each of the three bad outcomes has its own error, which names the message and the queue."""
    receipt = new_receipt()
    settle(receipt, state, "some reason")

    with pytest.raises(ERRORS[state], match=r"01234567.*'work'") as raised:
        receipt.wait(0)
    assert type(receipt.error) is type(raised.value)
    assert not receipt.confirmed


def test_receipt_says_what_to_do_next():
    """Declare the queue; publish again with the same id, unless the message can never be sent."""
    receipt = new_receipt()
    settle(receipt, "returned", "NO_ROUTE")
    assert "declare it" in str(receipt.error)

    settle(receipt, "unknown", "no answer in 30 s")
    assert "no answer in 30 s); publish it again, with the same id" in str(receipt.error)

    settle(receipt, "refused", "nack")
    assert "(nack); publish it again later, with the same id" in str(receipt.error)

    settle(receipt, "refused", "too large", is_final=True)
    assert str(receipt.error).endswith("(too large)")


def test_receipt_shows_foreign_text_safely():
    """A broker's reason may contain control characters; none of them reaches a terminal."""
    receipt = new_receipt()
    settle(receipt, "unknown", "\x1b[2J")

    assert "\x1b" not in f"{receipt!r}{receipt.error}"


def test_wait_raises_a_timeout_without_an_outcome():
    """The receipt still waits then, and can get its outcome later."""
    receipt = new_receipt()

    with pytest.raises(TimeoutError, match=r"01234567 in 0\.01 s"):
        receipt.wait(0.01)
    settle(receipt, "confirmed")
    assert receipt.wait(0) is receipt


def test_wait_wakes_every_thread_that_waits():
    """Several threads wait for one receipt; each returns when it is settled."""
    receipt, returned = new_receipt(), []
    threads = [threading.Thread(target=lambda: returned.append(receipt.wait(10))) for _ in range(5)]
    for thread in threads:
        thread.start()
    settle(receipt, "confirmed")
    for thread in threads:
        thread.join(10)

    assert returned == [receipt] * 5


def test_wait_finds_an_outcome_that_comes_between_its_check_and_its_sleep():
    """Settled at any moment, by another thread: no waiting thread sleeps on."""
    for _ in range(200):
        receipt = new_receipt()
        settling = threading.Thread(target=settle, args=(receipt, "confirmed"))
        settling.start()
        assert receipt.wait(5).confirmed
        settling.join()


def test_callback_gets_the_settled_receipt_on_the_io_thread(settings):
    """Once for each receipt, when the outcome is known, on the publisher's I/O thread."""
    declare("work", settings=settings)
    calls = []

    def callback(receipt):
        calls.append((receipt, receipt.state, threading.current_thread().name))

    with Publisher(settings) as publisher:
        good = publisher.publish(Message(1), "work", callback=callback)
        bad = publisher.publish(Message(2), "nowhere", callback=callback)
        publisher.flush()

    assert {receipt: state for receipt, state, _ in calls} == {good: "confirmed", bad: "returned"}
    assert len(calls) == 2
    assert all(thread.startswith("mousetrap-io") for *_, thread in calls)


def test_callback_may_publish_again(settings):
    """On the I/O thread nothing blocks: a callback sends the message again at once."""
    declare("work", settings=settings)
    again, sent = [], threading.Event()

    def callback(receipt):
        if receipt.state == "returned":
            again.append(publisher.publish(receipt.message, "work"))
            sent.set()

    with Publisher(settings.replace(max_in_flight=1)) as publisher:
        publisher.publish(Message(1), "nowhere", callback=callback)
        assert sent.wait(10)
        publisher.flush()

    assert [receipt.state for receipt in again] == ["confirmed"]

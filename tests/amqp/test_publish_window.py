"""The window of a publisher: how many receipts wait, who is held back, and what is settled."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from support.waiting import wait_for

from mousetrap.amqp.publish_window import PublishWindow
from mousetrap.amqp.receipt import Receipt
from mousetrap.errors import ConnectionLost, OutcomeUnknown
from mousetrap.model.message import Message
from mousetrap.runtime import clock
from mousetrap.settings import Settings


def receipts(count, deadline=1e9, callback=None):
    return [Receipt(Message(n), "work", 0, None, deadline, callback) for n in range(count)]


@pytest.fixture
def connection():
    """An open connection that notes what is to run on its I/O thread, which this one is not."""
    scheduled = []
    return SimpleNamespace(
        state="open", io_thread=SimpleNamespace(is_current_thread=False),
        call_soon=scheduled.append, scheduled=scheduled,
    )  # fmt: skip


@pytest.fixture
def window(connection):
    """A window of four that accepts receipts; its write does nothing."""
    settings = Settings(max_in_flight=4, confirm_timeout=0.1)
    window = PublishWindow(settings, connection, lambda: None)
    window.accept()
    return window


def test_submit_wakes_the_io_thread_once_per_batch(window, connection):
    """However many are submitted before the write, and again after it."""
    first, second = receipts(2)
    window.submit([first])
    window.submit([second])
    assert connection.scheduled == [window._write]

    assert list(window.take(can_write=True)) == [first, second]
    window.submit(receipts(1))
    assert len(connection.scheduled) == 2


def test_outbox_stays_while_there_is_no_channel(window):
    """What could not be written, or only in part, is written first the next time."""
    a, b, c = receipts(3)
    window.submit([a, b])
    assert list(window.take(can_write=False)) == []

    assert list(window.take(can_write=True)) == [a, b]
    window.submit([c])
    window.put_back([b])
    assert list(window.take(can_write=True)) == [b, c]


def test_full_window_holds_a_caller_back_until_there_is_room(window):
    """The fifth publish waits; when two receipts of four are settled it goes on."""
    waiting = receipts(4)
    window.submit(waiting)
    passed = threading.Event()
    caller = threading.Thread(
        target=lambda: (window.wait_for_room(clock.monotonic() + 10), passed.set())
    )
    caller.start()
    wait_for(lambda: window._room._sleepers)
    assert not passed.is_set()

    window.settle(waiting[:2], "confirmed")
    assert passed.wait(10)
    caller.join(10)
    assert window.in_flight == 2


def test_full_window_raises_at_the_deadline(window):
    """And says that this message was not sent, so that it can be published again."""
    window.submit(receipts(4))

    with pytest.raises(OutcomeUnknown, match=r"4 messages got no answer .* was not sent"):
        window.wait_for_room(clock.monotonic() + 0.05)


def test_full_window_never_blocks_the_io_thread(window, connection):
    """The answers that make room arrive on that thread."""
    connection.io_thread.is_current_thread = True
    window.submit(receipts(4))

    window.wait_for_room(clock.monotonic())


def test_failed_window_refuses_and_releases_everybody(window):
    """Receipts in the outbox become unknown, callers that wait go on and get the first failure."""
    waiting = receipts(4)
    window.submit(waiting)
    caller = threading.Thread(target=window.wait_for_room, args=(clock.monotonic() + 10,))
    caller.start()
    wait_for(lambda: window._room._sleepers)
    window.fail(ConnectionLost("first"))
    window.fail(ConnectionLost("second"))
    caller.join(10)

    assert not caller.is_alive()
    assert {(each.state, each.reason) for each in waiting} == {("unknown", "first")}
    assert window.wait_until_empty(0)
    with pytest.raises(ConnectionLost, match="first"):
        window.submit(receipts(1))


def test_late_receipts_are_taken_from_the_front_of_the_outbox(window):
    """Deadlines grow from front to back, because each publish has the same time-out."""
    late, due = receipts(2, deadline=1.0), receipts(1, deadline=5.0)
    window.submit([*late, *due])

    assert window.take_late(3.0) == late
    assert list(window.take(can_write=True)) == due


def test_settle_calls_each_callback_after_the_count_is_right(window):
    """A callback that asks how many wait gets the number without its own receipt."""
    seen = []
    waiting = receipts(2, callback=lambda receipt: seen.append((receipt.state, window.in_flight)))
    window.submit(waiting)

    window.settle(waiting, "refused", "nack")

    assert seen == [("refused", 0)] * 2

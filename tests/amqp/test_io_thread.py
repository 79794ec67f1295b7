"""The I/O thread: it runs until its last member is detached, and calls functions in order."""

from __future__ import annotations

import inspect
import threading

import pytest
from pika.adapters.select_connection import IOLoop, _PollerBase
from support.waiting import wait_for

from mousetrap.amqp.io_thread import IOThread
from mousetrap.errors import ConnectionLost


class Member:
    """Keeps the error that ended the thread."""

    def __init__(self):
        self.error = None

    def crashed(self, error):
        self.error = error


@pytest.fixture
def io_thread():
    """A thread with one member, which is detached with the test."""
    thread, member = IOThread("test"), Member()
    thread.attach(member)
    thread.member = member
    yield thread
    thread.call(lambda: thread.detach(member))
    wait_for(lambda: not thread._thread.is_alive())


def run(io_thread, function):
    """Run *function* on the thread and return when it has run."""
    done = threading.Event()
    io_thread.call(lambda: (function(), done.set()))
    assert done.wait(10)


def test_call_runs_on_the_thread_in_order(io_thread):
    """Whatever thread calls it."""
    names, order = [], []
    for n in range(100):
        io_thread.call(lambda n=n: order.append(n))
    run(io_thread, lambda: names.append(threading.current_thread().name))

    assert order == list(range(100))
    assert names == ["mousetrap-io test"]
    assert not io_thread.is_current_thread


def test_call_soon_runs_at_the_end_of_the_turn_with_what_it_submits(io_thread):
    """First what was submitted first; a function that is submitted meanwhile in the same turn."""
    order = []

    def submit():
        io_thread.call_soon(lambda: (order.append("a"), io_thread.call_soon(order.append_c)))
        io_thread.call_soon(lambda: order.append("b"))
        order.append("turn")

    class Order(list):
        def append_c(self):
            self.append("c")

    order = Order()
    run(io_thread, submit)
    wait_for(lambda: len(order) == 4)

    assert order == ["turn", "a", "b", "c"]


def test_loop_is_woken_only_while_it_sleeps(io_thread, monkeypatch):
    """Functions that other threads submit while it is awake run in its next turn all the same."""
    wakes, ran = [], []
    poller, submitted, awake = io_thread.io._poller, threading.Event(), threading.Event()
    wake = poller.wake_threadsafe
    monkeypatch.setattr(poller, "wake_threadsafe", lambda: (wakes.append(1), wake()))

    wait_for(lambda: io_thread.io._may_sleep)
    io_thread.call(lambda: (awake.set(), submitted.wait(10)))
    assert awake.wait(10)
    assert len(wakes) == 1
    for n in range(100):
        io_thread.call(lambda n=n: ran.append(n))
    submitted.set()
    wait_for(lambda: len(ran) == 100)

    assert ran == list(range(100))
    assert len(wakes) == 1


def test_pika_still_has_what_the_loop_overrides():
    """If this fails, read pika's changes."""
    calls = inspect.getsource(IOLoop.process_timeouts)
    assert "self._callbacks.popleft()" in calls
    assert "self._timer.process_timeouts()" in calls
    assert calls.count("self.") == 3, "pika does something new in each turn"
    adding = inspect.getsource(IOLoop.add_callback_threadsafe)
    assert "self._callbacks.append(callback)" in adding
    assert "self._poller.wake_threadsafe()" in adding
    assert "self._callbacks" in inspect.getsource(IOLoop._get_remaining_interval)
    assert "self._get_wait_seconds()" in inspect.getsource(_PollerBase._get_max_wait)
    turn = inspect.getsource(_PollerBase.start)
    assert turn.index("self.poll()") < turn.index("self._process_timeouts()")


def test_thread_runs_until_its_last_member_is_detached(io_thread):
    """Another member may be detached before; afterwards no member can be attached."""
    other = Member()
    io_thread.attach(other)
    run(io_thread, lambda: io_thread.detach(other))
    run(io_thread, lambda: None)

    io_thread.call(lambda: io_thread.detach(io_thread.member))
    wait_for(lambda: not io_thread._thread.is_alive())
    with pytest.raises(ConnectionLost, match="has ended; make a new one"):
        io_thread.attach(Member())


def test_members_get_the_error_that_ends_the_thread(io_thread, caplog):
    """An exception in a function ends the thread; each member gets it, and the log as well."""
    defect = ZeroDivisionError("a defect")

    def fail():
        raise defect

    io_thread.call(fail)
    wait_for(lambda: not io_thread._thread.is_alive())

    assert io_thread.member.error is defect
    assert "ended by an exception" in caplog.text


def test_discard_closes_a_thread_that_was_never_started():
    """No member can be attached after it; a second discard does nothing."""
    io_thread = IOThread("test")
    io_thread.discard()
    io_thread.discard()

    assert not io_thread.has_started
    with pytest.raises(ConnectionLost):
        io_thread.attach(Member())


def test_call_after_the_end_is_dropped():
    """A function for a thread that has ended is not run, and raises nothing."""
    io_thread, member, calls = IOThread("test"), Member(), []
    io_thread.attach(member)
    io_thread.call(lambda: io_thread.detach(member))
    wait_for(lambda: not io_thread._thread.is_alive())

    io_thread.call(lambda: calls.append(1))
    assert calls == []

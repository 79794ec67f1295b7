"""A waiter that Ctrl-C can interrupt safely, and work that an interrupt does not cut short."""

from __future__ import annotations

import signal
import threading

import pytest
from support.interrupts import interrupted

from mousetrap.runtime.interrupt import Waiter, run_uninterrupted

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="an interrupt is sent to the main thread"
)


@pytest.fixture
def gate():
    """An event that some work waits for; it is set at the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_waiter_ends_its_wait_when_notified_or_timed_out():
    """A wait ends with the notification after which its condition is true, or with its timeout."""
    waiter, state = Waiter(), []

    def change():
        state.append(1)
        waiter.notify_all()

    threading.Timer(0.05, change).start()

    assert waiter.wait_for(lambda: bool(state), 5) is True
    assert waiter.wait_for(lambda: len(state) == 2, 0.05) is False
    assert waiter._sleepers == []


def test_waiter_works_after_an_interrupted_wait():
    """The next wait works, and `notify_all` does not block."""
    waiter = Waiter()
    with interrupted():
        waiter.wait_for(lambda: False)

    waiter.notify_all()
    assert waiter._sleepers == []
    assert waiter.wait_for(lambda: True) is True


def test_run_uninterrupted_returns_and_raises_as_its_work_does():
    """Without an interrupt it is a call like any other."""
    done = []
    run_uninterrupted(lambda: done.append(1))

    with pytest.raises(ZeroDivisionError):
        run_uninterrupted(lambda: 1 / 0)
    assert done == [1]


def test_run_uninterrupted_does_its_work_after_a_second_interrupt(monkeypatch):
    """The interrupt arrives just before the thread for the work starts; the work is still done."""
    done, start = threading.Event(), threading.Thread.start

    def interrupt_first(thread):
        signal.raise_signal(signal.SIGINT)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupt_first)
    with pytest.raises(KeyboardInterrupt):
        run_uninterrupted(done.set)
    assert done.wait(5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_run_uninterrupted_goes_on_when_its_caller_is_interrupted(gate):
    """The wait ends and the work does not; an interrupted caller waits half a second at most."""
    done = threading.Event()

    def work():
        gate.wait(10)
        done.set()

    with interrupted():
        run_uninterrupted(work)
    with interrupted():
        try:
            threading.Event().wait(10)
        finally:
            run_uninterrupted(work)
    assert not done.is_set()
    gate.set()
    assert done.wait(5)

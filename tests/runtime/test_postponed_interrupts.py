"""Ctrl-C and SIGTERM wait until no step is half done."""

import os
import signal
import threading

import pytest

from mousetrap.runtime.postponed_interrupts import postponed


def test_other_threads_may_allow_signals():
    """Signals never interrupt them, and they cannot change a handler."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with postponed() as interrupts, interrupts.allowed():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)

    assert not errors


def test_an_interrupt_waits_for_the_end_of_the_block():
    """What the block does is done to its end, and the signal is not lost."""
    steps = []

    def interrupt_and_go_on() -> None:
        with postponed():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("after the signal")

    with pytest.raises(KeyboardInterrupt):
        interrupt_and_go_on()

    assert steps == ["after the signal"]


def test_an_interrupt_is_delivered_where_signals_are_allowed():
    """The handler of the signal is the one from before."""
    before = signal.getsignal(signal.SIGINT)

    def interrupt_and_allow() -> None:
        with postponed() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            with interrupts.allowed():
                pytest.fail("the signal was not delivered")

    with pytest.raises(KeyboardInterrupt):
        interrupt_and_allow()

    assert signal.getsignal(signal.SIGINT) is before

"""The time of the embedded broker, with a time source and a loop that the tests control."""

from __future__ import annotations

import pytest

from mousetrap.embedded_broker.clock import Clock


class ManualLoop:
    """The part of an asyncio loop that the clock uses; `due` holds the pending timer."""

    def __init__(self):
        self.due = None

    def call_later(self, delay, action):
        self.due = (delay, action)
        return self

    def cancel(self):
        self.due = None


@pytest.fixture
def loop():
    return ManualLoop()


@pytest.fixture
def clock(loop):
    return Clock(loop, monotonic=lambda: 100.0, wall=lambda: 1_000.0)


def test_advance_moves_both_times(clock):
    """The monotonic and the wall time move by the same number of seconds."""
    clock.advance(5)

    assert (clock.now(), clock.wall()) == (105.0, 1_005.0)


def test_alarms_run_in_order_each_at_its_own_time(clock):
    """An alarm sees the time for which it was set, and may set another one."""
    seen = []
    clock.at(103, lambda: seen.append(("second", clock.now())))

    def first():
        seen.append(("first", clock.now()))
        clock.at(clock.now() + 3, lambda: seen.append(("third", clock.now())))

    clock.at(101, first)
    clock.advance(10)

    assert seen == [("first", 101.0), ("second", 103.0), ("third", 104.0)]
    assert clock.now() == 110.0


def test_a_cancelled_alarm_does_not_run(clock, loop):
    """No timer of the loop stays when the last alarm is cancelled and the next one ran."""
    seen = []
    clock.at(101, lambda: seen.append("cancelled")).cancel()
    clock.at(102, lambda: seen.append("kept"))
    clock.advance(5)

    assert seen == ["kept"]
    assert loop.due is None


def test_the_loop_has_one_timer_for_the_next_alarm(clock, loop):
    """The delay is that of the earliest alarm."""
    clock.at(107, lambda: None)
    clock.at(103, lambda: None)

    assert loop.due[0] == 3.0

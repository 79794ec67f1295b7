"""The record of one injected fault."""

from __future__ import annotations

import pytest

from mousetrap.errors import FaultError
from mousetrap.fault_injection.fault import Fault, table


def test_fault_is_healed_when_as_many_are_opened_as_were_lost():
    """Consumers that were opened before the fault do not count."""
    fault = Fault("cut", "2 connections, 2 consumers")
    assert fault.state == "pending"

    fault.mark_triggered(2, {"consumers": 5})
    fault.update({"consumers": 6})
    assert fault.state == "triggered"
    fault.update({"consumers": 7})

    assert fault.state.startswith("healed in ")
    assert fault.seconds >= 0


def test_fault_that_takes_nothing_is_healed_at_once():
    """A duplicated message takes away no consumer and no connection."""
    fault = Fault("duplicate", "message 1 from now")
    fault.mark_triggered(0, {})

    assert fault.wait(0) is fault
    assert fault.healed == fault.triggered


def test_fault_counts_connections_where_there_is_no_consumer():
    """A publisher has a connection only: its fault is healed by the next connection."""
    fault = Fault("lose_confirm", "confirm 1 from now")
    fault.mark_triggered(1, {"consumers": 3, "connections": 2}, unit="connections")
    fault.update({"consumers": 9, "connections": 2})
    assert fault.healed is None

    fault.update({"consumers": 9, "connections": 3})

    assert fault.healed is not None


def test_fault_that_was_not_triggered_says_why():
    """The reason is in the error, in the state and in the table; a triggered fault keeps none."""
    missed, triggered = Fault("cut", "0 connections"), Fault("cut", "1 connection")
    triggered.mark_triggered(0, {})
    for fault in (missed, triggered):
        fault.mark_not_triggered("there was no connection")

    with pytest.raises(FaultError, match="cut was not triggered: there was no connection"):
        missed.wait(0)
    assert (missed.seconds, triggered.not_triggered) == (None, "")
    rows = [row["triggered"] for row in table([missed, triggered], 0.0, "")]
    assert rows == ["not triggered: there was no connection", "yes"]


def test_table_of_faults_is_in_the_order_of_time_and_has_units_and_totals():
    """The title says how many were triggered and healed, and how long the longest took."""
    faults = [Fault("cut", "2 connections", requested=at) for at in (30.0, 10.0, 20.0)]
    for fault, seconds in zip(faults, (0.16, 2.5, None), strict=True):
        fault.triggered = fault.requested
        fault.healed = None if seconds is None else fault.requested + seconds

    lines = repr(table(faults, 5.0, " with seed 7")).splitlines()

    assert lines[0] == "3 faults with seed 7: 3 triggered, 2 healed, longest 2.5 s"
    assert lines[1].split("  ")[-1] == "healed after"
    assert "at, s" in lines[1]
    assert [line.split()[3] for line in lines[2:]] == ["5", "15", "25"]
    assert [line.split()[-1] for line in lines[2:]] == ["s", "–", "ms"]
    assert repr(table(faults[:2], 0.0, "")).startswith("2 faults: all healed, longest 2.5 s\n")
    assert repr(table([], 0.0, " with seed 7")).startswith("0 faults with seed 7\n")

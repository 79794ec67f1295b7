"""The messages that a process held: recalled once, limited in number, not inherited by a fork."""

from __future__ import annotations

import os
import signal

import pytest

from mousetrap.amqp import redeliveries
from mousetrap.amqp.redeliveries import Held


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch):
    monkeypatch.setattr(redeliveries, "_held", {})


def test_each_is_recalled_once_in_its_queue():
    redeliveries.remember("here", [Held("a", 0), Held("b", 0, has_ack_timed_out=True)])

    assert redeliveries.recall("there", "a") is None
    assert (redeliveries.recall("here", "a"), redeliveries.recall("here", "b")) == (False, True)
    assert redeliveries.recall("here", "a") is None


def test_one_that_was_handed_over_is_not_recalled():
    """The process that has it now may have crashed; only that one gets the same answer again."""
    redeliveries.remember("q", [Held("a", 1), Held("b", 1)])

    assert [each.id for each in redeliveries.hand_over("q", [("a", 1), ("b", 2)], "first")] == ["a"]
    assert redeliveries.hand_over("q", [("a", 1)], "second") == []
    assert [each.id for each in redeliveries.hand_over("q", [("a", 1)], "first")] == ["a"]
    assert (redeliveries.recall("q", "a"), redeliveries.recall("q", "b")) == (None, False)

    redeliveries.remember("q", [Held("a", 1)])  # it was here again since then
    assert redeliveries.recall("q", "a") is False


def test_the_oldest_are_forgotten(monkeypatch):
    """But never one of the latest `remember`, however many those are."""
    monkeypatch.setattr(redeliveries, "MAX_REMEMBERED_IDS", 3)
    redeliveries.remember("q", [Held("a", 0), Held("b", 0)])
    redeliveries.remember("q", [Held("a", 0), Held("c", 0), Held("d", 0)])  # a is new again

    assert [redeliveries.recall("q", id) for id in "abcd"] == [False, None, False, False]
    redeliveries.remember("q", [Held(id, 0) for id in "efghi"])
    assert all(redeliveries.recall("q", id) is False for id in "efghi")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_remembers_nothing():
    """A message that its parent survived may crash it; a lock of the parent does not block it."""
    redeliveries.remember("q", [Held("a", 0)])
    with redeliveries._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # if it waits for that lock
            os._exit(0 if redeliveries.recall("q", "a") is None else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert redeliveries.recall("q", "a") is False

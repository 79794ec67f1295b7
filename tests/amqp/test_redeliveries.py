"""The messages that a process held: recalled once, limited in number, not inherited by a fork."""

from __future__ import annotations

import os
import signal

import pytest

from mousetrap.amqp import redeliveries


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch):
    monkeypatch.setattr(redeliveries, "_held", {})


def test_each_is_recalled_once_in_its_queue():
    redeliveries.remember("here", [("a", False), ("b", True)])

    assert redeliveries.recall("there", "a") is None
    assert (redeliveries.recall("here", "a"), redeliveries.recall("here", "b")) == (False, True)
    assert redeliveries.recall("here", "a") is None


def test_the_oldest_are_forgotten(monkeypatch):
    """But never one of the latest `remember`, however many those are."""
    monkeypatch.setattr(redeliveries, "MAX_REMEMBERED_IDS", 3)
    redeliveries.remember("q", [("a", False), ("b", False)])
    redeliveries.remember("q", [("a", False), ("c", False), ("d", False)])  # a is new again

    assert [redeliveries.recall("q", id) for id in "abcd"] == [False, None, False, False]
    redeliveries.remember("q", [(id, False) for id in "efghi"])
    assert all(redeliveries.recall("q", id) is False for id in "efghi")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_remembers_nothing():
    """A message that its parent survived may crash it; a lock of the parent does not block it."""
    redeliveries.remember("q", [("a", False)])
    with redeliveries._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # if it waits for that lock
            os._exit(0 if redeliveries.recall("q", "a") is None else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert redeliveries.recall("q", "a") is False

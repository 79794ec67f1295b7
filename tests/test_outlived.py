"""What a process outlived, it remembers once, within bounds, and not for its children."""

from __future__ import annotations

import os
import signal

import pytest

from mousetrap import outlived


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch):
    monkeypatch.setattr(outlived, "_had", {})


def test_each_is_recalled_once_in_its_queue():
    outlived.remember("here", [("a", False), ("b", True)])

    assert outlived.recall("there", "a") is None
    assert (outlived.recall("here", "a"), outlived.recall("here", "b")) == (False, True)
    assert outlived.recall("here", "a") is None


def test_the_oldest_are_forgotten(monkeypatch):
    """But never one of the latest note, however many those are."""
    monkeypatch.setattr(outlived, "REMEMBERED", 3)
    outlived.remember("q", [("a", False), ("b", False)])
    outlived.remember("q", [("a", False), ("c", False), ("d", False)])  # a is new again

    assert [outlived.recall("q", id) for id in "abcd"] == [False, None, False, False]
    outlived.remember("q", [(id, False) for id in "efghi"])
    assert all(outlived.recall("q", id) is False for id in "efghi")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_outlived_nothing():
    """What its parent outlived may kill it; and a lock held in another thread is not its own."""
    outlived.remember("q", [("a", False)])
    with outlived._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # if it waits for that lock
            os._exit(0 if outlived.recall("q", "a") is None else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert outlived.recall("q", "a") is False

"""What `work` prints: a line every ten seconds, and one dead letter of each kind of error."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from mousetrap.cli.work_report import SUMMARY_INTERVAL, DeadLetterKinds, WorkSummary
from mousetrap.runtime import clock
from mousetrap.worker.attempt import FAILED_LINE


@dataclass
class Seen:
    """The figures of a worker that the lines have."""

    done: int = 0
    retried: int = 0
    dead: int = 0
    problem: str = ""


def failure(kind, level=logging.WARNING):
    return logging.LogRecord("w", level, "", 0, FAILED_LINE, ("q", "id", 1, kind, "q.dead"), None)


@pytest.fixture
def lines(monkeypatch):
    """Return the lines that are printed while time and figures pass as given."""
    now = 100.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    monkeypatch.setattr(clock, "local_time", lambda: "12:00:00")

    def run(*steps, kinds=None):
        nonlocal now
        seen, printed = Seen(), []
        kinds = DeadLetterKinds(has_all=False) if kinds is None else kinds
        summary = WorkSummary("fetch", lambda: seen, kinds, printed.append)
        for seconds, figures in steps:
            now += seconds
            seen = Seen(**figures)
            summary.poll()
        return printed

    return run


def test_summary_is_printed_every_ten_seconds(lines):
    """It has the counts so far and the rate since the line before."""
    assert lines(
        (SUMMARY_INTERVAL - 0.1, {"done": 5}),
        (0.1, {"done": 1_000, "retried": 2}),
        (5.0, {"done": 1_200, "retried": 2}),
        (5.0, {"done": 1_400, "retried": 2, "dead": 1}),
    ) == [
        "12:00:00 fetch: 1,000 done, 2 retried, 0 dead; 100 per s",
        "12:00:00 fetch: 1,400 done, 2 retried, 1 dead; 40 per s",
    ]


def test_idle_worker_prints_nothing(lines):
    """Neither at its start nor later; a problem is news, once."""
    step, blocked = SUMMARY_INTERVAL, {"done": 10, "problem": "blocked\n"}

    assert lines((step, {}), (step, {"done": 10}), (step, {"done": 10}), (step, blocked),
                 (step, blocked)) == [
        "12:00:00 fetch: 10 done, 0 retried, 0 dead; 1 per s",
        "12:00:00 fetch: 10 done, 0 retried, 0 dead; 0 per s; blocked ⏎ ",
    ]  # fmt: skip


def test_dead_letters_are_logged_once_for_each_kind(lines):
    """The line every ten seconds counts them; retries and other lines are not affected."""
    kinds = DeadLetterKinds(has_all=False)
    other = logging.LogRecord("w", logging.WARNING, "", 0, "connected again", (), None)
    records = [failure("ValueError"), failure("ValueError"), failure("KeyError"),
               failure("ValueError", logging.INFO), other]  # fmt: skip

    assert [kinds.filter(each) for each in records] == [True, False, True, True, True]
    assert lines((SUMMARY_INTERVAL, {"dead": 3}), kinds=kinds) == [
        "12:00:00 fetch: 0 done, 0 retried, 3 dead (2 ValueError, 1 KeyError); 0 per s"
    ]


def test_all_dead_letters_are_logged_on_demand():
    """As with `--log-level info`; many kinds are cut."""
    kinds = DeadLetterKinds(has_all=True)

    assert all(kinds.filter(failure(f"Error{n % 5}")) for n in range(20))
    assert str(kinds) == "4 Error0, 4 Error1, 4 Error2, …"

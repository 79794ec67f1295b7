"""The ledger as tables: what happened to each message, and where each open one waits."""

from __future__ import annotations

import pytest

from mousetrap.display.table import Table
from mousetrap.errors import SettingsError
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_tables import (
    MAX_GROUPS,
    first_dead,
    last_failure,
    messages,
    open_groups,
    open_messages,
)
from mousetrap.model.outcome import Outcome, Output

READS = {"work": "first", "more": "second"}
OPEN_COLUMNS = ("message", "job", "stopped in", "attempt", "for s", "last failure")
START = 1_000_000.0  # seconds since 1970


def outcome(id, kind="done", *, at=START, **more):
    """Return the outcome of an attempt at *id* in stage ``first`` that took 10 ms."""
    facts = {"stage": "first", "queue": "work", "worker": "here:1", "begun": at, "seconds": 0.01}
    return Outcome(id=id, kind=kind, **facts | more)


@pytest.fixture
def ledger():
    """A ledger of jobs a, b, c and d: done with a result, retried, dead, and not delivered yet."""
    ledger = Ledger(READS)
    for job in "abcd":
        ledger.sent(job, "work", START)
    for each in (
        outcome("a", at=START + 1, outputs=(Output("a/0", "more"),)),
        outcome("a/0", stage="second", queue="more", job="a", parent="a", at=START + 2,
                outputs=(Output("a/0/0", "out"),)),
        outcome("b", "retried", at=START + 3, reason="ValueError: no luck", delay=5.0),
        outcome("c", "dead", at=START + 4, attempt=2, reason="ValueError: never"),
    ):  # fmt: skip
        ledger.add([each], each.ended)
    return ledger


def test_messages_has_a_row_for_each_message(ledger):
    """Path, times from the first message on, attempts, outcome and reason."""
    rows = {row["message"]: row for row in messages(ledger, READS, "a run")}

    assert set(rows) == {"a", "a/0", "a/0/0", "b", "c", "d"}
    assert {id: row["outcome"] for id, row in rows.items()} == {
        "a": "done", "a/0": "done", "a/0/0": "result", "b": "retried", "c": "dead", "d": "open",
    }  # fmt: skip
    assert rows["a/0/0"]["stage"] == "first → second → out"
    assert (rows["a/0"]["job"], rows["a/0"]["sent"]) == ("a", pytest.approx(1.01))
    assert rows["a"]["wait"] == pytest.approx(1.0)
    assert rows["a"]["handling"] == pytest.approx(0.01)
    assert (rows["c"]["attempts"], rows["c"]["reason"]) == (2, "ValueError: never")
    assert (rows["d"]["stage"], rows["d"]["wait"]) == ("work", None)


ROWS = {
    "attention": ["c", "d", "b", "a", "a/0", "a/0/0"],
    "slowest": ["c", "b", "a", "a/0", "d", "a/0/0"],
    "sent": ["a", "b", "c", "d", "a/0", "a/0/0"],
}


@pytest.mark.parametrize("order", ROWS)
def test_messages_are_in_order(ledger, order):
    """Dead and open ones first, or the slowest, or as they were sent."""
    table = messages(ledger, READS, "a run", order=order)

    assert [row["message"] for row in table] == ROWS[order]


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({"outcome": "dead"}, {"c"}), ({"outcome": "result"}, {"a/0/0"}),
        ({"stage": "second"}, {"a/0"}), ({"stage": "first", "outcome": "done"}, {"a"}),
        ({"stage": "second", "outcome": "dead"}, set()),
    ],
)  # fmt: skip
def test_messages_can_be_chosen(ledger, chosen, ids):
    """By their outcome, by the stage that reads their queue, or both; the title says so."""
    table = messages(ledger, READS, "a run", **chosen)

    assert {row["message"] for row in table} == ids
    assert all(word in table.title for word in chosen.values())


@pytest.mark.parametrize(
    "chosen", [{"outcome": "failed"}, {"stage": "third"}, {"order": "name"}, {"order": None}]
)
def test_what_cannot_be_chosen_is_refused(ledger, chosen):
    """The text says what there is."""
    with pytest.raises(SettingsError, match=r"use one of \w+, \w+"):
        messages(ledger, READS, "a run", **chosen)


def test_messages_says_how_many_there_are_and_how_to_see_more():
    """The title has totals, the last line the shown rows and what shows others."""
    ledger = Ledger(READS)
    for n in range(707):
        ledger.sent(f"{n:03}", "work", START + n)
    ledger.add([outcome("007", "dead", seconds=1.47, attempt=3)], START + 5)

    first, second = (repr(messages(ledger, READS, "it", page=page)).splitlines() for page in (1, 2))

    assert first[0] == "707 messages of 707 jobs in it: 1 dead, 706 open, 2 retries, slowest 1.47 s"
    assert first[2].startswith("007")
    assert "  1.47 s  " in first[2]
    assert first[-1] == (
        "687 more: run.messages(page=2) · run.messages(order='slowest') · "
        "run.messages().to_pandas()"
    )
    assert second[-1].startswith("rows 21 to 40 of 707; more: run.messages(page=3) · ")
    assert len(messages(ledger, READS, "it", page=2)) == 707
    last = repr(messages(ledger, READS, "it", page=99))
    assert "rows 701 to 707 of 707; more: run.messages(page=1) · " in last
    some = repr(messages(ledger, READS, "it", outcome="open", order="slowest", call="r.messages"))
    assert some.endswith(
        "686 more: r.messages(outcome='open', order='slowest', page=2) · "
        "r.messages(outcome='open', order='slowest').to_pandas()"
    )


def test_the_job_of_a_message_is_shown_where_it_is_another():
    """Not where each message that is shown is a job; a program always finds it."""
    ledger = Ledger(READS)
    ledger.sent("a", "work", START)
    ledger.add([outcome("a")], START + 5)
    before = messages(ledger, READS, "it")
    ledger.add([outcome("b", job="a")], START + 6)
    after = messages(ledger, READS, "it")

    heads = [repr(table).splitlines()[1].split() for table in (before, after)]
    assert ["job" in each for each in heads] == [False, True]
    assert [row["job"] for table in (before, after) for row in table] == ["a", "a", "a"]


def test_own_sends_are_counted_once(ledger):
    """A message that a handler sent itself counts once, however often it was handled."""
    for at in (1, 2):
        output = Output("x", "out", is_own=True)
        ledger.add([outcome("d", at=START + at, outputs=(output, Output("y", "out")))], START + 9)

    assert ledger.summary().own_sends == 1


def test_messages_has_what_was_printed(ledger):
    """Only if a handler printed anything is there a column for it."""
    plain = messages(ledger, READS, "a run")
    table = messages(ledger, READS, "a run", {"a": "fetched 10 places"})

    assert "printed" not in plain.columns
    assert [row["printed"] for row in table if row["message"] == "a"] == ["fetched 10 places"]


def test_open_messages_says_where_each_waits(ledger):
    """One message waits for its retry, another was never delivered."""
    rows = {row["message"]: row for row in open_messages(ledger, START + 10)}

    assert set(rows) == {"b", "d"}
    assert rows["b"]["stopped in"] == "work, after 5 s"
    assert (rows["b"]["attempt"], rows["b"]["last failure"]) == (2, "ValueError: no luck")
    assert (rows["d"]["stopped in"], rows["d"]["attempt"], rows["d"]["for s"]) == ("work", 1, 10.0)


def test_open_messages_says_of_how_many_jobs_they_are():
    """Messages are counted, and the jobs that they belong to."""
    found = Ledger(READS)
    found.sent("job", "work", START)
    split = (Output("part 1", "work"), Output("part 2", "work"))
    found.add([outcome("job", outputs=split)], START + 1)

    assert open_messages(found, START).title == "no final outcome of 2 messages of 1 job"


def test_open_groups_has_a_line_for_each_place(ledger):
    """Equal rows are one line; the place with most messages comes first."""
    for n in range(11):
        ledger.sent(f"more {n}", "work", START + n / 10)

    assert open_groups(open_messages(ledger, START + 10)) == [
        "12 in work, 9 s to 10 s",
        "1 in work, after 5 s, due 2 s ago, attempt 2; last failure: ValueError: no luck",
    ]


@pytest.mark.parametrize(
    ("waited", "line"),
    [
        ([2.0, 2.1], "2 in work, 2 s each"),
        ([2.0], "1 in work, 2 s"),
        ([None, 0.1], "2 in work"),
        ([0.2, 7000.0], "2 in work, 0 s to 1.9 h"),
    ],
)
def test_open_groups_says_for_how_long(waited, line):
    """One time if all are alike, nothing if nothing is known or they have just come."""
    rows = [(str(n), "job", "work", 1, seconds, None) for n, seconds in enumerate(waited)]

    assert open_groups(Table(OPEN_COLUMNS, rows)) == [line]


def test_open_groups_names_one_failure_and_counts_the_others():
    """The most frequent one, on one line; other texts are counted."""
    reasons = ["ValueError: no\nluck", "ValueError: no\nluck", "OSError: at 1", "OSError: at 2"]
    rows = [(str(n), "job", "work", 2, 0.0, reason) for n, reason in enumerate(reasons)]

    [line] = open_groups(Table(OPEN_COLUMNS, rows))

    assert line == ("4 in work, attempt 2; last failure: ValueError: no ⏎ luck (2 more texts)")


def test_open_groups_are_few():
    """A flow of many stages, each stuck, is no page of lines."""
    rows = [(str(n), "job", f"queue{n}", 1, 2.0, None) for n in range(30)]

    lines = open_groups(Table(OPEN_COLUMNS, rows))

    assert len(lines) == MAX_GROUPS + 1
    assert lines[-1] == "and 20 more places"


def test_last_failure_is_of_an_open_message(ledger):
    """A dead message is not open any more; a run without failures has no last one."""
    assert last_failure(ledger).id == "b"
    assert last_failure(Ledger(READS)) is None


def test_first_dead_is_the_earliest(ledger):
    """It is the dead message whose handler ended first."""
    ledger.add([outcome("d", "dead", at=START + 3.5, reason="ValueError: earlier")], START + 5)

    assert first_dead(ledger).id == "d"


@pytest.mark.parametrize("parents", [{"a": "a"}, {"a": "b", "b": "a"}])
def test_a_message_that_claims_to_be_its_own_ancestor_has_a_path(parents):
    """Any client can set that header; the path ends where it would begin again."""
    ledger = Ledger(READS)
    for id, parent in parents.items():
        ledger.add([Outcome(id, "done", "first", "work", "here:1", START, 0.1, parent=parent)], 1.0)

    assert len(messages(ledger, READS, "it")) == len(parents)

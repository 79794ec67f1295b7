"""What a summary shows, and what it stores in a notebook for programs."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.model.summary import SUMMARY_TYPE, RunSummary, StageSummary, percentiles

SUMMARY = RunSummary(
    sent=3, confirmed=3, done=2, retried=1, dead=1, lost=0, duplicates=0, seconds=1.5,
    latency={"p50": 0.5}, reasons={"ValueError: <b>no</b> luck": 1},
    stages={"fetch": StageSummary(2, 1, 1, {"p50": 0.002, "p99": 0.5}, {"p50": 0.00001})},
)  # fmt: skip


def test_summary_shows_its_figures_and_stores_them_as_data():
    """Text for the terminal, a table for the notebook, JSON for programs that read the notebook."""
    bundle = SUMMARY._repr_mimebundle_()

    assert bundle["text/plain"] == str(SUMMARY)
    assert "own sends" not in bundle["text/plain"]
    assert (
        "<b>■ All 3 jobs accounted for in 1.5 s: 2 done (67 %), 1 dead, 0 lost</b>"
        in (bundle["text/html"])
    )
    assert ">2 ms</td>" in bundle["text/html"]
    assert json.loads(json.dumps(bundle[SUMMARY_TYPE])) == SUMMARY.as_dict()


def test_summary_begins_with_the_verdict_and_has_units():
    """Then counts, latency, the kinds of error, and the stages; the largest kind is the first."""
    regions = {f"KeyError: 'EU-{n}'": n for n in range(1, 4)}
    many = dataclasses.replace(SUMMARY, dead=8, reasons={"ValueError: x": 2} | regions)

    blocks = [block.splitlines() for block in str(many).split("\n\n")]

    assert blocks[0][0].startswith("■ All 3 jobs accounted for in 1.5 s: ")
    assert blocks[1][0].split()[:3] == ["sent", "confirmed", "done"]
    assert blocks[1][1].split()[:6] == ["3", "jobs", "3", "jobs", "2", "jobs"]
    assert blocks[1][1].split()[-3:] == ["1×", "0", "0"]
    assert blocks[2][1:] == ["half within", "     500 ms"]
    assert blocks[3][0] == "✕ 8 dead messages: 2 kinds of error"
    assert [line.split()[0] for line in blocks[3][2:]] == ["6", "2"]
    assert blocks[3][2].endswith("KeyError: … (EU-3 3, EU-2 2, EU-1 1)")
    assert blocks[4][-1].split() == [
        "fetch",
        "2",
        "1",
        "1",
        "2",
        "ms",
        "500",
        "ms",
        "10",
        "µs",
        "–",
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lost": 1, "confirmed": 1500, "done": 1496},
         "● 1 of 1,500 jobs without an outcome after 1.5 s: 1,496 done (99.7 %), 1 dead; "
         "a job without an outcome counts as lost"),
        ({"confirmed": 1, "done": 1, "dead": 0},
         "■ 1 job accounted for in 1.5 s: 1 done (100 %), 0 dead, 0 lost"),
        ({"sent": 0, "confirmed": 0, "done": 0, "dead": 0}, "■ No jobs were sent"),
        ({"confirmed": 0, "done": 0, "dead": 0}, "● 3 jobs sent, none confirmed yet"),
    ],
    ids=["open", "one", "none sent", "none confirmed"],
)  # fmt: skip
def test_verdict_says_whether_all_jobs_are_accounted_for(changes, says):
    """Open jobs are not called lost while the run may go on."""
    assert str(dataclasses.replace(SUMMARY, **changes)).splitlines()[0] == says


def test_summary_says_what_it_counts_where_dead_jobs_and_dead_messages_differ():
    """A job is dead once, however many of its messages are dead."""
    several = dataclasses.replace(SUMMARY, dead=34, reasons={"ValueError: a": 50, "KeyError": 1})

    assert "\n34 jobs dead by 51 dead messages, counted below\n" in str(several)
    assert "counted below" not in str(SUMMARY)


def test_summary_tells_jobs_and_messages_apart():
    """Messages are the jobs and all that came of them; own sends are shown if there are any."""
    lines = str(dataclasses.replace(SUMMARY, messages=1000, own_sends=1)).splitlines()

    assert lines[2].endswith("messages  own sends")
    assert lines[3].split()[-2:] == ["1,000", "1"]


def test_summary_escapes_markup():
    """A reason comes from an exception, which may quote a message."""
    html = SUMMARY._repr_mimebundle_()["text/html"]

    assert "<b>no" not in html
    assert "&lt;b&gt;no&lt;/b&gt;" in html


def test_summary_counts_have_no_times():
    """Two runs of the same jobs have the same counts."""
    counts = SUMMARY.counts()

    assert counts["stages"] == {"fetch": (2, 1, 1)}
    assert not {"seconds", "latency"} & counts.keys()


@given(st.lists(st.floats(0, 1e6), max_size=200))
def test_percentiles_are_ranked(values):
    """They are in ascending order, and each is (rounded) one of the values."""
    found = list(percentiles(values).values())

    assert found == sorted(found)
    assert len(found) == (4 if values else 0)
    assert all(any(abs(each - value) < 1e-5 for value in values) for each in found)

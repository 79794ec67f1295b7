"""What a summary shows, and what it stores in a notebook for programs."""

from __future__ import annotations

import dataclasses
import json

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

    assert "confirmed  3 jobs\n" in bundle["text/plain"]
    assert "retried  1 attempt\n" in bundle["text/plain"]
    assert "latency  p50: 500 ms\n" in bundle["text/plain"]
    assert "own sends" not in bundle["text/plain"]
    assert bundle["text/plain"] == str(SUMMARY)
    assert "<td style='text-align:left'>2 ms</td>" in bundle["text/html"]
    assert json.loads(json.dumps(bundle[SUMMARY_TYPE])) == SUMMARY.as_dict()


def test_summary_says_what_it_counts_where_dead_jobs_and_dead_messages_differ():
    """A job is dead once, however many of its messages are dead."""
    several = dataclasses.replace(SUMMARY, dead=34, reasons={"ValueError: a": 50, "KeyError": 1})

    assert "dead  34 jobs, by 51 dead messages, which the reasons count\n" in str(several)
    assert "dead  1 job\n" in str(SUMMARY)


def test_summary_tells_jobs_and_messages_apart():
    """Messages are the jobs and all that came of them; own sends are shown if there are any."""
    text = str(dataclasses.replace(SUMMARY, messages=1000, own_sends=1))

    assert "messages  1,000 messages\n" in text
    assert "own sends  1 message\n" in text


def test_summary_escapes_markup():
    """A reason comes from an exception, which may quote a message."""
    html = SUMMARY._repr_mimebundle_()["text/html"]

    assert "<b>" not in html
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

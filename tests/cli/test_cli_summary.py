"""The summary of a run as ``mousetrap check`` prints it."""

from __future__ import annotations

import json

import pytest

from mousetrap.cli.summary import print_summary
from mousetrap.model.summary import RunSummary, StageSummary

SUMMARY = RunSummary(
    sent=300, confirmed=300, done=290, retried=1, dead=10, lost=0, duplicates=0, seconds=1.5,
    latency={"p50": 0.5, "max": 2.0}, broker="RabbitMQ 4.3", messages=310,
    reasons={"KeyError: 'EU-0'": 7, "KeyError: 'EU-1'": 2, "ValueError: \x1b[2J": 1},
    stages={"fetch": StageSummary(290, 1, 10, {"p50": 0.002}, {"p50": 0.00001})},
)  # fmt: skip


def test_summary_of_a_run_has_verdict_units_and_kinds_of_error(capsys):
    """In the order of what a person asks; the file has its names sorted."""
    print_summary(json.loads(json.dumps(SUMMARY.as_dict(), sort_keys=True)))

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "■ All 300 jobs accounted for in 1.5 s: 290 done (97 %), 10 dead, 0 lost"
    assert lines[1:4] == ["sent 300 jobs", "confirmed 300 jobs", "done 290 jobs"]
    assert "latency half within 500 ms, longest 2 s" in lines
    assert "9 KeyError: … (EU-0 7, EU-1 2)" in lines
    assert "1 ValueError: \\x1b[2J" in lines
    assert "fetch 290 1 10 2 ms – 10 µs –" in lines


@pytest.mark.parametrize(
    "changes", [{"more": 1}, {"dead": "many"}, {"reasons": 3}, {"latency": None}]
)
def test_another_summary_is_printed_as_it_is(capsys, changes):
    """A notebook can display any summary."""
    print_summary(SUMMARY.as_dict() | changes)

    out = capsys.readouterr().out
    assert "accounted" not in out
    assert "sent" in out

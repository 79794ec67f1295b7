"""The summary of a run as ``mousetrap check`` and ``demo`` print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgspec
from rich.text import Text

from mousetrap.cli.console import out, print_pairs, print_table
from mousetrap.display.safe_text import safe
from mousetrap.model import summary_view
from mousetrap.model.error_kinds import MAX_KINDS, further, kinds_in_summary
from mousetrap.model.summary import RunSummary


def print_summary(values: Mapping[str, Any]) -> None:
    """Print *values*, the summary that a notebook displayed: a run's, or any other.

    That of a run begins with the verdict, its figures have units, and its reasons are counted by
    kind of error. Another one is printed as it is.
    """
    names = [each.name for each in fields(RunSummary)]
    known = {name: values[name] for name in names if name in values}
    pairs = known | dict(values)  # in the order of the fields; the file has the names sorted
    stages = pairs.pop("stages", None) or {}
    if not _is_of_a_run(values):
        print_pairs(pairs)
        return
    out().print(Text(safe(summary_view.verdict(values)), style="bold"))
    if slowest := summary_view.slowest_stage(values):
        out().print(Text(slowest))
    print_pairs(summary_view.facts(values))
    if kinds := kinds_in_summary(values["reasons"]):
        rows = ((kind.number, _line(str(kind), kind.most_frequent)) for kind in kinds[:MAX_KINDS])
        print_table(("messages", "reason"), rows, prose=["reason"])
    if rest := further(kinds, "message"):
        out().print(Text(rest))
    if stages:
        lines = (summary_view.stage_line(name, stage) for name, stage in stages.items())
        print_table(summary_view.STAGE_COLUMNS, lines)


def _is_of_a_run(values: Mapping[str, Any]) -> bool:
    if not values.keys() <= {each.name for each in fields(RunSummary)}:
        return False
    try:
        msgspec.convert(values, RunSummary)
    except msgspec.ValidationError:
        return False
    return {"messages", "own_sends", "stages", "broker"} <= values.keys()


def _line(kind: str, values: str) -> str:
    return f"{kind} ({values})" if values else kind

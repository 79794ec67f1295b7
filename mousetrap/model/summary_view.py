"""The summary of a run as people read it: a verdict, then counts, latency, reasons and stages.

Nothing here talks to a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mousetrap.display import design_tokens as tokens
from mousetrap.display.cells import Bar, Named
from mousetrap.display.formats import UNKNOWN, counted, duration, share
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.model.error_kinds import MAX_KINDS, error_kinds, further
from mousetrap.model.slowest_stage import seconds_measured, sentence

STAGE_COLUMNS = ("stage", "done", "retried", "dead", "wait, half within", "wait, 99 % within",
                 "handling, half within", "handling, 99 % within")  # fmt: skip
_JOBS = partial(counted, singular="job")
_COUNTS: dict[str, Callable[[int], str]] = {
    "sent": _JOBS, "confirmed": _JOBS, "done": _JOBS, "dead": _JOBS, "lost": _JOBS,
    "retried": "{:,}×".format, "duplicates": "{:,}".format, "messages": "{:,}".format,
}  # fmt: skip
PERCENTILES = {"p50": "half within", "p90": "90 % within", "p99": "99 % within", "max": "longest"}


def verdict(values: Mapping[str, Any]) -> str:
    """Return what became of the jobs: ``■ All 1,500 jobs accounted for in 12 s: 1,496 done, …``.

    *values* are those of a `RunSummary`, as `RunSummary.as_dict` returns them.
    """
    confirmed, done, dead, lost = (values[name] for name in ("confirmed", "done", "dead", "lost"))
    took, jobs = duration(values["seconds"]), counted(confirmed, "job")
    ends = f"{done:,} done ({share(done, confirmed)}), {dead:,} dead"
    if not values["sent"]:
        return f"{tokens.ENDED_SIGN} No jobs were sent"
    if not confirmed:
        return f"{tokens.RUNNING_SIGN} {counted(values['sent'], 'job')} sent, none confirmed yet"
    if lost:
        return (
            f"{tokens.RUNNING_SIGN} {lost:,} of {jobs} without an outcome after {took}: {ends}; "
            f"a job without an outcome counts as lost"
        )
    every = "All " if confirmed > 1 else ""
    return f"{tokens.ENDED_SIGN} {every}{jobs} accounted for in {took}: {ends}, 0 lost"


def slowest_stage(values: Mapping[str, Any]) -> str:
    """Return which stage is the slowest, in words; "" if there are no two to compare."""
    return sentence(seconds_measured(values["stages"]))


def tables(values: Mapping[str, Any]) -> list[Table]:
    """Return the counts, the latency, the kinds of error and the stages, those that there are."""
    reasons: Mapping[str, int] = values["reasons"]
    counts = {name: values[name] for name in _COUNTS}
    shows = dict(_COUNTS)
    if values["own_sends"]:
        counts["own sends"], shows["own sends"] = values["own_sends"], shows["messages"]
    found = [Table(tuple(counts), [tuple(counts.values())], note=_note(values), shows=shows)]
    if latency := {PERCENTILES.get(name, name): at for name, at in values["latency"].items()}:
        title = "Latency of done jobs, from sending one to its last outcome"
        times = dict.fromkeys(latency, duration)
        found.append(Table(tuple(latency), [tuple(latency.values())], title, shows=times))
    if reasons:
        found.append(reasons_table(reasons))
    if values["stages"]:
        rows = [stage_row(name, stage) for name, stage in values["stages"].items()]
        times = dict.fromkeys(STAGE_COLUMNS[4:], duration)
        found.append(Table(STAGE_COLUMNS, rows, "Attempts of each stage", shows=times))
    return found


def facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the counts and the latency by name, with units: ``{"sent": "1,500 jobs", …}``."""
    latency = [
        f"{PERCENTILES[name]} {duration(values['latency'][name])}"
        for name in PERCENTILES if name in values["latency"]
    ]  # fmt: skip
    found = {name: shown(values[name]) for name, shown in _COUNTS.items()}
    if values["own_sends"]:
        found["own sends"] = f"{values['own_sends']:,}"
    return found | {"latency": ", ".join(latency) or UNKNOWN, "broker": values["broker"]}


def reasons_table(reasons: Mapping[str, int]) -> Table:
    """Return a row for each kind of error of *reasons* (reason -> number): the largest first."""
    kinds = error_kinds(list(reasons), list(reasons.values()))
    named = {str(kind): Named(kind.error, kind.text, kind.most_frequent) for kind in kinds}
    total = sum(reasons.values())
    number = f"{counted(total, 'dead message')}: {counted(len(kinds), 'kind')} of error"
    return Table(
        ("messages", "share", "reason"),
        [(kind.number, kind.number, str(kind)) for kind in kinds[:MAX_KINDS]],
        f"{tokens.DEAD_SIGN} {number}",
        further(kinds, "message"),
        shows={"share": lambda part: Bar(part, total), "reason": named.__getitem__},
        wrapped="reason",
    )


def stage_row(name: str, stage: Mapping[str, Any]) -> Sequence[Any]:
    """Return the row of `STAGE_COLUMNS` for *stage*, a `StageSummary` as plain values."""
    times = [stage[what].get(p) for what in ("wait", "handling") for p in ("p50", "p99")]
    return [name, *(stage[outcome] for outcome in ("done", "retried", "dead")), *times]


def _note(values: Mapping[str, Any]) -> str:
    messages, dead = sum(values["reasons"].values()), values["dead"]
    notes = [values["broker"]]
    if messages != dead:
        jobs = counted(dead, "job")
        notes.append(f"{jobs} dead by {counted(messages, 'dead message')}, counted below")
    return "; ".join(filter(None, notes))


def stage_line(name: str, stage: Mapping[str, Any]) -> list[str]:
    """Return the same as text: ``["fetch", "1,234", …, "12 ms"]``."""
    first, *others = stage_row(name, stage)
    shown = [UNKNOWN if value is None else value for value in others]
    counts, times = shown[:3], shown[3:]
    return [safe(first), *(f"{each:,}" for each in counts),
            *(each if isinstance(each, str) else duration(each) for each in times)]  # fmt: skip

"""The summary of a run: figures that a notebook shows, and stores so that a program can read them.

Nothing here talks to a broker. Prototyped in ``notebooks/check_pipeline.ipynb``.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mousetrap.display.formats import duration
from mousetrap.display.safe_text import NO_FORMULAS, safe
from mousetrap.display.table import MAX_CELL_CHARS

SUMMARY_TYPE = "application/vnd.mousetrap.summary+json"
STAGE_COLUMNS = ("stage", "done", "retried", "dead", "wait p50", "wait p99", "handling p50",
                 "handling p99")  # fmt: skip


@dataclass(frozen=True)
class StageSummary:
    """The figures of one stage: attempts by outcome, and seconds by percentile.

    `wait` is how long messages waited for an attempt, retry delays not included; `handling` is how
    long the attempts took.
    """

    done: int
    retried: int
    dead: int
    wait: dict[str, float]
    handling: dict[str, float]


@dataclass(frozen=True)
class RunSummary:
    """What happened to the jobs of a run; a notebook shows it as a table and stores it as JSON.

    ``lost = confirmed − done − dead`` must be 0 once a run is settled. A job is dead if the job
    itself or any message that came from it is dead. `duplicates` counts the final outcomes beyond
    the first of each message, replays not included, and `retried` the attempts that failed and were
    retried. `seconds` is the time from sending the first job to the last outcome of the run.
    `latency` is the time from sending a done job to the last outcome of its messages, in seconds,
    by percentile. `reasons` counts the dead messages by reason. `broker` names the broker, and says
    so if it keeps messages in memory only. `messages` counts the jobs and all messages that came of
    them, `own_sends` those that handlers sent themselves, by `mousetrap.send`.
    """

    sent: int
    confirmed: int
    done: int
    retried: int
    dead: int
    lost: int
    duplicates: int
    seconds: float
    latency: dict[str, float]
    reasons: dict[str, int]
    stages: dict[str, StageSummary] = field(default_factory=dict)
    broker: str = ""
    messages: int = 0
    own_sends: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def counts(self) -> dict[str, Any]:
        """Return the figures to compare two runs of the same jobs by: no times, no broker."""
        names = ("sent", "confirmed", "done", "retried", "dead", "lost", "duplicates", "reasons")
        stages = {
            name: (stage.done, stage.retried, stage.dead) for name, stage in self.stages.items()
        }
        return {name: getattr(self, name) for name in names} | {"stages": stages}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        rows = self.as_dict()
        stages = rows.pop("stages")
        shown = {name: _with_unit(name, each) for name, each in rows.items() if each != ""}
        if not self.own_sends:
            del shown["own_sends"]
        else:
            shown["own sends"] = shown.pop("own_sends")
        if (messages := sum(self.reasons.values())) != self.dead:
            shown["dead"] += f", by {messages:,} dead messages, which the reasons count"
        text = "\n".join(f"{name:>10}  {value}" for name, value in shown.items())
        table = _table(list(shown.items()))
        if stages:
            lines = [stage_line(name, stage) for name, stage in stages.items()]
            text += "\n\n" + _aligned([STAGE_COLUMNS, *lines])
            table += _table(lines, STAGE_COLUMNS)
        return {
            "text/plain": text,
            "text/html": f"<div class='{NO_FORMULAS}'>{table}</div>",
            SUMMARY_TYPE: rows | {"stages": stages},
        }

    def __str__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and max by the nearest-rank method; empty for no values.

    Nearest rank: the smallest value with at least p per cent of all values at or below it (NIST
    Engineering Statistics Handbook, 7.2.6.2, describes this and its alternatives).
    """
    ranked = sorted(values)
    if not ranked:
        return {}
    ranks = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {
        name: round(ranked[max(0, -(-len(ranked) * p // 100) - 1)], 6) for name, p in ranks.items()
    }


def stage_line(name: str, stage: Mapping[str, Any]) -> list[str]:
    """Return the row of `STAGE_COLUMNS` for *stage*, a `StageSummary` as plain values."""
    times = [stage[what].get(p) for what in ("wait", "handling") for p in ("p50", "p99")]
    counts = [f"{stage[outcome]:,}" for outcome in ("done", "retried", "dead")]
    return [safe(name), *counts, *("–" if time is None else duration(time) for time in times)]


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    left = "style='text-align:left'"
    top = "".join(f"<th {left}>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th {left}>{html.escape(row[0])}</th>"
        + "".join(f"<td {left}>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# Of what a figure counts; a latency is in seconds.
_UNITS = {"sent": "job", "confirmed": "job", "done": "job", "dead": "job", "lost": "job",
          "retried": "attempt", "duplicates": "outcome", "messages": "message",
          "own_sends": "message"}  # fmt: skip


def _with_unit(name: str, value: Any) -> str:
    """Return a figure with what it counts: ``1,000 jobs``, ``1 attempt``, ``1.5 s``."""
    if name == "seconds" and isinstance(value, float):
        return duration(value)
    if name == "latency":
        return ", ".join(f"{key}: {duration(each)}" for key, each in value.items()) or "–"
    unit = _UNITS.get(name)
    plural = "" if value == 1 else "s"
    return f"{_formatted(value)} {unit}{plural}" if unit else _formatted(value)


def _formatted(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{safe(key, MAX_CELL_CHARS)}: {_formatted(each)}" for key, each in value.items()]
        return ", ".join(parts) or "–"
    if isinstance(value, str):
        return safe(value, MAX_CELL_CHARS)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

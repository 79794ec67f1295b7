"""The summary of a run: figures that a notebook shows, and stores so that a program can read them.

Nothing here talks to a broker. Prototyped in ``notebooks/check_pipeline.ipynb``.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mousetrap.display import next_calls
from mousetrap.display.safe_text import NO_FORMULAS
from mousetrap.model import summary_view

SUMMARY_TYPE = "application/vnd.mousetrap.summary+json"


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
    them, `own_sends` those that handlers sent themselves, by `mousetrap.send`. `next` has
    calls that help next, in the notebook that has the run.
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
    next: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values, ready for JSON; without `next`."""
        values = dataclasses.asdict(self)
        del values["next"]
        return values

    def counts(self) -> dict[str, Any]:
        """Return the figures to compare two runs of the same jobs by: no times, no broker."""
        names = ("sent", "confirmed", "done", "retried", "dead", "lost", "duplicates", "reasons")
        stages = {
            name: (stage.done, stage.retried, stage.dead) for name, stage in self.stages.items()
        }
        return {name: getattr(self, name) for name in names} | {"stages": stages}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        values = self.as_dict()
        first, tables = summary_view.verdict(values), summary_view.tables(values)
        slowest = summary_view.slowest_stage(values)
        head = [f"<b>{first}</b>", html.escape(slowest), next_calls.html_of(self.next)]
        shown = "".join(f"<div>{line}</div>" for line in head if line)
        shown += "".join(
            f"<div style='margin-top:10px'>{each._repr_html_()}</div>" for each in tables
        )
        lines = filter(None, [first, slowest, next_calls.text_of(self.next)])
        return {
            "text/plain": "\n\n".join(["\n".join(lines), *map(repr, tables)]),
            "text/html": f"<div class='{NO_FORMULAS}'>{shown}</div>",
            SUMMARY_TYPE: values,
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

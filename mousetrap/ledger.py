"""The record of what became of each job: told what happened, it says what is still open.

Pure bookkeeping, no broker. A job is *settled* when it is done or dead; a run is settled when all
of its jobs are. Prototyped in ``notebooks/check_pipeline.ipynb``.
"""

from __future__ import annotations

import dataclasses
import html
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mousetrap.message import Message

RECORD_TYPE = "application/vnd.mousetrap.record+json"


@dataclass(frozen=True)
class Record:
    """What became of the jobs of a run; shows itself as a table and leaves its data in a notebook.

    ``lost = confirmed − done − dead``: it must be 0. `duplicates` are results beyond the first of
    a job. `latency` is the time from sending a job to its result, in seconds, by percentile.
    `reasons` counts the dead by what killed them.
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

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        rows = self.as_dict()
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(_shown(value))}</td></tr>"
            for name, value in rows.items()
        )
        return {
            "text/plain": "\n".join(f"{name:>10}  {_shown(value)}" for name, value in rows.items()),
            "text/html": f"<table>{cells}</table>",
            RECORD_TYPE: rows,
        }


class Ledger:
    """Keeps, for each job, when it was sent, whether the broker confirmed it, and its fate.

    Facts may come in any order and more than once. Threads: any.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._started = time.monotonic()
        self._ended = self._started
        self._sent: dict[str, float] = {}  # job -> monotonic time
        self._confirmed: set[str] = set()
        self._done: dict[str, float] = {}
        self._dead: dict[str, str] = {}  # job -> reason
        self._retries: dict[str, int] = {}
        self._results = 0

    def sent(self, job: str) -> None:
        """Note that *job* was handed to the publisher just now."""
        with self._changed:
            self._sent.setdefault(job, time.monotonic())

    def confirmed(self, job: str) -> None:
        """Note that the broker has taken responsibility for *job*."""
        with self._changed:
            self._confirmed.add(job)
            self._changed.notify_all()

    def done(self, result: Message) -> None:
        """Note that *result* came out at the end of the flow."""
        with self._changed:
            self._results += 1
            self._done.setdefault(result.job, time.monotonic())
            self._note(result)

    def dead(self, letter: Message) -> None:
        """Note that *letter* ended in a dead queue."""
        with self._changed:
            self._dead.setdefault(letter.job, letter.reason or "no reason given")
            self._note(letter)

    def settle(self, timeout: float, *, look_after: Callable[[], object] = lambda: None) -> Record:
        """Wait until every confirmed job is done or dead, and return the record.

        *look_after* is called about once a second meanwhile; what it raises ends the wait. Give
        it ``WorkerProcesses.check``: a dead worker explains more than a time-out.

        Raises:
            TimeoutError: some are open after *timeout* seconds; names a few.
        """
        deadline = time.monotonic() + timeout
        while not self._wait(min(1.0, max(0.0, deadline - time.monotonic()))):
            look_after()
            if time.monotonic() >= deadline:
                open_jobs = self.open_jobs()
                some = ", ".join(job[:8] for job in open_jobs[:5])
                raise TimeoutError(
                    f"{len(open_jobs):,} of {len(self._confirmed):,} jobs have no fate after "
                    f"{timeout:g} s: {some}, ...; look where they wait: mousetrap queues"
                )
        return self.record()

    def open_jobs(self) -> list[str]:
        """The confirmed jobs that are neither done nor dead."""
        return [job for job in self._confirmed if job not in self._done and job not in self._dead]

    def latencies(self) -> list[float]:
        """Seconds from sending to result, for each job that is done, in the order of sending."""
        return [self._done[job] - sent for job, sent in self._sent.items() if job in self._done]

    def record(self) -> Record:
        """Sum up what is known now."""
        with self._changed:
            done = self._done.keys() & self._confirmed
            dead = (self._dead.keys() & self._confirmed) - done
            return Record(
                sent=len(self._sent),
                confirmed=len(self._confirmed),
                done=len(done),
                retried=sum(self._retries.values()),
                dead=len(dead),
                lost=len(self._confirmed) - len(done) - len(dead),
                duplicates=self._results - len(self._done),
                seconds=round(self._ended - self._started, 3),
                latency=percentiles(self.latencies()),
                reasons=dict(Counter(self._dead[job] for job in dead).most_common()),
            )

    def _wait(self, timeout: float) -> bool:
        """Wait until nothing is open; counting first, as looking at each job is quadratic."""
        with self._changed:
            return self._changed.wait_for(
                lambda: (
                    len(self._done) + len(self._dead) >= len(self._confirmed)
                    and not self.open_jobs()
                ),
                timeout,
            )

    def _note(self, message: Message) -> None:
        retries = max(message.retries, self._retries.get(message.job, 0))
        self._retries[message.job] = retries
        self._ended = time.monotonic()
        self._changed.notify_all()


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


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(each)}" for key, each in value.items()) or "–"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

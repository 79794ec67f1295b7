"""What a panel says of a `View`: the verdict, the totals, what is wrong, and the foot.

Plain text, for the HTML and for the terminal alike. Each fact is said once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from mousetrap.display import design_tokens as tokens
from mousetrap.display.formats import UNKNOWN, age, counted, duration, number, rate, share
from mousetrap.display.inline_pictures import scale_of
from mousetrap.display.safe_text import safe
from mousetrap.model import slowest_stage
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.stats_source import StageView, View
from mousetrap.runtime import clock

MAX_TEXT = 60  # characters of a name or a state
MAX_REMARKS = 10
WELL = ("", "new", "open", "replaced", "closed", "ended")  # states of which nothing is said
STOPPED_STATES = ("closed", "ended")  # states of which nothing is said when all has ended
RESULT = "result"  # the word for messages in the queues that no stage of a run reads
MIN_IN_WORK = 1.0  # seconds after which it is said how long a message is in work
PANEL_COLUMNS = (
    "stage", "waiting", "oldest", "in work", "per s", "done", "retried", "dead", "last minute",
)  # fmt: skip


class Verdict(NamedTuple):
    """The answer to what people ask first: a sign, a word, and the rest of the sentence."""

    sign: str
    word: str
    rest: str

    def __str__(self) -> str:
        return f"{self.sign} {self.word}{self.rest}"


def verdict(view: View) -> Verdict:
    """Return whether *view* is finished, since when it runs, how long it still takes, if known."""
    if view.lost:
        return Verdict(tokens.DEAD_SIGN, "Lost its queues", f": {_open_jobs(view)}")
    if view.state == "new":
        return Verdict("○", "Not started", "")
    if view.is_finished:
        return _end(view)
    troubled = [each for each in view.stages if is_troubled(each, view)]
    if troubled:
        view = dataclasses.replace(view, left=None)
    found = _of_run(view) if view.unit == "job" else _of_workers(view)
    if not troubled:
        return found
    others = f" and {counted(len(troubled) - 1, 'other stage')}" if len(troubled) > 1 else ""
    what = f"{safe(troubled[0].step.name, MAX_TEXT)} {_state(troubled[0])}"
    signs = [trouble_sign(each) for each in troubled]
    sign = tokens.DEAD_SIGN if tokens.DEAD_SIGN in signs else signs[0]
    return found._replace(sign=sign, rest=f"{found.rest}, but {what}{others}")


def is_troubled(stage: StageView, view: View) -> bool:
    """Return whether *stage* does not work, although *view* goes on."""
    is_stopped = view.unit == "job" and not view.is_finished and stage.state in STOPPED_STATES
    return stage.state not in WELL or is_stopped


def trouble_sign(stage: StageView) -> str:
    """Return the sign of a stage that does not work: it has ended, or it tries again."""
    return tokens.DEAD_SIGN if stage.state in ("failed", *STOPPED_STATES) else tokens.RETRIED_SIGN


def _end(view: View) -> Verdict:
    if view.state == "failed":
        names = [safe(each.step.name, MAX_TEXT) for each in view.stages if each.state == "failed"]
        return Verdict(tokens.DEAD_SIGN, "Failed", f": {', '.join(names[:3])}" if names else "")
    if view.unit != "job" or view.jobs is None:
        words = {"closed": "Stopped", "ended": "Ended with the kernel"}
        word = words.get(view.state, safe(view.state, MAX_TEXT).capitalize())
        return Verdict(tokens.ENDED_SIGN, word, "")
    if not view.jobs.total:
        return Verdict(tokens.ENDED_SIGN, "Ended", ": no job was sent")
    if view.jobs.under_way:
        word = "Stopped" if view.state == "closed" else "Ended with the kernel"
        return Verdict(tokens.ENDED_SIGN, word, f": {_open_jobs(view)}")
    took = f" in {duration(seconds)}" if (seconds := _seconds(view)) else ""
    return Verdict(tokens.ENDED_SIGN, "Settled", f": {_all_jobs(view)} accounted for{took}")


def _of_run(view: View) -> Verdict:
    jobs = view.jobs
    if jobs is None or not jobs.total:
        return Verdict(tokens.RUNNING_SIGN, "Ready", ": no job was sent so far")
    if not jobs.under_way:
        return Verdict(tokens.RUNNING_SIGN, "Open", f": {_all_jobs(view)} accounted for so far")
    spent = "" if view.started is None else f" for {age(clock.steady_time() - view.started)}"
    left = "" if view.left is None else f", about {age(view.left)} left"
    return Verdict(tokens.RUNNING_SIGN, "Running", spent + left)


def _of_workers(view: View) -> Verdict:
    is_busy = any(each.waiting or each.in_progress or each.waiting_retry for each in view.stages)
    if view.stages and all(each.waiting is None for each in view.stages):  # no queue is measured
        is_busy = is_busy or bool(view.jobs and view.jobs.under_way)
    word = "Working" if is_busy else "Waiting for messages"
    return Verdict(tokens.RUNNING_SIGN, word, "")


def _all_jobs(view: View) -> str:
    total = view.jobs.total if view.jobs else 0
    return f"all {counted(total, 'job')}" if total > 1 else "the only job"


def _open_jobs(view: View) -> str:
    jobs = view.jobs
    if jobs is None:
        return "its messages have no outcome"
    verb = "has" if jobs.under_way == 1 else "have"
    return f"{jobs.under_way:,} of {counted(jobs.total, view.unit)} {verb} no outcome"


def _seconds(view: View) -> float | None:
    """Return how long the run has worked; None if that is not known."""
    if view.started is None or view.ended is None:
        return None
    return round(max(0.0, view.ended - view.started), 3) or None  # as a summary has it


def totals(view: View) -> list[str]:
    """Return the parts of the line of totals; the first one is the most important."""
    jobs = view.jobs
    if jobs is None:
        done, dead = (sum(getattr(each, name) for each in view.stages) for name in ("done", "dead"))
        mean = view.stages[0].rate if view.is_finished and len(view.stages) == 1 else 0.0
        return [f"{counted(done, view.unit)} done", f"{dead:,} dead", *_mean(mean)]
    if not jobs.total:
        return [f"0 {view.unit}s"]
    share_done = f"{jobs.done:,} of {counted(jobs.total, view.unit)} done{_percent(view)}"
    killed = f"{jobs.dead:,} dead"
    if view.unit != "job":
        return [share_done, f"{jobs.under_way:,} waiting or in work", killed]
    lost = jobs.under_way if view.lost else 0
    if not view.is_finished or jobs.under_way:
        return [share_done, f"{jobs.under_way - lost:,} under way", killed, f"{lost:,} lost"]
    seconds = _seconds(view)
    mean = jobs.done / seconds if seconds else 0.0
    return [f"{jobs.done:,} done{_percent(view)}", killed, f"{lost:,} lost", *_mean(mean)]


def _mean(per_second: float) -> list[str]:
    return [f"mean {rate(per_second)}"] if per_second else []


def _percent(view: View) -> str:
    jobs = view.jobs
    return f" ({share(jobs.done, jobs.total)})" if jobs and jobs.total else ""


def slowest(view: View) -> str:
    """Return which stage is the slowest, in words; "" if that cannot be known."""
    return slowest_stage.sentence(view.spent)


def problems(view: View, rows: int) -> list[str]:
    """Return a line for each thing that is wrong."""
    lines = [view.lost] if view.lost else []
    for each in view.stages[:rows]:
        is_well = not is_troubled(each, view)
        if each.problem or not is_well:
            state = "" if is_well else f" {_state(each)}"
            problem = f": {each.problem}" if each.problem else ""
            lines.append(f"{each.step.name}{state}{problem}")
    return [safe(line, 300) for line in lines[:MAX_REMARKS]]


def _state(stage: StageView) -> str:
    if stage.state in ("failed", *STOPPED_STATES):
        return "has failed" if stage.state == "failed" else "has stopped"
    return f"is {safe(stage.state, MAX_TEXT)}"


def remarks(view: View, rows: int) -> list[str]:
    """Return what else is known, such as the version of a handler and its last failure."""
    more = len(view.stages) - rows
    lines = [safe(line, 300) for line in view.remarks[:MAX_REMARKS]]
    return lines + ([f"... and {counted(more, 'more stage')}"] if more > 0 else [])


def foot(view: View, at: AsOf) -> list[list[str]]:
    """Return the lines below the table as parts: what changes, what does not, what waits.

    The last one may be empty, and is not there once *view* is finished.
    """
    changes = _others(view)
    if any(each.history for each in view.stages):
        changes.append(f"bars to {rate(scale(view))}")
    if view.is_finished and view.ended and not at.end:
        changes.append(f"ended {clock.local_date_time(view.ended)}")
    else:
        changes.append(str(at))
    stays = [safe(view.title, MAX_TEXT), safe(view.broker, 120), *_prefetch(view.stages)]
    stays += [safe(each, MAX_TEXT) for each in view.reconnects[:3]]
    now = [*_retries(view.stages), *_in_work(view.stages)]
    return [changes, stays] if view.is_finished else [changes, stays, now]


def scale(view: View) -> float:
    """Return the rate, per second, that fills the height of the pictures of the last minute."""
    return scale_of([value for each in view.stages for value in each.history])


def _retries(stages: Sequence[StageView]) -> list[str]:
    waiting = [each for each in stages if each.waiting_retry]
    if not waiting:
        return []
    amount = sum(each.waiting_retry or 0 for each in waiting)
    where = f"{safe(waiting[0].step.name, MAX_TEXT)}: " if len(waiting) == 1 < len(stages) else ""
    due = min((each.next_retry for each in waiting if each.next_retry is not None), default=None)
    if due is None:
        first = ""
    else:
        first = f", the next in {age(due) if due >= 10 else f'{max(0.1, due):.1f} s'}"
    return [f"{where}{amount:,} {'waits' if amount == 1 else 'wait'} for a retry{first}"]


def _in_work(stages: Sequence[StageView]) -> list[str]:
    longest = max(stages, key=lambda each: each.in_work, default=None)
    if longest is None or longest.in_work < MIN_IN_WORK:
        return []
    where = f" ({safe(longest.step.name, MAX_TEXT)})" if len(stages) > 1 else ""
    return [f"longest in work {age(longest.in_work)}{where}"]


def _others(view: View) -> list[str]:
    """Return how many messages are in the queues that no stage reads."""
    known = [depth for depth in view.queues.values() if depth is not None]
    if not known:
        return []
    amount, label = sum(known), view.queue_label
    what = counted(amount, label) if label == RESULT else f"{amount:,} {safe(label, 20)}"
    where = safe(next(iter(view.queues)), MAX_TEXT)
    return [f"{what} in {where if len(view.queues) == 1 else f'{len(view.queues):,} queues'}"]


def _prefetch(stages: Sequence[StageView]) -> list[str]:
    known = sorted({each.prefetch for each in stages if each.prefetch})
    if not known:
        return []
    return [f"prefetch {known[0]:,}" + (f" to {known[-1]:,}" if len(known) > 1 else "")]


def cells(stage: StageView, *, is_finished: bool) -> tuple[str, ...]:
    """Return the cells of `PANEL_COLUMNS` for *stage*, without the first and the last."""

    def count(value: int | None) -> str:
        return UNKNOWN if value is None else f"{value:,}"

    return (
        count(stage.waiting),
        safe(stage.oldest, MAX_TEXT) or UNKNOWN,
        count(stage.in_progress),
        UNKNOWN if is_finished else number(stage.rate),
        count(stage.done),
        count(stage.retried),
        count(stage.dead),
    )

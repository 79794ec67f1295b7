"""Finds dead letters: those of a queue, or of a run, also after its end."""

from __future__ import annotations

from typing import Any

from mousetrap.display.formats import counted, share
from mousetrap.errors import QueueMissing
from mousetrap.flows.dead_letters import dead_letters
from mousetrap.flows.stage import Stage, queue_of
from mousetrap.job_queue import ANSWERS_TIMEOUT, depth
from mousetrap.model.headers import DEAD_SINCE, ORIGIN, REASON, TRACEBACK
from mousetrap.model.ledger_entry import LedgerEntry
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.runs.dead_letter_list import DeadLetterList
from mousetrap.runs.run import Run
from mousetrap.runtime import clock
from mousetrap.settings import Settings

MAX_LISTED = 100  # dead letters, unless the caller asks for more


def dead(
    source: Queue | Stage[..., Any] | str | Run,
    n: int = MAX_LISTED,
    settings: Settings | None = None,
    *,
    timeout: float = ANSWERS_TIMEOUT,
) -> DeadLetterList:
    """Return up to *n* dead letters: of a queue, of the queue that a stage reads, or of a run.

    Dead letters of a queue are read and returned to it (see `mousetrap.peek`). Those of a run come
    from its ledger, and no queue is read, so this works after the run has ended, too.

    Raises:
        QueueMissing: there is no such queue.
        BrokerUnreachable, ConnectionLost: the broker did not answer within *timeout* seconds.
    """
    if isinstance(source, Run):
        return _of_run(source, n)
    deadline = clock.monotonic() + timeout
    settings = settings or Settings.from_environment()
    queue = queue_of(source)
    try:
        messages = dead_letters(queue, n, settings, timeout=timeout)
    except QueueMissing:
        problem = f"there is no queue {queue.name!r}, and so no dead letter of it"
        raise QueueMissing(f"{problem}; check the name and the namespace") from None
    total, left = len(messages), clock.remaining(deadline)
    total = depth(queue.dead, settings, timeout=left).messages if total == n else total
    return DeadLetterList(
        messages, {each.id: queue for each in messages}, settings,
        stages=[source] if isinstance(source, Stage) else (),
        title=f" of {queue.name}" + _of_all(n, total),
        note=messages.note if messages else "",
    )  # fmt: skip


def _of_run(run: Run, n: int) -> DeadLetterList:
    entries = run.ledger.dead_entries()
    queues = {queue.name: queue for queue in run.queues}
    listed = [each for each in entries if each.queue in queues][:n]
    jobs = run.ledger.progress().jobs
    of_jobs = f", {jobs.dead:,} of {counted(jobs.total, 'job')} ({share(jobs.dead, jobs.total)})"
    return DeadLetterList(
        [_message(run, each) for each in listed],
        {each.id: queues[each.queue] for each in listed},
        run.settings, stages=run.flow.stages, run=run,
        without_body=[each.id for each in listed if each.body is None],
        title=f" of {run.namespace}" + _of_all(n, len(entries)) + of_jobs,
    )  # fmt: skip


def _of_all(n: int, total: int) -> str:
    return f", the first of {total:,}" if total > n else ""


def _message(run: Run, entry: LedgerEntry) -> Message:
    """Return the message that the dead queue has, made from what the ledger knows of it."""
    outcome = entry.outcome
    assert outcome is not None  # `entry.is_dead` is true
    headers = {REASON: outcome.reason, TRACEBACK: outcome.traceback, ORIGIN: entry.queue,
               DEAD_SINCE: int(run.ledger.time(outcome, outcome.ended))}  # fmt: skip
    sent = run.ledger.queued_at(entry)
    return Message(
        id=entry.id, body=entry.body or b"", attempt=outcome.attempt, parent=entry.parent,
        job=entry.job or None, headers=headers, sent=None if sent is None else int(sent),
    )  # fmt: skip

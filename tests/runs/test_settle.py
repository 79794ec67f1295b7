"""`settle` returns when every message has a final outcome: not before, not late, in all cases."""

from __future__ import annotations

import itertools
import random
import socket
import statistics
import threading
import time

import pytest
from support.messages import open_messages

import mousetrap
from mousetrap import stage
from mousetrap.amqp.queue_depth import Depth
from mousetrap.display import progress
from mousetrap.errors import ConnectionLost, MessageDied, MousetrapError, NotSettled
from mousetrap.flows.flow import Flow
from mousetrap.model.ledger import Ledger
from mousetrap.model.outcome import Outcome
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.runs.holders import Holdings
from mousetrap.runs.settle import Settlement
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.start_fetch import FetchJob
from mousetrap.worker.discovery_messages import HeldAnswer

DELAYS = (0.02, 0.05)  # seconds
TIMEOUT = 60.0  # seconds


# ---- Settlement alone: no run, no broker ---------------------------------------------------------


@stage(reads="numbers", retry_delays=DELAYS)
def count(n: int) -> None: ...


class Sender:
    """Stands for the job sender: *unconfirmed* has the number of unconfirmed jobs at each check."""

    def __init__(self, unconfirmed=(), alarm=""):
        self.sent_again = 0
        self.alarm = alarm
        self._left = list(unconfirmed)

    def send_again(self):
        self.sent_again += 1

    def wait(self, timeout): ...

    def unconfirmed(self):
        return range(self._left.pop(0) if self._left else 0)


class Workers:
    """Stands for the workers of a run; *have_messages* is what they answer at each check."""

    alarm = ""

    def __init__(self, have_messages=(), error=None, exception=None):
        self._answers = list(have_messages)
        self._error = error
        self._exception = exception

    @property
    def have_messages(self):
        return self._answers.pop(0) if self._answers else False

    def check(self):
        if self._error is not None:
            raise self._error

    def exception(self, _id):
        return self._exception

    def output(self, _id):
        return []


class AskedWorkers:
    """Stands for the workers that are asked; *answers* are the `Holdings` of each question."""

    def __init__(self, answers=()):
        self._answers = list(answers)

    def poll(self): ...

    def ask(self, _consumers, _timeout):
        return self._answers.pop(0) if self._answers else Holdings()


def outcome(id, kind="done", **more):
    return Outcome(
        id=id, kind=kind, stage="count", queue="numbers", worker="here:1", begun=time.time(),
        seconds=0.01, **more,
    )  # fmt: skip


def answer(worker, received):
    """Return the answer of an idle worker."""
    return HeldAnswer(
        query=1, worker=worker, address="", queue="numbers", held=0, received=received,
        host="here", pid=1, program="python", stage="count",
    )  # fmt: skip


def ledger_of(*outcomes, jobs=("a", "b")):
    """Return a ledger in which *jobs* were sent and confirmed, and had these outcomes."""
    ledger = Ledger(["numbers"])
    for job in jobs:
        ledger.sent(job, "numbers", time.time())
        ledger.confirmed(job)
    ledger.add(outcomes, time.time())
    return ledger


def settlement(
    ledger, *, sender=None, workers=None, depths=lambda names, _: [None] * len(names), holdings=()
):
    flow = Flow(count)
    return Settlement(
        "run-1", ledger, sender or Sender(), flow, [count.queue], workers or Workers(), depths,
        AskedWorkers(holdings), Settings(), look=lambda: None,
    )  # fmt: skip


def test_settlement_returns_when_every_message_has_a_final_outcome():
    """Done and dead are both final; unconfirmed jobs are sent again while it waits."""
    sender = Sender()
    ledger = ledger_of(outcome("a"), outcome("b", "dead"))

    settlement(ledger, sender=sender).wait(5, fail_fast=False)

    assert sender.sent_again == 1


def test_settlement_waits_for_outcomes_that_arrive_later():
    """It returns after the last outcome, which another thread adds."""
    ledger = ledger_of(outcome("a"))
    later = threading.Timer(0.1, lambda: ledger.add([outcome("b")], time.time()))
    later.start()

    settlement(ledger).wait(20, fail_fast=False)

    assert ledger.open == 0
    later.join()


@pytest.mark.parametrize(
    ("unconfirmed", "have_messages", "depths_answers"),
    [
        ([1, 1], [], []),
        ([], [True, True], []),
        ([], [], [1, 2]),
        ([], [], [ConnectionLost("gone"), 1]),
    ],
    ids=["unconfirmed jobs", "unacked messages", "queues", "no connection"],
)
def test_settlement_waits_while_a_copy_of_a_message_may_be_left(
    unconfirmed, have_messages, depths_answers
):
    """Every outcome is known, but a job, a worker, or a queue may hold a duplicate: ask again."""
    sender, workers = Sender(unconfirmed), Workers(have_messages)
    answers, asked = list(depths_answers), []

    def depths(names, _):
        asked.append(names)
        answer = answers.pop(0) if answers else 0
        if isinstance(answer, Exception):
            raise answer
        return [Depth(name, answer, 1) for name in names]

    waiting = settlement(
        ledger_of(outcome("a"), outcome("b")), sender=sender, workers=workers, depths=depths
    )
    waiting.wait(20, fail_fast=False)

    assert sender.sent_again == 3
    assert answers == []
    assert count.queue.name in asked[-1]
    assert count.queue.dead not in asked[-1]  # dead letters are final


def test_settlement_counts_consumers_again_that_do_not_answer():
    """One of them may be gone: it is not waited for until it counts as another library's."""
    asked = []

    def depths(names, _):
        asked.append(names)
        return [Depth(name, 0, 0) for name in names]

    gone = Holdings(strangers={"numbers": 1})
    settlement(ledger_of(outcome("a"), outcome("b")), depths=depths, holdings=[gone]).wait(
        20, fail_fast=False
    )

    assert len(asked) == 2


@pytest.mark.parametrize("first", [{}, {"old": 3}], ids=["unknown before", "gone"])
def test_settlement_asks_again_if_the_workers_are_not_those_that_it_asked_first(first):
    """A worker that the first question did not reach may have handled a message meanwhile."""
    answers = [
        Holdings(tuple(answer(name, received) for name, received in each.items()))
        for each in (first, {"new": 3}, {"new": 3}, {"new": 3})
    ]
    sender = Sender()
    settlement(ledger_of(outcome("a"), outcome("b")), sender=sender, holdings=answers).wait(
        20, fail_fast=False
    )

    assert sender.sent_again == 2


def test_settlement_says_after_the_timeout_where_the_messages_are():
    """The open messages with their queue, the queues with messages, and the last failure."""
    retried = outcome("a", "retried", delay=30.0, reason="OSError: no", traceback="in count")
    error = OSError("no")

    def depths(names, _):
        return [Depth(name, int(name.endswith(".0.02s")), 0) for name in names]

    waiting = settlement(ledger_of(retried), workers=Workers(exception=error), depths=depths)
    with pytest.raises(NotSettled) as caught:
        waiting.wait(0.01, fail_fast=False)

    text = str(caught.value)
    assert text.startswith("no final outcome of 2 messages of 2 jobs after 0.01 s\n")
    assert "  1 in numbers, after 30 s, attempt 2; last failure: OSError: no\n" in text
    assert "numbers: 0 wait, 0 consumers" in text
    assert "numbers.retry.0.02s: 1 wait" in text
    assert "in count" in text
    assert len(caught.value.table) == 2
    assert caught.value.__cause__ is error


def test_settlement_reports_one_number(capsys, monkeypatch):
    """The last line of progress has the number in the error, whatever is settled afterwards."""
    ledger = ledger_of()
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)

    def depths(names, _):  # asked for the error's text, after its messages were counted
        ledger.add([outcome("a")], clock.steady_time())
        return [Depth(name, 0, 1) for name in names]

    with pytest.raises(NotSettled) as caught:
        settlement(ledger, depths=depths).wait(0.01, fail_fast=False)

    text = str(caught.value)
    assert text.startswith("no final outcome of 2 messages of 2 jobs after")
    assert "numbers: 0 wait, 1 consumer\n" in text
    assert capsys.readouterr().err.splitlines()[-1].endswith("2 messages open; done: nothing yet")
    assert ledger.open == 1


def test_settlement_names_an_alarm_of_the_broker():
    """The reason why nothing happens, and what to do about it."""
    with pytest.raises(NotSettled) as caught:
        settlement(ledger_of(), sender=Sender(alarm="low on disk")).wait(0.01, fail_fast=False)

    assert "The broker is low on disk and accepts no messages (an alarm): free" in str(caught.value)


def test_settlement_counts_from_a_clock_that_nobody_sets(monkeypatch):
    """Thirty days that the system's clock jumps are no time that a message waited."""
    ledger = Ledger(["numbers"])
    ledger.sent("a", "numbers", clock.steady_time())
    now = clock.time()
    monkeypatch.setattr(clock, "time", lambda: now + 30 * 86_400)

    with pytest.raises(NotSettled) as caught:
        settlement(ledger).wait(0.01, fail_fast=False)

    [row] = caught.value.table
    assert row["for s"] < 60


def test_settlement_raises_at_the_first_dead_letter_with_fail_fast():
    """The other message is still open; the handler's exception is the cause."""
    error = ValueError("unlucky")
    ledger = ledger_of(outcome("a", "dead", reason="ValueError: unlucky"))

    with pytest.raises(MessageDied, match="message a died in stage count at attempt 1") as caught:
        settlement(ledger, workers=Workers(exception=error)).wait(20, fail_fast=True)

    assert caught.value.__cause__ is error


@pytest.mark.parametrize("source", ["worker", "events"])
def test_settlement_raises_what_ended_the_run_for_good(source):
    """The error of a worker, or of the connection for events, without waiting for the time-out."""
    error = MousetrapError("the connection is gone for good")
    waiting = settlement(ledger_of(), workers=Workers(error=error if source == "worker" else None))
    if source == "events":
        waiting.fail(error)
        waiting.fail(MousetrapError("a later one"))

    with pytest.raises(MousetrapError) as caught:
        waiting.wait(20, fail_fast=False)

    assert caught.value is error


# ---- whole runs ----------------------------------------------------------------------------------


def flow_of(chance):
    """Return two stages that fan out, fail and take their time by chance."""

    @stage(reads="roots", writes="leaves", concurrency=3)
    def branch(n: int):
        if chance.random() < 0.15:
            raise ConnectionError("chance")
        threading.Event().wait(chance.random() * 0.004)
        yield from range(n)

    @stage(reads="leaves", concurrency=3)
    def leaf(n: int) -> None:
        if chance.random() < 0.15:
            raise ConnectionError("chance")
        threading.Event().wait(chance.random() * 0.004 * (n % 3))

    return [branch, leaf]


def one_run(number, settings):
    """Run a flow with faults; return how many messages were open afterwards, and the overhead."""
    chance = random.Random(number)
    with_processes = number % 5 == 4
    if with_processes:
        options = {"workers": "processes", "processes": 2}
        flow, jobs = [fetch, process], [
            FetchJob(n, places=3, failure_rate=0.15, latency=0.002) for n in range(40)
        ]  # fmt: skip
    else:
        options, flow = {}, flow_of(chance)
        jobs = chance.choices(range(5), k=30)
    with mousetrap.run(flow, settings, retry_delays=DELAYS, **options) as run:
        run.send_many(jobs)
        if with_processes:
            some = chance.randrange(len(jobs), 2 * len(jobs))
            run.ledger.wait_for(lambda: run.ledger.open < some, 20)
            run.processes.kill(chance.choice(["fetch-0", "process-1"]))
        elif number % 5 == 3:  # break a worker's connection instead
            run.ledger.wait_for(lambda: run.ledger.open < 25, 20)
            victim = chance.choice(run.workers)._consumer.connection
            victim.call(lambda: victim._connection._transport._sock.shutdown(socket.SHUT_RDWR))
        summary = run.settle(TIMEOUT)
        returned = time.time()
        last = max(entry.ended for entry in run.ledger.entries() if entry.ended)
        waiting = open_messages(run)
        in_progress = sum(worker.statistics().in_progress for worker in run.workers)
    assert summary.done + summary.dead == summary.sent == len(jobs)
    assert summary.lost == 0
    return waiting + in_progress, returned - last


def check_runs(numbers, settings, capsys):
    found, overheads = zip(*(one_run(n, settings) for n in numbers), strict=True)
    with capsys.disabled():
        print(
            f"\n{len(found)} runs: {sum(found)} messages open after settle; from the last "
            f"outcome to the return: median {1000 * statistics.median(overheads):.1f} ms, "
            f"longest {1000 * max(overheads):.1f} ms"
        )
    assert sum(found) == 0


def test_settle_is_exact(settings, capsys):
    """Ten runs with failures, fan-out, cut connections and killed processes: nothing is open."""
    check_runs(range(10), settings, capsys)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_settle_is_exact_two_hundred_times(settings, capsys):
    """No message is open after any of 200 runs, and no run hangs."""
    check_runs(range(1000, 1200), settings, capsys)


def test_the_same_jobs_give_the_same_summary(settings):
    """Twenty runs of the same jobs have the same counts; only times differ."""
    counts = []
    for _ in itertools.repeat(None, 20):
        with mousetrap.run([fetch, process], settings, retry_delays=DELAYS, concurrency=3) as run:
            run.send_many(FetchJob(n, places=2, failure_rate=0.4) for n in range(30))
            counts.append(run.settle(TIMEOUT).counts())

    assert counts == counts[:1] * 20
    assert counts[0]["dead"] > 0

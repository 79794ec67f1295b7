"""The ledger: the same facts, in any order and more than once, give the same ledger."""

from __future__ import annotations

import threading
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.model import ledger_tables
from mousetrap.model.ledger import Ledger
from mousetrap.model.outcome import Outcome, Output
from mousetrap.runtime import clock

READS = ["work", "more"]
STAGES = dict.fromkeys(READS, "stage")
START = 1_000_000.0  # seconds since 1970


def outcome(id, outcome="done", *, queue="work", at=START, **more):
    """Return the outcome of an attempt that took 10 ms."""
    stage = {"work": "first", "more": "second"}[queue]
    return Outcome(
        id=id, kind=outcome, stage=stage, queue=queue, worker="here:1", begun=at, seconds=0.01,
        **more,
    )  # fmt: skip


def add(ledger, *outcomes, delay=0.02):
    """Add each outcome as received *delay* seconds after its end."""
    for each in outcomes:
        ledger.add([each], each.ended + delay)


def sent(ledger, *jobs):
    for job in jobs:
        ledger.sent(job, "work", START)
        ledger.confirmed(job)


@st.composite
def histories(draw):
    """Draw jobs and all outcomes of a two-stage flow that settles each message once."""
    ticks = count()
    jobs = [f"j{n}" for n in range(draw(st.integers(1, 5)))]
    outcomes = []

    def handle(id, queue, job, parent):
        family = {"job": "" if id == job else job, "parent": parent}
        retries = draw(st.integers(0, 2))
        for attempt in range(1, retries + 1):
            at = START + next(ticks) / 7
            outcomes.append(outcome(id, "retried", queue=queue, at=at, attempt=attempt, delay=0.1,
                              reason="ValueError: not yet", **family))  # fmt: skip
        at, attempt = START + next(ticks) / 7, retries + 1
        if draw(st.integers(0, 4)) == 0:
            reason = f"ValueError: {draw(st.sampled_from('ab'))}"
            outcomes.append(outcome(id, "dead", queue=queue, at=at, attempt=attempt, reason=reason,
                              **family))  # fmt: skip
            return
        target = "more" if queue == "work" else "out"
        ids = [f"{id}/{n}" for n in range(draw(st.integers(0, 2)))]
        outputs = tuple(Output(each, target) for each in ids)
        outcomes.append(outcome(id, at=at, queue=queue, attempt=attempt, outputs=outputs, **family))
        for each in ids if target == "more" else []:
            handle(each, target, job, id)

    for job in jobs:
        handle(job, "work", job, None)
    return jobs, outcomes


def everything(ledger):
    """Return all that a ledger can be asked."""
    return (
        ledger.summary(), list(ledger_tables.messages(ledger, STAGES, "x")),
        list(ledger_tables.open_messages(ledger, START)), ledger.counts(), ledger.dead,
    )  # fmt: skip


@given(histories(), st.data())
def test_ledger_is_the_same_whatever_the_order_of_facts(history, data):
    """Outcomes in any order and more than once, before or after the sending."""
    jobs, outcomes = history
    straight, shuffled = Ledger(READS), Ledger(READS)
    sent(straight, *jobs)
    add(straight, *outcomes)
    again = data.draw(st.lists(st.sampled_from(outcomes), max_size=5))
    facts = [(each, each.ended + 0.02) for each in outcomes]
    facts += [(each, each.ended + 5.0) for each in again]  # a repetition comes later
    facts += [(job, None) for job in jobs]

    for fact, at in data.draw(st.permutations(facts)):
        sent(shuffled, fact) if at is None else shuffled.add([fact], at)

    assert everything(shuffled) == everything(straight)


@given(histories(), st.data())
def test_ledger_is_open_until_the_last_final_outcome(history, data):
    """While one final outcome is missing, the ledger is not settled."""
    jobs, outcomes = history
    ledger = Ledger(READS)
    sent(ledger, *jobs)
    order = data.draw(st.permutations(outcomes))
    last = max(n for n, each in enumerate(order) if each.is_final)

    for n, each in enumerate(order):
        assert (ledger.open > 0) == (n <= last)
        add(ledger, each)
    assert ledger.open == 0
    assert ledger.summary().lost == 0


@given(histories(), st.data())
def test_ledger_counts_each_loss(history, data):
    """If any one outcome never arrives, its job is counted as lost, and no other job is."""
    jobs, outcomes = history
    missing = data.draw(st.sampled_from([each for each in outcomes if each.is_final]))
    ledger = Ledger(READS)
    sent(ledger, *jobs)

    add(ledger, *(each for each in outcomes if each != missing))

    summary = ledger.summary()
    assert summary.lost == 1
    assert missing.id in {entry.id for entry in ledger.open_entries()}
    assert summary.done + summary.dead + summary.lost == summary.confirmed == len(jobs)


@given(histories(), st.data())
def test_progress_counts_the_jobs_as_the_summary_does(history, data):
    """At any moment, whatever the order of facts: total, done and dead; the others are open."""
    jobs, outcomes = history
    ledger = Ledger(READS)
    sent(ledger, *jobs)
    known = data.draw(st.permutations(outcomes))[: data.draw(st.integers(0, len(outcomes)))]

    add(ledger, *known)

    now, summary = ledger.progress(), ledger.summary()
    assert (now.jobs.total, now.jobs.done, now.jobs.dead) == (
        summary.sent, summary.done, summary.dead
    )  # fmt: skip
    assert now.jobs.under_way == summary.sent - summary.done - summary.dead
    assert sum(each.number for each in now.open.values()) == ledger.open
    add(ledger, *outcomes)  # what is known is not counted again
    attempts = {stage: sum(each.values()) for stage, each in ledger.counts().items()}
    assert {name: sum(bars) for name, bars in ledger.last_minute()[1].items()} == attempts


def test_progress_knows_what_waits_and_for_what():
    """Since when the first message of each queue waits, and when the first retry is due."""
    ledger, now = Ledger(READS), clock.steady_time()
    ledger.sent("a", "work", now - 9)
    ledger.sent("b", "work", now - 8)
    add(ledger, outcome("b", "retried", at=now - 2, delay=30.0))
    add(ledger, outcome("c", "retried", at=now - 7, delay=5.0))  # it is over

    progress = ledger.progress()

    [waiting] = progress.open.values()
    assert progress.first == now - 9
    assert (waiting.number, waiting.since, waiting.retries) == (3, now - 9, 1)
    assert waiting.next_retry == pytest.approx(now + 28, abs=0.1)


def test_ledger_waits_for_every_known_copy():
    """A message that was put into its queue twice is settled when it was handled twice."""
    ledger = Ledger(READS)
    sent(ledger, "j")
    child = (Output("j/0", "more"),)
    add(ledger, outcome("j", outputs=child), outcome("j", outputs=child, at=START + 1))
    add(ledger, outcome("j/0", queue="more", parent="j", job="j", at=START + 2))
    assert ledger.open == 1

    add(ledger, outcome("j/0", queue="more", parent="j", job="j", at=START + 3))

    assert ledger.open == 0
    assert ledger.summary().duplicates == 2  # of the job, and of its output


def test_ledger_counts_a_message_as_done_if_one_of_its_copies_was():
    """One delivery was dead-lettered and the other was done: the job is done."""
    ledger = Ledger(READS)
    sent(ledger, "j")
    add(ledger, outcome("j", "dead", reason="ValueError: no"), outcome("j", at=START + 1))

    summary = ledger.summary()

    assert (summary.done, summary.dead, summary.reasons, ledger.dead) == (1, 0, {}, 0)


def test_ledger_settles_a_result_at_once():
    """No stage reads the queue of a result, so nothing more will happen to it."""
    ledger = Ledger(READS)
    sent(ledger, "j")
    add(ledger, outcome("j", outputs=(Output("j/0", "out"),)))

    assert ledger.open == 0
    assert [row["outcome"] for row in ledger_tables.messages(ledger, STAGES, "x")] == [
        "done",
        "result",
    ]


def test_ledger_counts_jobs_that_another_client_sent():
    """A message sent by hand into the namespace of a run is a job of the run."""
    ledger = Ledger(READS)
    add(ledger, outcome("theirs"))

    summary = ledger.summary()

    assert (summary.sent, summary.confirmed, summary.done, summary.lost) == (1, 1, 1, 0)


def test_ledger_wait_ends_with_the_last_outcome():
    """The last outcome ends the wait, long before its timeout."""
    ledger = Ledger(READS)
    sent(ledger, "j")
    threading.Timer(0.05, lambda: add(ledger, outcome("j"))).start()

    assert ledger.wait_for(lambda: not ledger.open, timeout=10)
    assert not ledger.wait_for(lambda: bool(ledger.open), timeout=0.01)


def test_ledger_measures_waits_and_handling_by_stage():
    """A wait ends when the function begins; the wait for a retry starts after its delay."""
    ledger = Ledger(READS)
    sent(ledger, "j")
    add(
        ledger,
        outcome("j", "retried", at=START + 1, delay=2.0),
        outcome("j", at=START + 3.5, attempt=2, outputs=(Output("j/0", "more"),)),
        outcome("j/0", queue="more", job="j", parent="j", at=START + 4),
    )

    stages = ledger.summary().stages

    assert list(stages) == ["first", "second"]
    assert stages["first"].wait["p50"] == pytest.approx(0.49, abs=1e-3)
    assert stages["first"].wait["max"] == pytest.approx(1.0, abs=1e-3)
    assert stages["second"].wait["max"] == pytest.approx(0.49, abs=1e-3)
    assert stages["first"].handling["max"] == pytest.approx(0.01)
    assert ledger.latencies() == [pytest.approx(4.03)]


def test_a_job_that_no_stage_handles_has_no_latency():
    """A job sent straight to a result queue is done without an attempt: it has no duration."""
    ledger = Ledger(READS)
    ledger.sent("j", "results", START, None)
    ledger.confirmed("j")

    assert ledger.latencies() == []
    assert ledger.summary().done == 1


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_ledger_corrects_the_clock_of_a_worker(ahead):
    """The waits are right even if the clock of the worker's machine is an hour off."""
    ledger = Ledger(READS)
    sent(ledger, "j")
    ledger.add([outcome("j", at=START + 1 + ahead)], START + 1.02)

    assert ledger.summary().stages["first"].wait["max"] == pytest.approx(1.0, abs=0.05)


def test_summary_keeps_the_reasons_of_a_kind_as_long_as_they_are_few():
    """Only the kind with the most reasons is counted as one, if that is enough."""
    ledger = Ledger(READS)
    for n in range(30):
        add(ledger, outcome(f"y{n}", "dead", reason=f"ValueError: {n} is bad"))
        add(ledger, outcome(f"r{n}", "dead", reason=f"KeyError: 'EU-{n % 3}'"))

    assert ledger.summary().reasons == {
        "ValueError: … is bad": 30, "KeyError: 'EU-0'": 10, "KeyError: 'EU-1'": 10,
        "KeyError: 'EU-2'": 10,
    }  # fmt: skip


def test_summary_keeps_the_most_frequent_reasons():
    """A thousand different reasons do not make a summary of a thousand lines.

    Where there are many, they are counted by kind of error.
    """
    ledger = Ledger(READS)
    for n in range(50):
        add(ledger, outcome(f"x{n}", "dead", reason="ValueError: often"))
        add(ledger, outcome(f"y{n}", "dead", reason=f"ValueError: {n} is bad"))
        add(ledger, outcome(f"z{n}", "dead", reason=f"KeyError: no {'x' * n}"))
        add(ledger, outcome(f"r{n}", "dead", reason=f"KeyError: 'EU-{n % 3}'"))

    reasons = ledger.summary().reasons

    assert reasons["ValueError: often"] == reasons["ValueError: … is bad"] == 50
    assert sum(reasons.values()) == 200
    assert reasons["other reasons"] == 33
    assert reasons["KeyError: …"] == 50
    assert len(reasons) == 21


def test_an_output_to_an_exchange_is_expected_in_each_queue_that_is_bound():
    """As many copies as the bindings of the flow say, each open until it is handled."""
    bound = {"both": ["work", "more"], "none": []}
    ledger = Ledger(READS, lambda exchange, key: bound[key] if exchange == "orders" else [])
    sent(ledger, "j")
    outputs = (Output("m", "both", b"1", "orders"), Output("n", "none", None, "orders"))
    add(ledger, outcome("j", outputs=outputs))
    found = {(each.id, each.queue, each.body) for each in ledger.entries()}

    assert found == {
        ("j", "work", None), ("m@work", "work", b"1"), ("m@more", "more", b"1"),
        ("n", "orders.unrouted", None),
    }  # fmt: skip
    assert [each.id for each in ledger.open_entries()] == ["m@work", "m@more"]
    add(ledger, outcome("j", outputs=outputs), outcome("m@work", job="j", parent="j"))
    assert ledger.open == 1
    add(ledger, outcome("m@more", queue="more", job="j", parent="j"))
    assert (ledger.open, ledger.summary().done, ledger.summary().duplicates) == (0, 1, 0)

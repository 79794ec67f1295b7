"""The ledger: facts in any order, more than once, and the same record comes out."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.ledger import RECORD_TYPE, Ledger
from mousetrap.message import REASON, Message


def result(job):
    return Message(1, job=job)


def letter(job, reason="ValueError: no luck"):
    return Message(1, job=job, attempt=4, headers={REASON: reason})


def test_ledger_settles_when_the_last_fate_comes():
    """`settle` returns because of a fact, not because of a clock."""
    ledger = Ledger()
    for job in "abc":
        ledger.sent(job)
        ledger.confirmed(job)
    ledger.done(result("a"))
    ledger.dead(letter("b"))
    threading.Timer(0.1, ledger.done, [result("c")]).start()

    record = ledger.settle(timeout=5)

    assert (record.sent, record.confirmed, record.done, record.dead, record.lost) == (3, 3, 2, 1, 0)
    assert record.reasons == {"ValueError: no luck": 1}
    assert record.retried == 3


def test_ledger_says_which_jobs_are_open():
    """A settle that fails names jobs and leaves them counted as lost."""
    ledger = Ledger()
    ledger.sent("a")
    ledger.confirmed("a")

    with pytest.raises(TimeoutError, match="1 of 1 jobs have no fate"):
        ledger.settle(timeout=0.05)
    assert ledger.record().lost == 1


def test_ledger_looks_after_others_while_it_waits():
    """What `look_after` raises ends the wait at once: a dead worker is the better message."""
    ledger = Ledger()
    ledger.sent("a")
    ledger.confirmed("a")

    with pytest.raises(ZeroDivisionError):
        ledger.settle(timeout=30, look_after=lambda: 1 / 0)


def test_ledger_counts_duplicates_once():
    """A job done twice is one job done and one duplicate."""
    ledger = Ledger()
    ledger.sent("a")
    ledger.confirmed("a")
    ledger.done(result("a"))
    ledger.done(result("a"))

    record = ledger.record()
    assert (record.done, record.duplicates, record.lost) == (1, 1, 0)


def test_ledger_ignores_strangers():
    """A result of somebody else's job hides no loss of ours."""
    ledger = Ledger()
    ledger.sent("a")
    ledger.confirmed("a")
    ledger.done(result("stranger"))

    assert ledger.record().lost == 1


FACTS = st.lists(
    st.tuples(st.sampled_from(["sent", "confirmed", "done", "dead"]), st.sampled_from("abcd")),
    max_size=30,
)


@given(FACTS, st.randoms())
def test_ledger_does_not_depend_on_order(facts, random):
    """Any order of the same facts gives the same counts."""

    def counts(facts):
        ledger = Ledger()
        for fact, job in facts:
            tell = getattr(ledger, fact)
            tell({"done": result, "dead": letter}.get(fact, lambda job: job)(job))
        return ledger.record().as_dict() | {"seconds": 0, "latency": 0}

    shuffled = random.sample(facts, len(facts))
    assert counts(facts) == counts(shuffled)


def test_record_shows_itself_and_leaves_its_data():
    """One display carries text, HTML and the machine-readable record; a hostile reason is inert."""
    ledger = Ledger()
    ledger.sent("a")
    ledger.confirmed("a")
    ledger.dead(letter("a", "<script>alert(1)</script>"))

    shown = ledger.record()._repr_mimebundle_()

    assert shown[RECORD_TYPE]["dead"] == 1
    assert "<script>" not in shown["text/html"]
    assert "lost" in shown["text/plain"]

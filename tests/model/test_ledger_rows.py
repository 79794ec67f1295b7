"""The ledger keeps columns of numbers; its answers are those of one that keeps objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.events import feed
from support.plain_ledger import PlainLedger
from support.waiting import wait_for

from mousetrap.model import ledger_tables
from mousetrap.model.ledger import MAX_BACKLOG, Ledger
from mousetrap.model.ledger_order import ORDERS
from mousetrap.model.message import child_id
from mousetrap.model.outcome import Outcome, Output, outputs_to, pack

READS = {"work": "first", "more": "second"}
STAGES = {"work": ("first", "more"), "more": ("second", "out")}  # queue: who reads and writes what
START = 1_000_000.0  # seconds since 1970
JOBS = [f"{n:032x}" for n in range(3)] + ["no-hex", "A" * 32]
CHILDREN = [child_id(job, "first", n) for job in JOBS for n in range(2)]
PARENTS = {child_id(job, "first", n): job for job in JOBS for n in range(2)}
IDS = JOBS + CHILDREN + [child_id(child, "second", 0) for child in CHILDREN[:2]]
TIMES = st.integers(0, 50).map(lambda tick: START + tick / 7)


def routed(exchange, key):
    """Return the queues to which the exchange passes a message with this key."""
    return {"both": ["work", "more"], "one": ["more"]}.get(key, [])


@st.composite
def outcomes(draw):
    """Draw the outcome of an attempt: mostly such as workers publish, sometimes any."""
    id = draw(st.sampled_from(IDS))
    job = PARENTS.get(id, id)
    queue = "more" if id in PARENTS else "work"
    parent, family = (job, job) if id in PARENTS else (None, "")
    if draw(st.integers(0, 9)) == 0:  # of a program that sets the headers itself
        queue = draw(st.sampled_from(["work", "more", "out", "other"]))
        parent = draw(st.sampled_from([None, "unknown", *IDS]))
        family = draw(st.sampled_from(["", "unknown", *IDS]))
    stage, target = STAGES.get(queue, ("third", "out"))
    kind = draw(st.sampled_from(["done"] * 4 + ["retried", "dead"]))
    outputs, reason, traceback, delay = (), "", "", 0.0
    if kind == "done":
        outputs = outputs_to(target, draw(st.integers(0, 2)))
        if draw(st.integers(0, 5)) == 0:
            outputs = (
                Output(draw(st.sampled_from(IDS)), "more", b"1", is_own=True, delay=2.0),
                Output("x", draw(st.sampled_from(["both", "one", "none"])), None, "orders"),
                Output("", "out"),
            )
    else:
        reason, traceback = draw(st.sampled_from(["ValueError: a", "KeyError: b", ""])), "line 1"
        delay = 1.0 if kind == "retried" else 0.0
    body = draw(st.sampled_from([None, None, None, b"body"]))
    return Outcome(
        id, kind, stage, queue, draw(st.sampled_from(["here:1", "there:2"])), draw(TIMES),
        draw(st.integers(0, 3)) / 100, draw(st.sampled_from([1, 1, 2, 300])), family, parent,
        outputs, reason, traceback, delay, body,
    )  # fmt: skip


FACTS = st.one_of(
    st.tuples(st.just("sent"), st.sampled_from(JOBS), st.sampled_from(["work", "work", "out"]),
              TIMES, st.sampled_from([None, None, b"body"]), st.sampled_from([0.0, 0.0, 3.0])),
    st.tuples(st.just("confirmed"), st.sampled_from(IDS)),
    st.tuples(st.just("replayed"), st.sampled_from(IDS)),
    st.tuples(st.just("add_packed"), st.lists(outcomes(), min_size=1, max_size=6).map(pack),
              st.integers(8, 60).map(lambda tick: START + tick / 7)),
)  # fmt: skip


@given(st.lists(FACTS, max_size=25))
def test_any_facts_have_the_answers_of_a_ledger_of_objects(facts):
    """Entries, open messages, counts, summary and tables, whatever happened in whatever order."""
    plain, ledger = PlainLedger(set(READS), routed), Ledger(READS, routed)
    for name, *arguments in facts:
        for each in (plain, ledger):
            getattr(each, name)(*arguments)
        assert ledger.open == len(plain.open_ids())

    assert ledger.entries() == plain.entries()
    assert {each.id for each in ledger.open_entries()} == plain.open_ids()
    assert (ledger.open, ledger.dead) == (len(plain.open_ids()), plain.dead)
    assert (ledger.published(), dict(ledger._counts)) == (plain.published, plain.counts())
    assert ledger.summary() == plain.summary()
    assert sorted(ledger.latencies()) == sorted(plain.latencies())
    assert [each.id for each in ledger.dead_entries()] == [
        each.id for each in plain.entries() if each.is_dead
    ]
    for order in ORDERS:
        table = ledger_tables.messages(ledger, READS, "it", order=order)
        assert [
            (row["message"], row["job"], row["wait"], row["handling"], row["attempts"],
             row["outcome"]) for row in table
        ] == [(id[:8], job[:8], *rest) for id, job, *rest in plain.rows(READS, order)]  # fmt: skip


@pytest.mark.parametrize(("retried", "limit"), [(0.0, 90), (0.1, 100)])
def test_a_settled_message_takes_at_most_a_hundred_bytes(retried, limit):
    """Also if each tenth attempt fails and is retried."""
    jobs = 5000
    feed(Ledger(), 200, retried)  # what is imported and cached does not count
    tracemalloc.start()
    try:
        ledger = Ledger(["start_fetch", "start_process"])
        feed(ledger, jobs, retried)
        assert ledger.open == 0
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()

    ours = tracemalloc.Filter(True, f"{Path(ledger_tables.__file__).parent}/*")  # other threads not
    size = sum(each.size for each in snapshot.filter_traces([ours]).traces)
    assert ledger.summary().messages == 3 * jobs
    assert size / (3 * jobs) < limit


def test_outcomes_are_decoded_although_nobody_asks():
    """A run that nobody looks at does not keep all bodies until its end."""
    ledger = Ledger(READS)
    body = pack([Outcome(f"{n:032x}", "done", "first", "work", "here:1", START, 0.1)
                 for n in range(100)])  # fmt: skip

    for n in range(MAX_BACKLOG // len(body) + 2):
        ledger.add_packed(body, START + n)

    wait_for(lambda: len(ledger._packed) <= 1)
    assert ledger.counts()["first"]["done"] == 100


def test_a_long_table_has_the_rows_of_a_short_one(monkeypatch):
    """Its rows are made when they are looked at, in the same order."""
    ledger = Ledger(["start_fetch", "start_process"])
    feed(ledger, 700, 0.1)
    reads = {"start_fetch": "fetch", "start_process": "process"}
    for chosen in ({}, {"order": "slowest"}, {"order": "sent"}, {"outcome": "result"}):
        whole = ledger_tables.messages(ledger, reads, "it", **chosen, page=3)
        monkeypatch.setattr(ledger_tables, "MAX_KEPT_ROWS", 10)
        lazy = ledger_tables.messages(ledger, reads, "it", **chosen, page=3)
        monkeypatch.undo()

        assert repr(lazy) == repr(whole)
        assert (list(lazy), lazy[-1], len(lazy[5:9])) == (list(whole), whole[-1], 4)


MILLION = """
import json, resource, sys, time
from support.events import READS, feed
from mousetrap.model import ledger_tables
from mousetrap.model.ledger import Ledger
from mousetrap.flows.recording import recorded, save_recorded
from mousetrap.runs import plot

ledger = Ledger(list(READS))
feed(ledger, int(sys.argv[1]), float(sys.argv[2]))
assert ledger.open == 0
found = {}
def timed(name, call):
    begun = time.process_time()
    call()
    found[name] = round(time.process_time() - begun, 2)
def megabytes():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
def messages(**chosen):
    repr(ledger_tables.messages(ledger, READS, "it", **chosen))
def picture():
    import matplotlib
    matplotlib.use("agg")
    from matplotlib import pyplot
    plot.run(ledger)
    pyplot.savefig(sys.argv[3])
timed("summary", ledger.summary)
timed("messages", messages)
timed("messages, slowest, page 7", lambda: messages(order="slowest", page=7))
timed("messages, dead", lambda: messages(outcome="dead"))
timed("messages of a stage", lambda: messages(stage="fetch"))
timed("save", lambda: save_recorded(sys.argv[4], *recorded(ledger, READS)))
found["megabytes without a picture"] = megabytes()
timed("plot", picture)
found["megabytes"] = megabytes()
found["messages in all"] = ledger.summary().messages
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("retried", [0.0, 0.1])
def test_a_million_jobs(tmp_path, retried, capsys):
    """Through two stages, in 400 MB with the picture; prints the seconds of each question."""
    done = subprocess.run(
        [sys.executable, "-c", MILLION, "1000000", str(retried), str(tmp_path / "run.png"),
         str(tmp_path / "run.jsonl")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{retried:.0%} retried: {found}")

    assert found["messages in all"] == 3_000_000
    assert found["megabytes"] <= (400 if not retried else 600)

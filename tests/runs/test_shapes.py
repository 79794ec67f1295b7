"""Flows with several targets: each output arrives where it was sent, once, and is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.messages import existing_queues
from support.shapes import parse, score, store

import mousetrap
from mousetrap import Recording, Send, stage
from mousetrap.job_queue import depth

TESTS = Path(__file__).parents[1]
FLOW = [parse, score, store]


@pytest.fixture(params=["threads", "processes"])
def shape_run(request, settings, monkeypatch):
    """A run of `FLOW`, whose worker processes can import it."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
    with mousetrap.run(FLOW, settings, workers=request.param, keep_bodies=100) as run:
        yield run


def test_fan_out_and_routing_in_a_run(shape_run, tmp_path):
    """Each branch gets every value; a `Send` goes to its target; one that is not named dies."""
    run = shape_run
    run.send_many(["1 2", "3", "", "0 4"])
    summary = run.settle(timeout=30)
    results = run.results()
    stages, [dead] = summary.stages, mousetrap.dead("visits", settings=run.settings)

    assert (summary.sent, summary.done, summary.dead, summary.lost) == (4, 3, 1, 0)
    assert (stages["parse"].done, stages["score"].done, stages["store"].done) == (4, 4, 5)
    assert Counter(each.data for each in results) == Counter([20, 40, 1, 3])
    assert [dict(each.headers) for each in results if each.data in (1, 3)] == [{"odd": True}] * 2
    assert "none of its targets (they are: 'scored', 'errors', 'late')" in dead.reason
    assert dead.attempt == 3
    assert "raw (0) → parse → visits (0), archive (0): 4 done" in repr(run.diagram())
    recording = Recording.load(run.save(tmp_path / "run.jsonl"))
    assert list(recording.differences(recording.replay(*FLOW))) == []


def test_run_with_several_targets_leaves_no_queue(settings):
    """The queues of routes are declared from the start, and deleted like all others."""
    with mousetrap.run(FLOW, settings) as run:
        found = {queue: depth(queue, run.settings).messages for queue in ("errors", "late")}

    assert found == {"errors": 0, "late": 0}
    assert existing_queues(run) == {}


def test_copies_of_an_output_have_ids_of_their_own(settings):
    """And each branch has the job and the parent of its source."""

    @stage(reads="in", writes=["first", "second"])
    def copied(n: int) -> int:
        return n

    with mousetrap.run(copied, settings) as run:
        run.send(7)
        run.settle(timeout=20)
        one, two = sorted(run.results(), key=lambda each: each.id)

    assert one.id != two.id
    assert (one.parent, one.job, one.data) == (two.parent, two.job, two.data)


def test_a_priority_is_sent_and_kept(settings):
    """It is a property of the message, which other clients read as well."""

    @stage(reads="in", writes="out")
    async def urgent(n: int):
        yield Send(n, priority=n)

    with mousetrap.run(urgent, settings) as run, mousetrap.open_channel(run.settings) as channel:
        run.send(9)
        run.settle(timeout=20)
        _, properties, _ = channel.basic_get(run.settings.topology.wire_name("out"))

    assert properties.priority == 9


def test_consume_with_several_targets(settings):
    """A plain function gets its targets from the call."""
    handle = mousetrap.consume(
        "in", lambda n: iter([n, Send(n, to="side")]), settings, writes=["a", "b"], routes="side"
    )
    mousetrap.send("in", 1, settings=settings)
    handle.wait_until(done=1)
    handle.stop()

    assert [depth(each, settings).messages for each in ("a", "b", "side")] == [1, 1, 1]
    assert "→ a, b, side" in repr(handle.worker)

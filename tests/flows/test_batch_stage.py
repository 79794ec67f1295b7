"""A stage with batches in everything that takes a stage: runs, consumers, recordings, a sink."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

import pytest
from support.messages import send

import mousetrap
from mousetrap import Batch, FailedItems, Recording, Reject, Sink, consume, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.job_queue import drain
from mousetrap.model.message import Message
from mousetrap.sink.results_sink import with_results_sink

MODULE = """
from dataclasses import dataclass
from mousetrap import Batch, stage

@dataclass
class Score:
    n: int

@stage(reads="scored", writes="sizes", batch=Batch(4, within=0.3))
def insert(scores: list[Score]) -> list[list[int]]:
    return [[each.n, len(scores)] for each in scores]
"""


@dataclass
class Score:
    n: int


@stage(reads="scored", writes="out", batch=Batch(4, within=0.1), retry_delays=(0.05,))
def insert(scores: list[Score]) -> list[int | None]:
    failed = {k: Reject("unlucky") for k, each in enumerate(scores) if each.n == 13}
    if any(each.n < 0 for each in scores):
        raise ValueError("below zero")
    raise FailedItems(failed, [each.n or None for each in scores])


@stage(reads="numbers", writes="scored")
def score(n: int) -> Score:
    return Score(n)


NUMBERS = [0, 1, 13, 2, -3, 4]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with a stage, which other processes can import."""
    (tmp_path / "table_flow.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("table_flow")
    del sys.modules["table_flow"]


def test_run_counts_each_message_of_a_batch(settings, tmp_path):
    """Done, dead-lettered, retried, with results; a recording replays them without a broker."""
    with mousetrap.run([score, insert], settings, keep_bodies=1000) as run:
        run.send_many(NUMBERS)
        summary = run.settle(timeout=20)
        found = sorted(each.data for each in run.results())
        reasons = sorted(each.reason for each in mousetrap.dead(run))
    recording = Recording.load(run.save(tmp_path / "monday.jsonl"))

    assert (summary.done, summary.dead, summary.retried) == (4, 2, 1)  # of the jobs
    assert found == [1, 2, 4]
    assert reasons == ["Reject: unlucky", "ValueError: below zero"]
    assert list(recording.differences(recording.replay(score, insert))) == []


def test_run_works_in_processes(settings, module):
    """`mousetrap work` takes the batch from the stage."""
    with mousetrap.run(module.insert, settings, workers="processes") as run:
        run.send_many([{"n": n} for n in range(8)])
        assert run.settle(timeout=30).done == 8
        found = sorted(each.data for each in run.results())

    assert [n for n, _ in found] == list(range(8))
    assert max(size for _, size in found) == 4  # some batches were full


def test_consumer_takes_batches(settings):
    """From the stage, or from an argument; what the function prints is kept with one message."""
    sent = send(settings, *[{"n": n} for n in range(4)], queue="scored")
    with consume("scored", insert, settings) as handle:
        handle.wait_until(done=4)
    assert len(drain("out", settings=settings)) == 3

    def show(scores: list[Score]) -> None:
        print(len(scores), "scores")

    sent = send(settings, *[{"n": n} for n in range(3)], queue="scored")
    with consume("scored", show, settings, batch=Batch(3, within=5)) as handle:
        handle.wait_until(done=3)
        [page] = handle.output()
        assert (page.text, page.id) == ("3 scores\n", sent[0].id)

        other = consume("scored", show, settings, batch=Batch(2, within=5))
        assert other.worker is not handle.worker
        other.stop()


def test_types_of_connected_stages_are_compared_by_item():
    """What is read is an item of the list; what is sent is an element of the returned one."""
    Flow([score, insert])

    @stage(reads="numbers", writes="scored")
    def words(n: int) -> str:
        return str(n)

    with pytest.raises(SettingsError, match="can never be decoded by insert"):
        Flow([words, insert])

    @stage(reads="out")
    def last(word: str) -> None: ...

    with pytest.raises(SettingsError, match="what insert writes to 'out' can never be decoded"):
        Flow([insert, last])


@pytest.mark.parametrize("is_async", [False, True])
def test_results_of_a_batch_are_stored(tmp_path, monkeypatch, settings, is_async):
    """With ``RESULTS_SINK``: not those that failed, and each once, whatever is delivered twice."""
    monkeypatch.setenv("RESULTS_SINK", str(tmp_path / "results.db"))

    def double(values: list[int]) -> list:
        results = [iter([n, n]) if n == 1 else 2 * n for n in values]
        raise FailedItems({values.index(2): Reject("no")} if 2 in values else {}, results)

    async def later(values: list[int]) -> list:
        return double(values)

    table = stage("work", "results", batch=Batch(4, within=5))(later if is_async else double)
    sent = [Message(n) for n in range(4)]
    for _ in range(2):
        send(settings, *sent)
        with with_results_sink(table).worker(settings) as worker:
            worker.wait_until(done=3, dead=1)

    with Sink(tmp_path / "results.db") as sink:
        rows = {row["id"]: row["data"] for row in sink.rows()}
    assert rows == {sent[0].id: 0, sent[1].id: [1, 1], sent[3].id: 6}


def test_dead_letter_of_a_batch_becomes_a_test(tmp_path):
    """`handle` calls the function with a list of one."""
    with pytest.raises(ValueError, match="below zero"):
        insert.handle(Message({"n": -1}))
    assert [each.data for each in insert.handle(Message({"n": 5}))] == [5]

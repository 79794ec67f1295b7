"""Joins in runs: one call for all that a stage made of a message, in order, once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.joins import BAD, FLOW, album, resize, resized, split, tolerant
from support.messages import open_messages, send
from support.waiting import wait_for

import mousetrap
from mousetrap import Batch, Join, Recording, Send, stage
from mousetrap.broker import ensure
from mousetrap.errors import NotSettled
from mousetrap.flows.dead_letters import replay
from mousetrap.settings import Settings
from mousetrap.worker import collector

TESTS = Path(__file__).parents[1]
JOBS = [[], [0, 5], [3], list(range(1, 13)), list(range(20, 80))]


@pytest.fixture
def embedded():
    """Settings for a broker of its own, in memory."""
    with ensure("embedded", Settings()) as broker:
        yield broker.settings


@pytest.fixture(params=["threads", "processes", "embedded", "quorum"])
def join_run(request, monkeypatch):
    """A function that runs a flow: with each kind of workers, broker and queue."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
    kind = request.param
    settings = request.getfixturevalue("embedded" if kind == "embedded" else "settings")
    if kind == "quorum":
        settings = settings.replace(queue_type="quorum")
    options = {"workers": "processes", "processes": 2} if kind == "processes" else {}
    return lambda flow: mousetrap.run(flow, settings, **options)


def test_join_gets_all_parts_of_each_message_in_order_once(join_run):
    """Parts are dropped, multiplied, retried and archived on the way; none is counted twice."""
    with join_run(FLOW) as run:
        run.send_many(JOBS)
        summary = run.settle(timeout=60)
        results = run.results()
        left = open_messages(run)

    albums = sorted(each.data for each in results if isinstance(each.data, list))
    assert albums == sorted(map(resized, JOBS))
    assert summary.stages["album"].done == len(JOBS)
    assert (summary.done, summary.dead, summary.lost) == (len(JOBS), 0, 0)
    assert left == 0


def test_run_with_a_join_as_a_test_without_a_broker(settings, tmp_path):
    """The recording has the joined message with its parts, also if one is missing."""
    flow = [split, resize, tolerant]
    with mousetrap.run(flow, settings, keep_bodies=10_000) as run:
        run.send_many([[1, 5], [4, BAD], [0], []])
        run.settle(timeout=30)
        recording = Recording.load(run.save(tmp_path / "run.jsonl"))

    assert list(recording.differences(recording.replay(*flow))) == []
    assert sum(each.queue == "thumbs" for each in recording.replay(*flow).messages.values()) > 1


def test_dead_part_fails_the_join_until_both_are_replayed(settings, monkeypatch):
    """The dead letter says which part died; the other parts are in it, and are not lost."""
    numbers = [1, BAD, 4]
    with mousetrap.run(FLOW, settings) as run:
        run.send(numbers)
        summary = run.settle(timeout=30)
        [dead_part] = mousetrap.dead("images", settings=run.settings)
        [dead_join] = mousetrap.dead("thumbs", settings=run.settings)
        assert (summary.dead, run.results()[:]) == (1, [])
        assert "JoinFailed: the join of message" in dead_join.reason
        assert "1 of its parts were dead-lettered (images: Reject: unlucky)" in dead_join.reason
        assert dead_part.id[:8] not in dead_join.reason

        monkeypatch.setattr("support.joins.BAD", 0)
        for queue in ("thumbs", "images"):
            assert replay(queue, settings=run.settings)
        albums = []
        wait_for(lambda: albums.extend(run.results()) or albums, 20)

    assert [each.data for each in albums] == [[1, 1.5, BAD, 4]]


def test_late_part_of_a_failed_join_waits_as_a_dead_letter(settings, monkeypatch):
    """If the part is replayed first, nothing holds it; a replay of both joins them."""
    with mousetrap.run(FLOW, settings) as run:
        run.send([1, BAD])
        run.settle(timeout=30)
        monkeypatch.setattr("support.joins.BAD", 0)
        replay("images", settings=run.settings)
        wait_for(lambda: len(mousetrap.dead("thumbs", settings=run.settings)) == 2, 20)
        reasons = [each.reason for each in mousetrap.dead("thumbs", settings=run.settings)]
        assert sum("before it came: replay both" in each for each in reasons) == 1

        replay("thumbs", settings=run.settings)
        albums = []
        wait_for(lambda: albums.extend(run.results()) or albums, 20)

    assert [each.data for each in albums] == [[1, 1.5, BAD]]


def test_join_that_passes_missing_parts(settings):
    """Each is in its place, with where and why it died; its replay finds that nothing waits."""
    with mousetrap.run([split, resize, tolerant], settings) as run:
        run.send([4, BAD, 6])
        run.settle(timeout=30)
        [result] = run.results()
        replay("images", settings=run.settings)
        run.settle(timeout=30)

    assert result.data == ["4.0", "images: Reject: unlucky", "6.0", "6.5"]


def test_message_that_no_split_made_is_dead_lettered(settings):
    """It belongs to no group, and the reason says what to do; also with a header made up."""
    with mousetrap.run(FLOW, settings) as run:
        send(run.settings, [1], queue="thumbs")
        send(run.settings, 5, queue="thumbs")
        wait_for(lambda: len(mousetrap.dead("thumbs", settings=run.settings)) == 2, 20)
        reasons = {each.reason for each in mousetrap.dead("thumbs", settings=run.settings)}

    assert all("it belongs to no group" in each for each in reasons)
    assert all("Send to the stage that the join names" in each for each in reasons)


def test_group_that_is_not_complete_in_time_is_dead_lettered(settings, monkeypatch):
    """The reason says which parts are missing; a replay of it goes on with those that are here."""

    @stage(reads="thumbs", joins=Join("split", timeout=0.4), writes="albums")
    def quick(parts: list) -> list:
        return parts

    slow = [split, stage(reads="images", writes="thumbs", timeout=9)(_hold), quick]
    with mousetrap.run(slow, settings, concurrency=4) as run:
        run.send([1, 99, 3])
        wait_for(lambda: len(mousetrap.dead("thumbs", settings=run.settings)) == 1, 20)
        [dead] = mousetrap.dead("thumbs", settings=run.settings)
        _gate.set()
        wait_for(lambda: len(mousetrap.dead("thumbs", settings=run.settings)) == 2, 20)
        assert replay("thumbs", settings=run.settings) == 2
        albums = []
        wait_for(lambda: albums.extend(run.results()) or albums, 20)

    assert "not complete after 0.4 s: 2 are here, and missing is part 2 of 3" in dead.reason
    assert [each.data for each in albums] == [[1, 99, 3]]


def test_join_inside_a_join(settings):
    """The inner joins come together in the outer one, those without any part, too."""

    @stage(reads="books", writes="files")
    def unpack(book: list[list[int]]):
        yield from book

    @stage(reads="albums", joins="unpack", writes="library")
    def shelf(albums: list[list[float]]) -> list[list[float]]:
        return albums

    book = [[1, 2], [5], [7]]
    with mousetrap.run([unpack, *FLOW, shelf], settings) as run:
        run.send(book)
        run.settle(timeout=30)
        [result] = run.results()

    assert result.data == [resized(each) for each in book]


def test_parts_that_come_through_a_batch_or_later(settings):
    """A stage on the way may take batches, and send some of its outputs after a delay."""

    @stage(reads="images", writes="thumbs", batch=Batch(10, within=0.05))
    def grouped(numbers: list[int]) -> list[int | Send | None]:
        return [{0: None, 1: Send(n, delay=0.3)}.get(n % 3, n) for n in numbers]

    with mousetrap.run([split, grouped, album], settings) as run:
        run.send_many([list(range(25)), [3]])
        run.settle(timeout=30)
        results = sorted(each.data for each in run.results())

    assert results == [[], [n for n in range(25) if n % 3]]


def test_handler_of_a_join_that_fails_is_retried_with_the_same_parts(settings):
    """And dead-lettered as one message, whose replay needs no part again."""
    fails = [True]

    @stage(reads="thumbs", joins="split", writes="albums", retry_delays=(0.02,))
    def fragile(parts: list[float]) -> list[float]:
        if fails[0]:
            raise ValueError("no paper")
        return parts

    with mousetrap.run([split, resize, fragile], settings) as run:
        run.send([1, 4])
        summary = run.settle(timeout=30)
        fails.clear()
        fails.append(False)
        assert (summary.retried, summary.dead) == (1, 1)
        assert replay("thumbs", settings=run.settings) == 1
        albums = []
        wait_for(lambda: albums.extend(run.results()) or albums, 20)

    assert [each.data for each in albums] == [[1, 1.5, 4]]


def test_parts_that_are_held_are_published_again_before_their_acks_time_out(settings, monkeypatch):
    """A group that lacks a part for an hour keeps the others; each copy replaces its original."""
    monkeypatch.setattr(collector, "MAX_HOLD", 0.2)
    monkeypatch.setattr(collector, "JOIN_CHECK_INTERVAL", 0.05)
    _gate.clear()
    flow = [split, stage(reads="images", writes="thumbs")(_hold), album]
    with mousetrap.run(flow, settings, concurrency=4) as run:
        run.send([1, 99, 3])
        [worker] = [each for each in run.workers if each.queue.join]
        wait_for(lambda: worker.collector.received > 8, 20)
        with pytest.raises(NotSettled):
            run.settle(timeout=0.3)
        held = worker.collector.held
        _gate.set()
        run.settle(timeout=30)
        [result] = run.results()

    assert held == 2
    assert result.data == [1, 99, 3]


def test_more_messages_than_a_join_holds_end_the_newest_group(settings, monkeypatch):
    """It is dead-lettered with the limit in the reason; the older ones go on."""
    monkeypatch.setattr(collector, "MAX_HELD", 3)
    _gate.clear()
    flow = [split, stage(reads="images", writes="thumbs")(_hold), album]
    with mousetrap.run(flow, settings, concurrency=9) as run:
        run.send([1, 2, 99])
        [worker] = [each for each in run.workers if each.queue.join]
        wait_for(lambda: worker.collector.held == 2, 20)
        run.send([5, 6, 99])
        wait_for(lambda: mousetrap.dead("thumbs", settings=run.settings)[:], 20)
        _gate.set()
        run.settle(timeout=30)
        dead = [each.reason for each in mousetrap.dead("thumbs", settings=run.settings)]
        [result] = run.results()

    assert any("this group is the newest" in each for each in dead)
    assert result.data == [1, 2, 99]


def _hold(n: int) -> int:
    if n == 99:
        _gate.wait(8)
    return n


_gate = threading.Event()

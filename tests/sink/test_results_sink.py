"""A pipeline stores its results once, in the sink that ``RESULTS_SINK`` names."""

from __future__ import annotations

import os
import subprocess
import sys

from mousetrap import Send, Sink, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.job_queue import declare, drain
from mousetrap.model.message import Message
from mousetrap.run_fetch_worker import fetch
from mousetrap.sink.results_sink import with_results_sink


def test_pipeline_stores_its_results_once(settings, place, monkeypatch):
    """With ``RESULTS_SINK``, `mousetrap work process` stores one row for a job delivered twice."""
    monkeypatch.setenv("RESULTS_SINK", place)
    message = Message([["1", "2", "Here", "XX", "UTC"]], id="a")
    declare("data_processing", "results", settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([message, message], "data_processing")
    process = subprocess.Popen(
        [sys.executable, "-m", "mousetrap", "work", "process"],
        env=os.environ | settings.to_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        results = drain("results", 2, timeout=30, settings=settings)
    finally:
        process.terminate()
        process.wait(timeout=20)

    assert len(results) == 2
    with Sink(place) as sink:
        [row] = sink.rows()
    assert (row["id"], row["data"]) == ("a", results[0].data)


def test_only_messages_to_results_are_stored(tmp_path, monkeypatch):
    """Not the output of an earlier stage; without the variable nothing is stored."""
    monkeypatch.setenv("RESULTS_SINK", str(tmp_path / "results.db"))

    @stage(reads="work", writes="results")
    def numbers(n: int):
        yield from range(n)

    @stage(reads="work", writes="results")
    async def later(n: int) -> int:
        return n

    many, one = with_results_sink(numbers), with_results_sink(later)
    outputs = [each.data for each in many.handle(Message(3, id="a"))]
    outputs += [each.data for each in one.handle(Message(4, id="b"))]

    assert outputs == [0, 1, 2, 4]
    with Sink(tmp_path / "results.db") as sink:
        assert [row["data"] for row in sink.rows()] == [[0, 1, 2], 4]
    assert with_results_sink(fetch) is fetch
    monkeypatch.delenv("RESULTS_SINK")
    assert with_results_sink(later) is later


def test_only_what_a_stage_sends_to_results_is_stored(tmp_path, monkeypatch):
    """Of several targets; what a `Send` gives to another one is not stored."""
    monkeypatch.setenv("RESULTS_SINK", str(tmp_path / "results.db"))

    @stage(reads="work", writes=["archive", "results"], routes="errors")
    def fan_out(n: int):
        yield from (n, Send(n + 1), Send("bad", to="errors"), Send(n + 2, to="results"))

    @stage(reads="work", writes="archive", routes=["results"])
    def routed(n: int) -> int | Send:
        return n if n else Send("none", to="results")

    with_results_sink(fan_out).handle(Message(3, id="a"))
    for n in (0, 1):
        with_results_sink(routed).handle(Message(n, id=f"b{n}"))

    with Sink(tmp_path / "results.db") as sink:
        assert [row["data"] for row in sink.rows()] == [[3, 4, 5], "none"]

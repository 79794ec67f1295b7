"""Flows with several targets: each output arrives where it was sent, once, and is counted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pika
import pytest
from support.messages import existing_queues
from support.shapes import (
    alarms,
    audit,
    german,
    orders,
    parse,
    police,
    press,
    publish,
    score,
    ship,
    store,
)
from support.waiting import wait_for

import mousetrap
from mousetrap import Queue, Recording, Send, stage
from mousetrap.errors import SettingsError
from mousetrap.job_queue import depth

TESTS = Path(__file__).parents[1]
FLOW = [parse, score, store]
EXCHANGES = [publish, audit, german, ship, police, press]


@pytest.fixture(params=["threads", "processes"])
def shape_run(request, settings, monkeypatch):
    """A function that runs a flow, whose worker processes can import it."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
    return lambda flow: mousetrap.run(flow, settings, workers=request.param, keep_bodies=100)


def test_fan_out_and_routing_in_a_run(shape_run, tmp_path):
    """Each branch gets every value; a `Send` goes to its target; one that is not named dies."""
    with shape_run(FLOW) as run:
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


def test_results_of_one_queue(settings):
    """They are taken out of that one; the others stay for a later call, and none is missed."""
    with mousetrap.run([parse, score, store], settings) as run:
        run.send("1 2 3")
        run.settle(timeout=20)
        of_errors = run.results(queue="errors")
        with pytest.raises(SettingsError, match=r"no result queue of this run.*errors, late"):
            run.results(queue="visits")
        others = run.results()

    assert sorted(each.data for each in of_errors) == [1, 3]
    assert [each.data for each in others] == [20]
    assert (of_errors.note, others.note) == ("", "")


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


# ---- exchanges -----------------------------------------------------------------------------------


def orders_of(*texts):
    return [text.split() for text in texts]


def test_exchanges_of_each_type_in_a_run(shape_run, tmp_path):
    """Each queue gets what its bindings match, once; what none matches is a result."""
    with shape_run(EXCHANGES) as run:
        run.send_many(orders_of("de paid", "de stolen", "fr paid", "fr sent"), "raw_orders")
        summary = run.settle(timeout=30)
        results = run.results()
        recording = Recording.load(run.save(tmp_path / "run.jsonl"))
    done = {name: each.done for name, each in summary.stages.items()}
    places = Counter(entry.queue for entry in run.ledger.entries())

    assert (summary.sent, summary.done, summary.dead, summary.lost) == (4, 3, 1, 0)
    assert done == {"publish": 4, "audit": 1, "german": 3, "ship": 2, "police": 1, "press": 1}
    assert [places[each] for each in ("audit", "german", "ship", "police", "press")] == [
        2, 3, 2, 1, 1,
    ]  # fmt: skip
    assert [places[each] for each in ("log", "orders.unrouted", "states.unrouted")] == [4, 1, 2]
    assert len(results) == 4 + 1 + 2 + 3
    for stages in (EXCHANGES, [publish], [german]):
        assert list(recording.differences(recording.replay(*stages))) == []


def test_run_with_exchanges_leaves_nothing(settings):
    """Exchanges do not expire: the run deletes them, also those to which no queue is bound."""
    with mousetrap.run([publish, audit], settings) as run:
        names = [run.settings.topology.wire_name(each) for each in ("orders", "alarms")]
        with mousetrap.open_channel(run.settings) as channel:
            for name in names:
                channel.exchange_declare(name, passive=True)

    assert existing_queues(run) == {}
    for name in names:
        with mousetrap.open_channel(settings) as channel, pytest.raises(Exception, match="404"):
            channel.exchange_declare(name, passive=True)


def test_a_job_to_an_exchange_is_a_job_in_each_queue(settings):
    """Each has an id that says from which message and for which queue it is."""
    with mousetrap.run([audit, german], settings) as run:
        [receipt] = run.send_many([["de", "paid"]], orders["de.paid"])
        summary = run.settle(timeout=20)
    id = receipt.message.id

    assert (summary.sent, summary.confirmed, summary.done) == (2, 2, 2)
    assert {entry.id for entry in run.ledger.entries() if entry.sent} == {
        f"{id}@audit", f"{id}@german",
    }  # fmt: skip


def test_copies_of_a_message_of_another_program_are_stored_each(settings, tmp_path):
    """Two stages, one sink, one message id: the sink keeps a row for each queue, and only one."""
    sink = mousetrap.Sink(tmp_path / "sink.db")

    def stored(order: list[str]) -> None:
        assert sink.store(order)

    stages = [stage(reads=each.queue, name=each.name)(stored) for each in (audit, german)]
    with mousetrap.run(stages, settings) as run:
        with mousetrap.open_channel(run.settings) as channel:
            properties = pika.BasicProperties(message_id="order-17")
            exchange = run.settings.topology.wire_name("orders")
            channel.basic_publish(exchange, "de.paid", b'["de", "paid"]', properties)
        wait_for(lambda: len(sink) == 2)
        run.settle(timeout=20)

    assert sorted(row["id"] for row in sink.rows()) == ["order-17@audit", "order-17@german"]


def test_a_handler_sends_to_an_exchange_that_its_stage_does_not_name(settings):
    """`mousetrap.send` keeps its rule: the exchange is declared, and all copies are counted."""

    @stage(reads="in")
    def sends(n: int) -> None:
        mousetrap.send(alarms[""], f"alarm {n}")

    with mousetrap.run([sends, police, press], settings) as run:
        run.send_many([1, 2], "in")
        summary = run.settle(timeout=20)

    assert {name: each.done for name, each in summary.stages.items()} == {
        "sends": 2, "police": 2, "press": 2,
    }  # fmt: skip


def test_flow_with_an_exchange_of_two_types_is_refused():
    """The broker would refuse the second; here both stages are named by the exchange."""
    other = stage(reads=Queue("x", bindings=[mousetrap.Exchange("orders", "direct")["k"]]))(print)

    with pytest.raises(SettingsError, match="exchange 'orders' has the types topic and direct"):
        mousetrap.run([audit, other])

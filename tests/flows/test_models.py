"""Messages that are models of pydantic, in every way in which a stage is used."""

from __future__ import annotations

import os
import sys

import pytest
from support.models import Buyer, Label, Names, Open, Paid, Parcel, label, pack

import mousetrap
from mousetrap import Message, Recording, consume, declare, drain, send
from mousetrap.flows.dead_letters import dead_letters
from mousetrap.model.decoding import decode
from mousetrap.model.encoding import encode
from mousetrap.sink import Sink

ANN, BEN = Buyer(fullName="Ann", password="secret"), Buyer(fullName="Ben")
STATES = [Paid(buyer=ANN), Open(buyer=BEN)]
LABELS = [Label("Ann", Paid(buyer=ANN)), Label("Ben")]
WRONG = b'[{"kind": "open", "buyer": {"fullName": "C", "password": "xyz"}}]'
REASON = (
    "UndecodableMessage: wrong type: ValueError in a check of the type (value_error)"
    " - at `$[0].buyer.password`"
)


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_models_go_through_a_run(settings, workers, tmp_path, monkeypatch):
    """As input and output; a wrong one dies at once, and its reason quotes no value."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
    with mousetrap.run([pack, label], settings, workers=workers, keep_bodies=10_000) as run:
        run.send(STATES, to="orders")
        run.send(Message(body=WRONG))
        run.send(Names(["C", "D"]), to="parcels")
        run.settle(timeout=30)
        found = [decode(each.body, Label) for each in run.results()]
        [dead] = dead_letters("orders", settings=run.settings)
    path = run.save(tmp_path / "models.jsonl")

    assert sorted(found, key=lambda each: each.full_name) == [*LABELS, Label("C and D")]
    assert dead.reason == REASON
    assert "xyz" not in dead.traceback
    assert dead.body == WRONG
    recording = Recording.load(path)
    assert not recording.differences(recording.replay(pack, label))


def test_model_is_one_message_and_a_consumer_gets_it(settings):
    """A model of a list, too; `send` and `consume` work as with plain values."""
    declare("models", settings=settings)
    seen = []

    def see(state: Paid | Names | None) -> None:
        seen.append(state)

    assert len(send("models", Names(["a", "b"]), settings=settings)) == 1
    assert len(send("models", [STATES[0]], settings=settings)) == 1
    with consume("models", see, settings) as handle:
        handle.wait_until(done=2, timeout=20)

    assert seen == [Names(["a", "b"]), STATES[0]]
    assert drain("models", settings=settings) == []


def test_stage_handles_models_without_a_broker():
    """Its outputs have the bodies that the next stage takes."""
    outputs = pack.handle(Message(STATES))

    assert [decode(each.body, Parcel) for each in outputs] == [
        Parcel(each, b"\xff") for each in STATES
    ]
    [made] = label.handle(outputs[0])
    assert decode(made.body, Label) == LABELS[0]


def test_sink_stores_a_model(tmp_path):
    """As its JSON."""
    with Sink(tmp_path / "models.db") as sink:
        assert sink.store(STATES[0], Message(b"1"))
        [row] = list(sink.rows())

    assert encode(row["data"]) == encode(STATES[0])

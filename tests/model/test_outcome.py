"""Outcomes of attempts travel unchanged, in few bytes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.errors import UndecodableMessage
from mousetrap.model.message import Message, child_id
from mousetrap.model.outcome import Outcome, Output, output_to, outputs_to, pack, unpack

START = 1_000_000.0  # seconds since 1970

words = st.text("ab/ü\n", max_size=4)
times = st.floats(0, 2e9)
bodies = st.none() | st.binary(max_size=4)
output_lists = st.lists(st.builds(Output, words.filter(bool), words, bodies), max_size=3)
fields = {
    "id": words, "stage": words, "queue": words, "worker": words, "begun": times, "seconds": times,
    "attempt": st.integers(1, 9), "job": words, "parent": st.none() | words, "body": bodies,
    "outputs": output_lists.map(tuple),
}  # fmt: skip
failures = {"reason": words, "traceback": words, "delay": times}  # a done outcome has none of these
outcomes = st.builds(Outcome, kind=st.just("done"), **fields) | st.builds(
    Outcome, kind=st.sampled_from(["retried", "dead"]), **fields, **failures
)


def same(left, right):
    """Say whether these are the same outcomes in any order."""
    return sorted(left, key=repr) == sorted(right, key=repr)


def outcome(id, **more):
    """Return an outcome of an attempt that took 10 ms."""
    facts = {"kind": "done", "stage": "first", "queue": "work", "worker": "here:1"}
    return Outcome(id=id, begun=START, seconds=0.01, **facts | more)


@given(st.lists(outcomes, min_size=1, max_size=8))
def test_outcomes_travel_unchanged(batch):
    """What is packed is what is unpacked, in any order."""
    assert same(unpack(pack(batch)), batch)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["done", "retried", "dead"]), st.integers(0, 3), st.sampled_from("ab"),
            st.sampled_from(["", "j"]), st.sampled_from([None, "", "j", "p"]), bodies,
        ),
        min_size=1,
    )
)  # fmt: skip
def test_outputs_without_ids_get_the_ids_of_children(shapes):
    """Outputs known by their position have the ids that `Message.child` gives, in any batch."""
    batch, expected = [], []
    for n, (kind, number, stage, job, parent, body) in enumerate(shapes):
        facts = {"id": f"m{n}", "kind": kind, "stage": stage, "job": job, "parent": parent}
        facts["body"] = body
        batch.append(outcome(**facts, outputs=outputs_to("next", number)))
        children = [Message(id=f"m{n}").child(None, stage, place) for place in range(number)]
        outputs = tuple(Output(each.id, "next") for each in children)
        expected.append(outcome(**facts, outputs=outputs))

    assert same(unpack(pack(batch)), expected)


def test_output_with_an_id_stays_as_it_is_beside_one_without():
    """A handler returned one value and sent another to an exchange, or later, itself."""
    sent = (Output("b", "order.paid", b"1", "orders"), output_to("visits", "c", None, 60.0))
    outcome = Outcome(
        "m", "done", "st", "work", "host:1", 1.0, 0.1, outputs=(*outputs_to("out", 1), *sent)
    )

    [found] = unpack(pack([outcome]))

    assert found.outputs == (Output(child_id("m", "st", 0), "out"), *sent)


def test_outcomes_that_share_their_fields_take_a_third_of_the_bytes():
    """Each message costs these bytes on each hop, so they are worth saving."""
    parents = [Message(n) for n in range(50)]
    short, long = (
        [outcome(each.id, job=each.id, parent=each.id, outputs=outputs(each)) for each in parents]
        for outputs in (
            lambda _: outputs_to("third", 1),
            lambda each: (Output(each.child(None, "first", 0).id, "third"),),
        )
    )

    assert len(pack(short)) < 0.36 * len(pack(long))
    assert same(unpack(pack(short)), unpack(pack(long)))


def test_outputs_to_is_the_same_object_each_time():
    """`pack` compares outputs by identity, which takes no time."""
    assert outputs_to("next", 2) is outputs_to("next", 2)
    assert outputs_to("next", 2) == (Output("", "next"), Output("", "next"))
    assert outputs_to("next", 0) == ()


def test_packed_outcomes_are_plain_json():
    """Other programs can read them: the keys of the fields, and no default values."""
    [row] = json.loads(pack([outcome("m", kind="dead", reason="ValueError: no")]))["others"]

    assert row == {
        "id": "m", "kind": "dead", "stage": "first", "queue": "work", "worker": "here:1",
        "begun": START, "seconds": 0.01, "reason": "ValueError: no",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"1", b"\xff", b'{"done": [["m"]]}', b'{"others": [{}]}'])
def test_unpack_refuses_what_is_no_batch_of_outcomes(body):
    """Another client can publish anything to the events exchange."""
    with pytest.raises(UndecodableMessage):
        unpack(body)


def test_only_a_retried_outcome_is_not_final():
    """A message that is done or dead is not handled again."""
    kinds = ("done", "retried", "dead")

    assert [outcome("m", kind=kind).is_final for kind in kinds] == [True, False, True]
    assert outcome("m").ended == START + 0.01


# ---- a deploy that mixes versions ----------------------------------------------------------------

# What the version before exchanges published for four attempts.
BEFORE = Path(__file__).with_name("events_before.json").read_bytes().strip()


class OutputBefore(msgspec.Struct, array_like=True):
    """An output as that version reads it."""

    id: str
    queue: str
    body: bytes | None = None


class OutcomeBefore(msgspec.Struct):
    """The fields of an outcome that matter here, as that version reads them."""

    id: str
    outputs: tuple[OutputBefore, ...] = ()


class BatchBefore(msgspec.Struct):
    """A body as that version reads it."""

    others: list[OutcomeBefore] = []


def test_outcomes_of_the_version_before_are_understood():
    """A run of this version counts what a worker of that one publishes."""
    base = {"stage": "st", "queue": "work", "worker": "host:1", "seconds": 0.25}
    kept = tuple(Output(child_id("m1", "st", n), "next") for n in range(2))
    again = tuple(Output(child_id("m2", "st", n), "next") for n in range(2))

    assert unpack(BEFORE) == [
        Outcome("m1", "done", **base, begun=1.5, job="j", parent="j", outputs=kept),
        Outcome("m2", "done", **base, begun=2.5, attempt=2, outputs=again),
        Outcome("m3", "retried", **base, begun=3.5, reason="ValueError: no", traceback="trace",
                delay=5.0),
        Outcome("m4", "done", **base, begun=4.5,
                outputs=(Output("x", "side", b"1"), Output("y", "next"))),
    ]  # fmt: skip


def test_the_version_before_understands_outcomes_with_several_targets():
    """Its run counts the queues; an output to an exchange is a result to it, a delayed one open."""
    outputs = (
        Output("a", "visits"),
        Output("b", "order.paid", b"1", "orders"),
        output_to("visits", "c", None, 60.0),
    )
    body = pack([Outcome("m", "done", "st", "work", "host:1", 1.0, 0.1, outputs=outputs)])
    [found] = msgspec.json.decode(body, type=BatchBefore).others

    assert [(each.id, each.queue, each.body) for each in found.outputs] == [
        ("a", "visits", None), ("b", "order.paid", b"1"), ("c", "visits", None),
    ]  # fmt: skip

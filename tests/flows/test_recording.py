"""A case: what happened, in a file, replayed with and without a broker."""

from __future__ import annotations

import asyncio
import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mousetrap
from mousetrap import Message, Recording, Reject, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.recording import RecordedMessage
from mousetrap.model.message import current_message


@stage(reads="numbers", writes="halves", retry_delays=(0.05,))
def halve(n: int) -> int:
    if n == 7 and current_message.get().attempt == 1:
        raise ConnectionError("not yet")
    if n == 5:
        raise Reject("five again")
    return n // 2


@stage(reads="halves", writes="words")
async def spell(n: int) -> str:
    await asyncio.sleep(0)
    return f"number {n}"


@pytest.fixture(scope="module")
def monday(broker, tmp_path_factory):
    """A run with everything in it: done, retried, dead, results; saved."""
    settings = broker.settings.replace(namespace="case", queue_expiry=60.0)
    with mousetrap.run([halve, spell], settings, keep_bodies=1000) as run:
        run.send_many([4, 5, 6, 7])
        run.send(Message(body=b"\xff\xfe"))
        run.settle(timeout=20)
    return run.save(tmp_path_factory.mktemp("cases") / "monday.jsonl")


def test_case_tells_what_became_of_each_message(monday):
    """Jobs in their order, with outcome, attempt, reason, body and what they sent on."""
    case = Recording.load(monday)

    assert [job.outcome for job in case.jobs] == ["done", "dead", "done", "done", "dead"]
    assert [job.attempt for job in case.jobs] == [1, 1, 1, 2, 1]
    assert case.jobs[1].reason == "Reject: five again"
    assert case.jobs[4].body == b"\xff\xfe"
    assert [case.messages[id].body for id in case.jobs[0].outputs] == [b"2"]
    assert sum(each.outcome == "result" for each in case.messages.values()) == 3
    assert repr(case) == "<Recording of 5 jobs, 11 messages, 11 with bodies>"


def test_case_file_is_private(monday):
    """There are bodies in it."""
    assert stat.S_IMODE(monday.stat().st_mode) == 0o600


def test_case_replays_without_a_broker(monday):
    """The same functions do the same, failures and retries included; coroutines too."""
    case = Recording.load(monday)

    assert list(case.differences(case.replay(halve, spell))) == []


FOUR = Recording([RecordedMessage("a", "halves", "a", body=b"4", outcome="done")])

test_a_case_is_a_test_in_one_line = FOUR.test(stage("halves")(print))


def test_case_finds_what_changed(monday):
    """Another result, another outcome, more outputs: one row for each, and the test fails."""
    case = Recording.load(monday)

    @stage(reads="numbers", writes="halves")
    def halve(n: int):
        if n == 6:
            raise ValueError("new")
        yield n // 2 + (n == 4)
        if n == 7:
            yield 0

    differences = case.differences(case.replay(halve))

    found = {(row["what"], row["recorded"], row["now"]) for row in differences}
    assert ("body", "1 bytes", "1 bytes") in found
    assert ("outcome", "done", "dead ValueError: new") in found
    assert ("outcome", "dead Reject: five again", "done") in found
    assert ("outputs", "1 messages", "2 messages") in found
    with pytest.raises(AssertionError, match="the replay differs from the recording"):
        case.test(halve)()


def test_case_goes_through_a_broker_again(monday, settings):
    """The same jobs, with their ids, at full speed: the same account."""
    case = Recording.load(monday)
    with mousetrap.run([halve, spell], settings, keep_bodies=1000) as run:
        run.send_recording(case)
        summary = run.settle(timeout=20)
        again = Recording.of(run.ledger, run.flow.reads)

    assert (summary.sent, summary.done, summary.dead) == (5, 3, 2)
    assert list(case.differences(again)) == []


def test_case_goes_through_a_broker_at_its_own_speed(settings):
    """Two jobs half a second apart, replayed twice as fast: a quarter of a second."""
    case = Recording([RecordedMessage("a", "numbers", "a", body=b"1"),
                 RecordedMessage("b", "numbers", "b", at=0.5, body=b"2")])  # fmt: skip
    with mousetrap.run(halve, settings) as run:
        begun = time.time()
        run.send_recording(case, speed=2)
        run.settle(timeout=20)
        sent = {entry.id: entry.sent - begun for entry in run.ledger.entries() if entry.sent}

    assert sent["a"] < 0.25 <= sent["b"] < 0.5


def test_case_without_bodies_is_a_record_and_no_replay(settings, tmp_path):
    """Bodies are not kept unless asked for; the refusal says how to ask."""
    with mousetrap.run(halve, settings) as run:
        run.send(4)
        run.settle(timeout=10)
        case = Recording.load(run.save(tmp_path / "case.jsonl"))

    assert all(each.body is None for each in case.messages.values())
    assert "body" not in (tmp_path / "case.jsonl").read_text()
    with pytest.raises(SettingsError, match=r"1 of 1 bodies were not kept.*keep_bodies="):
        case.replay(halve)
    with pytest.raises(SettingsError, match="no message of this recording was handled from halves"):
        case.replay(spell)


def test_run_keeps_no_body_that_is_too_large(settings):
    """The size is capped: what is larger is told without its body."""
    with mousetrap.run(halve, settings, keep_bodies=2) as run:
        run.send_many([10, 1000])
        run.settle(timeout=10)
        case = Recording.of(run.ledger, run.flow.reads)

    assert [job.body for job in case.jobs] == [b"10", None]


@given(
    st.lists(
        st.builds(
            RecordedMessage,
            id=st.uuids().map(str), queue=st.text(min_size=1, max_size=5), job=st.text(max_size=5),
            parent=st.none() | st.text(max_size=5), at=st.floats(0, 1e6),
            body=st.none() | st.binary(max_size=50), outcome=st.sampled_from(["done", "dead"]),
            attempt=st.integers(1, 9), reason=st.text(max_size=20),
            outputs=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        ),
        max_size=10,
    )
)  # fmt: skip
def test_case_survives_its_file(tmp_path_factory, messages):
    """Whatever is in it is read back as it was."""
    path = tmp_path_factory.mktemp("case") / "case.jsonl"

    case = Recording(messages)

    assert Recording.load(case.save(path)).messages == case.messages


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no recording"),
        ("", "is empty"),
        ("{}", r"line 1, is not of a recording"),
        ('{"mousetrap-case": 99}', "format 99"),
        ('{"mousetrap-case": 1}\n{"id": 1', "line 2, is not of a recording"),
        ('{"mousetrap-case": 1}\n{"name": "x"}', "line 2, is not of a recording"),
    ],
)
def test_case_says_what_is_wrong_with_a_file(tmp_path, text, says):
    """A clear sentence that names file and line."""
    path = tmp_path / "case.jsonl"
    if text is not None:
        path.write_text(text)

    with pytest.raises(SettingsError, match=says):
        Recording.load(path)

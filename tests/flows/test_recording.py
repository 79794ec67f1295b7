"""A recording keeps what happened in a file, and replays it with and without a broker."""

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
    """Save a run with messages that are done, retried, dead, and results."""
    settings = broker.settings.replace(namespace="case", queue_expiry=60.0)
    with mousetrap.run([halve, spell], settings, keep_bodies=1000) as run:
        run.send_many([4, 5, 6, 7])
        run.send(Message(body=b"\xff\xfe"))
        run.settle(timeout=20)
    return run.save(tmp_path_factory.mktemp("recordings") / "monday.jsonl")


def test_recording_has_the_outcome_of_each_message(monday):
    """Jobs are in order, with outcome, attempt, reason, body and outputs."""
    recording = Recording.load(monday)

    assert [job.outcome for job in recording.jobs] == ["done", "dead", "done", "done", "dead"]
    assert [job.attempt for job in recording.jobs] == [1, 1, 1, 2, 1]
    assert recording.jobs[1].reason == "Reject: five again"
    assert recording.jobs[4].body == b"\xff\xfe"
    assert [recording.messages[id].body for id in recording.jobs[0].outputs] == [b"2"]
    assert sum(each.outcome == "result" for each in recording.messages.values()) == 3
    assert repr(recording) == "<Recording of 5 jobs, 11 messages, 11 with bodies>"


def test_recording_file_is_private(monday):
    """Only its owner may read it, because it contains bodies."""
    assert stat.S_IMODE(monday.stat().st_mode) == 0o600


def test_recording_replays_without_a_broker(monday):
    """The same functions give the same outcomes, failures, retries and coroutines included."""
    recording = Recording.load(monday)

    assert list(recording.differences(recording.replay(halve, spell))) == []


FOUR = Recording([RecordedMessage("a", "halves", "a", body=b"4", outcome="done")])

test_recording_is_a_test_in_one_line = FOUR.test(stage("halves")(print))


def test_recording_finds_what_changed_between_two_stages(monday):
    """An output that the next stage handles is compared with what the stage returns now."""
    recording = Recording.load(monday)

    @stage(reads="numbers", writes="halves", name="halve")
    def halve_and_add(n: int) -> int:
        return halve.function(n) + 10 * (n == 4)

    differences = list(recording.differences(recording.replay(halve_and_add, spell)))

    [row] = differences
    assert (row["queue"], row["what"]) == ("halves", "body")


def test_recording_finds_what_changed(monday):
    """Another body, outcome or number of outputs is one row each, and the test fails."""
    recording = Recording.load(monday)

    @stage(reads="numbers", writes="halves")
    def halve(n: int):
        if n == 6:
            raise ValueError("new")
        yield n // 2 + (n == 4)
        if n == 7:
            yield 0

    differences = recording.differences(recording.replay(halve))

    found = {(row["what"], row["recorded"], row["now"]) for row in differences}
    assert ("body", "1 bytes", "1 bytes") in found
    assert ("outcome", "done", "dead ValueError: new") in found
    assert ("outcome", "dead Reject: five again", "done") in found
    assert ("outputs", "1 message", "2 messages") in found
    with pytest.raises(AssertionError, match="the replay differs from the recording"):
        recording.test(halve)()


def test_recording_is_sent_through_a_broker_again(monday, settings):
    """The same jobs, with their ids, give the same counts."""
    recording = Recording.load(monday)
    with mousetrap.run([halve, spell], settings, keep_bodies=1000) as run:
        run.send_recording(recording)
        summary = run.settle(timeout=20)
        again = Recording.of(run.ledger, run.flow.reads)

    assert (summary.sent, summary.done, summary.dead) == (5, 3, 2)
    assert list(recording.differences(again)) == []


def test_recording_is_sent_at_its_recorded_speed(settings):
    """Two jobs half a second apart, sent twice as fast, are a quarter of a second apart."""
    recording = Recording([RecordedMessage("a", "numbers", "a", body=b"1"),
                 RecordedMessage("b", "numbers", "b", at=0.5, body=b"2")])  # fmt: skip
    with mousetrap.run(halve, settings) as run:
        begun = time.time()
        run.send_recording(recording, speed=2)
        run.settle(timeout=20)
        sent = {entry.id: entry.sent - begun for entry in run.ledger.entries() if entry.sent}

    assert sent["a"] < 0.25 <= sent["b"] < 0.5


def test_recording_without_bodies_cannot_be_replayed(settings, tmp_path, capsys):
    """Bodies are not kept by default; `save` and the error say how to keep them."""
    with mousetrap.run(halve, settings) as run:
        run.send(4)
        run.settle(timeout=10)
        recording = Recording.load(run.save(tmp_path / "recording.jsonl"))

    assert "recording.jsonl has times and outcomes, and no bodies" in capsys.readouterr().err
    assert all(each.body is None for each in recording.messages.values())
    assert "body" not in (tmp_path / "recording.jsonl").read_text()
    with pytest.raises(SettingsError, match=r"1 of 1 bodies were not kept.*keep_bodies="):
        recording.replay(halve)
    with pytest.raises(SettingsError, match="no message of this recording was handled from halves"):
        recording.replay(spell)


def test_run_keeps_no_body_that_is_too_large(settings):
    """A larger body is left out of the recording."""
    with mousetrap.run(halve, settings, keep_bodies=2) as run:
        run.send_many([10, 1000])
        run.settle(timeout=10)
        recording = Recording.of(run.ledger, run.flow.reads)

    assert [job.body for job in recording.jobs] == [b"10", None]


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
def test_recording_is_read_back_as_it_was_saved(tmp_path_factory, messages):
    """All fields of all messages are the same."""
    path = tmp_path_factory.mktemp("recordings") / "recording.jsonl"

    recording = Recording(messages)

    assert Recording.load(recording.save(path)).messages == recording.messages


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no recording"),
        ("", "is empty"),
        ("{}", r"line 1, is not of a recording"),
        ('{"mousetrap-recording": 99}', "format 99"),
        ('{"mousetrap-recording": 1}\n{"id": 1', "line 2, is not of a recording"),
        ('{"mousetrap-recording": 1}\n{"name": "x"}', "line 2, is not of a recording"),
    ],
)
def test_recording_says_what_is_wrong_with_a_file(tmp_path, text, says):
    """The error names the file and the line."""
    path = tmp_path / "recording.jsonl"
    if text is not None:
        path.write_text(text)

    with pytest.raises(SettingsError, match=says):
        Recording.load(path)


def test_recording_has_the_messages_that_a_handler_sent(settings, tmp_path):
    """A replay without a broker gives the same messages, in the queues that they were sent to."""

    @stage(reads="numbers", writes="out")
    def sends_both(n: int) -> int:
        mousetrap.send("side", n)
        return n

    with mousetrap.run(sends_both, settings, keep_bodies=100) as run:
        run.send_many(range(3))
        run.settle(timeout=20)
        recording = Recording.load(run.save(tmp_path / "run.jsonl"))
    replayed = recording.replay(sends_both)

    assert list(recording.differences(replayed)) == []
    queues = sorted(each.queue for each in replayed.messages.values())
    assert queues == ["numbers"] * 3 + ["out"] * 3 + ["side"] * 3
    assert len(recording.messages) == 9

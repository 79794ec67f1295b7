"""Dead letters can be read without harm and sent back without loss."""

from __future__ import annotations

import time

import pytest

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import QueueMissing, SettingsError, Unroutable
from mousetrap.flows.dead_letters import dead_letters, replay
from mousetrap.job_queue import declare, delete, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

WORK = Queue("work", retry_delays=(0.05,))


@pytest.fixture
def three_dead(settings):
    """Let three messages (a1, a2, b1) die at their second attempt, because of a bug."""

    def buggy(_: int) -> None:
        raise KeyError("x")

    declare(WORK, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(1, id=i) for i in ("a1", "a2", "b1")], "work")
    with Worker(WORK, buggy, settings) as worker:
        worker.wait_until(dead=3)
    return settings


def test_dead_letters_say_what_happened_and_stay(three_dead):
    """They have a reason, a traceback, an origin and a time; reading twice gives the same."""
    first, *_ = dead_letters(WORK, settings=three_dead)

    assert (first.id, first.reason, first.origin) == ("a1", "KeyError: 'x'", "work")
    assert first.attempt == 2
    assert "in buggy" in first.traceback
    assert abs(time.time() - first.dead_since) < 60
    assert len(dead_letters("work", settings=three_dead)) == 3


def test_replay_sends_all_back_as_first_attempts(three_dead):
    """After the bug is fixed, the same ids are handled without the headers of the failure."""
    seen = []

    def fixed(message: Message) -> None:
        seen.append((message.id, message.attempt, message.reason, message.replayed))

    assert replay(WORK, settings=three_dead) == 3
    with Worker(WORK, fixed, three_dead) as worker:
        worker.wait_until(done=3)

    assert seen == [("a1", 1, None, 1), ("a2", 1, None, 1), ("b1", 1, None, 1)]
    assert depth(WORK.dead, three_dead).messages == 0


def test_replay_sends_only_the_given_ids(three_dead):
    """The beginning of an id is enough; the others stay in the dead queue."""
    assert replay(WORK, ids=["a"], settings=three_dead) == 2
    assert [m.id for m in dead_letters(WORK, settings=three_dead)] == ["b1"]


def test_replay_keeps_to_its_limit(three_dead):
    """It sends at most *limit* messages, the oldest first."""
    assert replay(WORK, limit=1, settings=three_dead) == 1
    assert [m.id for m in drain("work", settings=three_dead)] == ["a1"]


def test_replay_keeps_the_dead_letter_when_its_queue_is_deleted(three_dead):
    """A returned copy is an error, and its dead letter stays in the dead queue."""
    delete("work", settings=three_dead)

    with pytest.raises(Unroutable):
        replay(WORK, settings=three_dead)

    assert len(dead_letters(WORK, settings=three_dead)) == 3


def test_replay_raises_for_an_unknown_queue(settings):
    """The error names the dead queue that does not exist."""
    with pytest.raises(QueueMissing, match=r"nowhere\.dead"):
        replay("nowhere", settings=settings)


def test_replay_counts_the_replays_of_a_message(three_dead):
    """A message that dies again and is sent again has been replayed twice."""

    def still_buggy(_: int) -> None:
        raise KeyError("x")

    replay(WORK, limit=1, settings=three_dead)
    with Worker(WORK, still_buggy, three_dead) as worker:
        worker.wait_until(dead=1)
    replay(WORK, ids="a1", settings=three_dead)

    [again] = drain("work", settings=three_dead)
    assert (again.id, again.attempt, again.replayed) == ("a1", 1, 2)


def test_replay_refuses_an_empty_id(three_dead):
    """Every id begins with "", so an unset shell variable would replay everything."""
    with pytest.raises(SettingsError, match="empty"):
        replay(WORK, ids=[""], settings=three_dead)

    assert depth("work", settings=three_dead).messages == 0


def test_replay_that_is_interrupted_loses_no_message(three_dead):
    """The sent messages are in the queue, the others still in the dead queue."""

    class Stop(Exception):
        pass

    def stop(_: Message) -> None:
        raise Stop

    with pytest.raises(Stop):
        replay(WORK, settings=three_dead, on_replayed=stop)

    assert [m.id for m in drain("work", settings=three_dead)] == ["a1"]
    assert [m.id for m in dead_letters(WORK, settings=three_dead)] == ["a2", "b1"]


def test_replay_keeps_body_and_foreign_properties(settings):
    """The copy has the original bytes and the headers that another client set."""
    declare(WORK, settings=settings)
    dead_letter = Message(body=b"\x00not json", headers={"theirs": "kept", "mousetrap-reason": "X"})
    with Publisher(settings) as publisher:
        publisher.publish(dead_letter, WORK.dead).wait()

    replay(WORK, settings=settings)

    [back] = drain("work", settings=settings)
    assert (back.body, back.headers["theirs"], back.reason) == (b"\x00not json", "kept", None)

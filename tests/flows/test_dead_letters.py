"""Dead letters: looked at without harm, sent back without loss."""

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
def letters(settings):
    """Three messages that died of a bug at their second attempt: ids a1, a2, b1."""

    def buggy(_: int) -> None:
        raise KeyError("x")

    declare(WORK, settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(1, id=i) for i in ("a1", "a2", "b1")], "work")
    with Worker(WORK, buggy, settings) as worker:
        worker.wait_until(dead=3)
    return settings


def test_dead_letters_say_what_happened_and_stay(letters):
    """Reason, traceback, origin and time; looking twice shows the same."""
    first, *_ = dead_letters(WORK, settings=letters)

    assert (first.id, first.reason, first.origin) == ("a1", "KeyError: 'x'", "work")
    assert first.attempt == 2
    assert "in buggy" in first.traceback
    assert abs(time.time() - first.dead_since) < 60
    assert len(dead_letters("work", settings=letters)) == 3


def test_replay_sends_all_back_as_first_attempts(letters):
    """After the bug is fixed the same ids are handled; nothing of the death clings to them."""
    seen = []

    def fixed(message: Message) -> None:
        seen.append((message.id, message.attempt, message.reason, message.replayed))

    assert replay(WORK, settings=letters) == 3
    with Worker(WORK, fixed, letters) as worker:
        worker.wait_until(done=3)

    assert seen == [("a1", 1, None, 1), ("a2", 1, None, 1), ("b1", 1, None, 1)]
    assert depth(WORK.dead, letters).messages == 0


def test_replay_takes_the_ids_it_is_told(letters):
    """By the beginning of the id; the others stay dead."""
    assert replay(WORK, ids=["a"], settings=letters) == 2
    assert [m.id for m in dead_letters(WORK, settings=letters)] == ["b1"]


def test_replay_keeps_to_its_limit(letters):
    """At most so many, the oldest first."""
    assert replay(WORK, limit=1, settings=letters) == 1
    assert [m.id for m in drain("work", settings=letters)] == ["a1"]


def test_replay_keeps_the_letter_when_the_queue_is_gone(letters):
    """A copy that comes back is an error, and its letter is still in the dead queue."""
    delete("work", settings=letters)

    with pytest.raises(Unroutable):
        replay(WORK, settings=letters)

    assert len(dead_letters(WORK, settings=letters)) == 3


def test_replay_of_an_unknown_queue_says_so(settings):
    """No dead queue: the error names it."""
    with pytest.raises(QueueMissing, match=r"nowhere\.dead"):
        replay("nowhere", settings=settings)


def test_replay_counts_how_often(letters):
    """A letter that dies again and is sent again says so: twice."""

    def still_buggy(_: int) -> None:
        raise KeyError("x")

    replay(WORK, limit=1, settings=letters)
    with Worker(WORK, still_buggy, letters) as worker:
        worker.wait_until(dead=1)
    replay(WORK, ids="a1", settings=letters)

    [again] = drain("work", settings=letters)
    assert (again.id, again.attempt, again.replayed) == ("a1", 1, 2)


def test_replay_refuses_an_empty_id(letters):
    """Every id starts with nothing; an unset shell variable must not replay everything."""
    with pytest.raises(SettingsError, match="empty"):
        replay(WORK, ids=[""], settings=letters)

    assert depth("work", settings=letters).messages == 0


def test_replay_interrupted_doubles_and_never_loses(letters):
    """Stopped between two letters: what was sent is in the queue, the rest is dead as before."""

    class Stop(Exception):
        pass

    def stop(_: Message) -> None:
        raise Stop

    with pytest.raises(Stop):
        replay(WORK, settings=letters, on_replayed=stop)

    assert [m.id for m in drain("work", settings=letters)] == ["a1"]
    assert [m.id for m in dead_letters(WORK, settings=letters)] == ["a2", "b1"]


def test_replay_keeps_body_and_foreign_properties(settings):
    """The original bytes, and what another client had set, survive death and return."""
    declare(WORK, settings=settings)
    letter = Message(body=b"\x00not json", headers={"theirs": "kept", "mousetrap-reason": "X"})
    with Publisher(settings) as publisher:
        publisher.publish(letter, WORK.dead).wait()

    replay(WORK, settings=settings)

    [back] = drain("work", settings=settings)
    assert (back.body, back.headers["theirs"], back.reason) == (b"\x00not json", "kept", None)

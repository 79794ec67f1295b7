"""What a connection learns from refusals; on real brokers: tests/worker/test_their_queues.py."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from pika.exceptions import ChannelClosedByBroker

from mousetrap import Queue, Settings
from mousetrap.amqp.declarer import Declarer
from mousetrap.errors import AccessRefused, ConnectionLost

SETTINGS = Settings(user="worker")
REFUSED = "ACCESS_REFUSED - configure access to queue '{}' in vhost '/' refused for user 'worker'"
MISSING = "NOT_FOUND - no queue '{}' in vhost '/'"


@pytest.fixture
def declarer():
    found = Declarer(SETTINGS)
    topology = SETTINGS.topology
    found.add_later(topology.failure_queues(Queue("work", (0.1,))))
    found.add(topology.declarations(Queue("work", (0.1,))))
    return found


def asked(declarer):
    """Return what is written to the next channel: the names, and whether only asked for."""
    channel = Mock()
    declarer.declare(channel)
    return {e.args[0]: e.kwargs.get("passive", False) for e in channel.queue_declare.mock_calls}


def test_queue_that_is_missing_is_declared_on_the_next_channel(declarer):
    """The first channel only asks for it."""
    assert asked(declarer) == {"work": True, "work.quarantine": False}

    assert declarer.learn(ChannelClosedByBroker(404, MISSING.format("work")), is_setup=True)
    assert asked(declarer) == {"work": False, "work.quarantine": False}
    assert declarer.declares_later


def test_old_queue_that_is_gone_is_a_new_one(declarer):
    """It is asked for before it is declared, so that its loss is noticed."""
    declarer.old = {"work.quarantine", "another"}
    channel = Mock()
    declarer.declare(channel)
    asked_first = [e.kwargs.get("passive", False) for e in channel.queue_declare.mock_calls
                   if e.args[0] == "work.quarantine"]  # fmt: skip

    assert asked_first == [True, False]
    gone = ChannelClosedByBroker(404, MISSING.format("work.quarantine"))
    assert declarer.learn(gone, is_setup=True)
    assert declarer.old == {"another"}
    assert not declarer.learn(gone, is_setup=True)


def test_user_who_may_declare_nothing_needs_the_failure_queues_from_the_start(declarer):
    """They are asked for, and not declared when a message needs them."""
    reason = ChannelClosedByBroker(403, REFUSED.format("work.quarantine"))

    assert declarer.learn(reason, is_setup=True)
    assert set(asked(declarer).items()) == {
        (name, True) for name in ("work", "work.quarantine", "work.retry.0.1s", "work.dead")
    }
    assert not declarer.declares_later


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (404, MISSING.format("another")),
        (404, "NOT_FOUND - queue 'work' in vhost '/' process is stopped, down or inaccessible"),
        (403, "ACCESS_REFUSED - read access to queue 'work' in vhost '/' refused for user 'w'"),
        (405, "RESOURCE_LOCKED - cannot obtain access to locked queue 'work' in vhost '/'"),
        (406, "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'work' in vhost '/'"),
    ],
)
def test_refusal_of_something_else_is_an_error(declarer, code, text):
    """There is no other way to do it on the next channel."""
    assert not declarer.learn(ChannelClosedByBroker(code, text), is_setup=True)
    assert not declarer.learn(ConnectionLost("broken"), is_setup=True)


def test_what_the_user_may_not_ask_for_is_named_if_it_is_needed(declarer):
    """Since RabbitMQ 4.3 such a user does not learn whether a queue exists."""
    for name in ("work.quarantine", "work", "work.retry.0.1s", "work.quarantine", "work.dead"):
        assert declarer.learn(ChannelClosedByBroker(403, REFUSED.format(name)), is_setup=True)
    text = str(declarer.explained(AccessRefused("read access to queue 'work' refused")))

    assert text.startswith("read access to queue 'work' refused")
    assert [line for line in text.splitlines() if line.startswith("  ")] == [
        f"  queue {name!r}" for name in ("work", "work.dead", "work.quarantine", "work.retry.0.1s")
    ]
    assert asked(declarer) == {}
    assert declarer.missing == []

"""Arguments of queues: which are known, which values they have, and which make a queue drop."""

from __future__ import annotations

import warnings

import pytest

from mousetrap.errors import SettingsError
from mousetrap.model.queue_arguments import ARGUMENTS, check_queue_type
from mousetrap.model.topology import Queue, Topology

DLX = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "late"}
QUORUM = {"x-queue-type": "quorum"}
SAFE = {**QUORUM, **DLX, "x-dead-letter-strategy": "at-least-once"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"x-max-priority": 10},
        {"x-single-active-consumer": True, "x-max-priority": 3},
        {"x-max-length": 5, "x-overflow": "reject-publish"},
        {"x-max-length-bytes": 5, **DLX},
        {"x-message-ttl": 0, "x-dead-letter-exchange": "dlx"},
        {"x-queue-mode": "lazy", "x-queue-version": 2},
        {"x-consumer-timeout": 60_000, "x-queue-leader-locator": "balanced"},
        {**QUORUM, "x-delivery-limit": -1},
        {**QUORUM, "x-delivery-limit": 5, **DLX},
        {**SAFE, "x-overflow": "reject-publish"},
    ],
)
def test_queue_takes_what_the_broker_knows(given):
    """The arguments are a copy, so that they stay as they were checked."""
    queue = Queue("jobs", arguments=given)

    assert (queue.arguments, queue.arguments is given) == (given, False)
    assert hash(queue) == hash(Queue("jobs"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("x-max-priority", "give a dict"),
        ({"x-max-prio": 5}, "did you mean x-max-priority"),
        ({"max_length": 5}, "did you mean x-max-length"),
        ({"x-message-deduplication": True}, r"Known are x-queue-type, .* use declare=False"),
        ({"x-max-priority": 256}, r"must be a whole number in 1\.\.255"),
        ({"x-max-priority": True}, "must be a whole number"),
        ({"x-max-priority": "5"}, "must be a whole number"),
        ({"x-max-length": 0, **DLX}, "a whole number from 1 on"),
        ({"x-message-ttl": 1.5, **DLX}, "a whole number from 0 on"),
        ({"x-single-active-consumer": 1}, "True or False"),
        ({"x-overflow": "drop-tail"}, "one of 'drop-head', 'reject-publish'"),
        ({"x-queue-type": "stream"}, "cannot be a stream"),
        ({**QUORUM, "x-max-priority": 5}, "a quorum queue cannot have it .406.*'classic'"),
        ({**QUORUM, "x-queue-mode": "lazy"}, "a quorum queue cannot have it"),
        ({"x-queue-type": "classic", "x-delivery-limit": 30}, "a classic queue cannot have it"),
        ({**QUORUM, "x-overflow": "reject-publish-dlx"}, "give 'reject-publish'"),
        ({"x-dead-letter-routing-key": "late"}, "needs x-dead-letter-exchange"),
        ({"x-dead-letter-exchange": ""}, "round in a circle"),
        ({**DLX, "x-dead-letter-routing-key": "jobs"}, "round in a circle"),
        (SAFE, "falls back to at-most-once"),
    ],
)
def test_queue_refuses_arguments_that_make_no_sense(given, reason):
    """When it is made, whether it is declared or not; the error names the argument."""
    for declare in (True, False):
        with pytest.raises(SettingsError, match=reason):
            Queue("jobs", arguments=given, declare=declare)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"x-max-length": 5}, "'x-overflow': 'reject-publish'"),
        ({"x-max-length-bytes": 5, "x-overflow": "drop-head"}, "the oldest ones"),
        ({"x-message-ttl": 1000}, "those that wait too long; give x-dead-letter-exchange"),
        ({"x-expires": 1000, **DLX}, "when no consumer uses it"),
        ({**QUORUM, "x-delivery-limit": 3}, "whose workers were lost"),
    ],
)
def test_queue_that_drops_messages_is_refused_or_warned_of(given, reason):
    """Messages are never lost without a word; one that exists already is used as it is."""
    with pytest.raises(SettingsError, match=f"drops messages without a word: .*{reason}"):
        Queue("jobs", arguments=given)
    with pytest.warns(UserWarning, match=reason) as caught:
        theirs = Queue("jobs", arguments=given, declare=False)

    assert theirs.arguments == given
    assert caught[0].filename == __file__  # the caller's line


def test_queue_type_of_the_settings_has_to_fit():
    """A queue with priorities cannot be a quorum queue because a variable says so."""
    queue = Queue("jobs", arguments={"x-max-priority": 5})
    with pytest.raises(SettingsError, match="give 'x-queue-type': 'classic'"):
        Topology(queue_type="quorum").work_queue(queue)

    classic = Queue("jobs", arguments={"x-max-priority": 5, "x-queue-type": "classic"})
    declared = Topology(queue_type="quorum").work_queue(classic)
    assert declared.arguments == classic.arguments


@pytest.mark.parametrize("name", ARGUMENTS)
def test_each_argument_belongs_to_a_type_of_queue(name):
    """So the type in the settings can be compared with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ARGUMENTS[name].types:
            check_queue_type("jobs", {name: 1}, kind)

    assert ARGUMENTS[name].types

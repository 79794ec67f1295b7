"""A message whose handler raised is retried after each delay in turn, then dead-lettered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.errors import Reject, UndecodableMessage
from mousetrap.model.headers import LOSSES, REASON, TRACEBACK
from mousetrap.model.message import Message
from mousetrap.model.retry_policy import (
    MAX_REASON,
    MAX_TRACEBACK,
    DeadLetter,
    RetryAfter,
    after_failure,
    decide,
)
from mousetrap.model.topology import Queue

QUEUE = Queue("start_fetch", retry_delays=(1.0, 5.0, 25.0))


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (2, 5.0), (3, 25.0)])
def test_decide_waits_longer_from_attempt_to_attempt(attempt, delay):
    """Attempt n waits the n-th delay."""
    assert decide(attempt, OSError("down"), QUEUE) == RetryAfter(delay)


def test_decide_dead_letters_when_the_delays_are_used_up():
    """No message is retried for ever."""
    assert decide(4, OSError("down"), QUEUE) == DeadLetter("OSError: down")


@given(st.integers(1, 10**6), st.lists(st.floats(0.01, 100), max_size=5))
def test_decide_retries_as_often_as_there_are_delays(attempt, delays):
    """With n delays there are at most n + 1 attempts, whatever the counter says."""
    decision = decide(attempt, OSError("down"), Queue("q", retry_delays=tuple(delays)))

    assert isinstance(decision, RetryAfter if attempt <= len(delays) else DeadLetter)


@pytest.mark.parametrize("error", [Reject("not wanted"), UndecodableMessage("not JSON", 3)])
def test_decide_dead_letters_at_once_what_no_retry_can_help(error):
    """A rejected or unreadable message is not tried again."""
    assert decide(1, error, QUEUE) == DeadLetter(f"{type(error).__name__}: {error}")


def test_decide_dead_letters_at_once_without_delays():
    """A queue without delays has no retries."""
    assert isinstance(decide(1, OSError(), Queue("q", retry_delays=())), DeadLetter)


def test_decide_keeps_the_reason_short():
    """The reason travels in a header, so its length is limited."""
    assert len(decide(4, OSError("x" * 10**6), QUEUE).reason) == MAX_REASON


def test_decide_gives_a_reason_that_fits_into_a_header():
    """A file name that is not UTF-8 must not keep its message from being dead-lettered."""
    reason = decide(4, OSError("no file \udcff"), QUEUE).reason

    assert reason.encode() == b"OSError: no file ?"


def test_decide_dead_letters_an_error_whose_str_raises():
    """An exception whose __str__ raises does not stop the worker."""

    class Speechless(Exception):
        def __str__(self):
            raise RuntimeError

    assert decide(4, Speechless(), QUEUE) == DeadLetter(
        "Speechless: (its __str__ raised RuntimeError)"
    )


def failed(text: str = "no luck") -> ValueError:
    """Return an error with a traceback."""
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_after_failure_gives_the_next_attempt_to_the_retry_queue():
    """The copy has the same id and body and no trace of the failure in its headers."""
    message = Message({"seed": 1}, headers={"tenant": "x", LOSSES: 1})

    failure = after_failure(message, failed(), QUEUE)

    assert (failure.target, failure.delay) == ("start_fetch.retry.1s", 1.0)
    assert (failure.copy.id, failure.copy.body) == (message.id, message.body)
    assert (failure.copy.attempt, failure.copy.headers) == (2, {"tenant": "x"})


def test_after_failure_gives_the_dead_queue_a_copy_that_says_why():
    """Reason, origin, traceback and time are headers of the dead letter; its attempt stays."""
    failure = after_failure(Message(1, attempt=4), failed("x" * 2 * MAX_TRACEBACK), QUEUE)

    dead_letter = failure.copy
    assert (failure.target, failure.delay, dead_letter.attempt) == ("start_fetch.dead", None, 4)
    assert dead_letter.headers[REASON] == failure.reason
    assert dead_letter.headers[TRACEBACK] == failure.traceback
    assert len(failure.traceback.encode()) <= MAX_TRACEBACK
    assert failure.traceback.startswith("ValueError: x")
    assert dead_letter.origin == "start_fetch"
    assert dead_letter.dead_since is not None

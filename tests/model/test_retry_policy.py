import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.errors import Reject, UndecodableMessage
from mousetrap.model.retry_policy import DeadLetter, RetryAfter, backoff, decide
from mousetrap.model.topology import Queue

QUEUE = Queue("start_fetch", retry_delays=(1.0, 5.0, 25.0))


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (2, 5.0), (3, 25.0)])
def test_decide_waits_longer_from_attempt_to_attempt(attempt, delay):
    """Attempt n waits the n-th delay."""
    assert decide(attempt, OSError("down"), QUEUE) == RetryAfter(delay)


def test_decide_buries_when_the_delays_are_used_up():
    """No message is retried for ever."""
    assert decide(4, OSError("down"), QUEUE) == DeadLetter("OSError: down")


@given(st.integers(1, 10**6), st.lists(st.floats(0.01, 100), max_size=5))
def test_decide_retries_as_often_as_there_are_delays(attempt, delays):
    """With n delays there are at most n + 1 attempts, whatever the counter says."""
    decision = decide(attempt, OSError("down"), Queue("q", retry_delays=tuple(delays)))

    assert isinstance(decision, RetryAfter if attempt <= len(delays) else DeadLetter)


@pytest.mark.parametrize("error", [Reject("not wanted"), UndecodableMessage("not JSON", 3)])
def test_decide_buries_at_once_what_no_retry_can_help(error):
    """A rejected or unreadable message is not tried again."""
    assert decide(1, error, QUEUE) == DeadLetter(f"{type(error).__name__}: {error}")


def test_decide_buries_at_once_without_delays():
    """A queue without delays has no retries."""
    assert isinstance(decide(1, OSError(), Queue("q", retry_delays=())), DeadLetter)


def test_decide_keeps_the_reason_short():
    """A reason travels in a header; a book does not belong there."""
    assert len(decide(4, OSError("x" * 10**6), QUEUE).reason) == 1000


def test_decide_gives_a_reason_that_fits_into_a_header():
    """A file name that is not UTF-8 must not keep its message from being buried."""
    reason = decide(4, OSError("no file \udcff"), QUEUE).reason

    assert reason.encode() == b"OSError: no file ?"


def test_decide_buries_an_error_that_cannot_say_what_it_is():
    """An exception whose __str__ raises does not stop the worker."""

    class Speechless(Exception):
        def __str__(self):
            raise RuntimeError

    assert decide(4, Speechless(), QUEUE) == DeadLetter("Speechless: (it cannot say what it is)")


@given(st.integers(-10, 10**9), st.floats(0.001, 10), st.floats(0.001, 100))
def test_backoff_jitters_between_half_the_ceiling_and_the_ceiling(failures, first, cap):
    """The wait doubles up to the cap, never below its half, and never overflows."""
    ceiling = min(cap, first * 2 ** (min(max(failures, 1), 30) - 1))

    assert ceiling / 2 <= backoff(failures, first=first, cap=cap) <= ceiling


def test_backoff_differs_from_worker_to_worker():
    """A hundred workers do not come back in the same instant."""
    assert len({backoff(5) for _ in range(100)}) > 90

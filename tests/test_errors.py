"""The errors: one tree, as the module's docstring draws it."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from mousetrap import errors
from mousetrap.errors import CheckError, DeadlineExceeded, MousetrapError, UndecodableMessage

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, MousetrapError)
]


def test_errors_are_the_tree_in_the_docstring():
    """Each class is drawn once, below its base class."""
    drawn, ancestors = {}, []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"([ │├└─]*)([A-Z]\w+)(  |$)", line):
            depth = (len(found[1]) - 4) // 4
            drawn[found[2]] = ancestors[depth - 1] if depth else "Exception"
            ancestors[depth:] = [found[2]]

    assert drawn == {each.__name__: each.__bases__[0].__name__ for each in CLASSES}


def test_errors_that_are_builtin_errors_too_say_so_in_the_tree():
    """A bad setting is a ValueError too, and a deadline a TimeoutError."""
    for kind in CLASSES:
        builtin = {each.__name__ for each in (ValueError, TimeoutError) if issubclass(kind, each)}
        [line] = [
            line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in f"{line} "
        ]

        assert set(re.findall(r"\(also a (\w+)\)", line)) == builtin


@pytest.mark.parametrize("kind", [each for each in CLASSES if each is not errors.FailedItems])
def test_errors_have_the_text_they_were_made_with(kind):
    """No class loses its text, whatever its other base classes are."""
    assert str(kind("the queue is full")) == "the queue is full"


def test_failed_items_says_how_many():
    """It is made of the errors, not of a text."""
    error = errors.FailedItems({0: ValueError("no"), 3: KeyError("name")})

    assert str(error) == "2 of the messages of a batch failed"


def test_undecodable_message_says_where():
    """The byte where decoding stopped is in the message and on the error."""
    error = UndecodableMessage("not JSON", 7)

    assert str(error) == "not JSON at byte 7"
    assert (error.reason, error.offset) == ("not JSON", 7)


@pytest.mark.parametrize("kind", [errors.Reject, errors.ConnectionLost, errors.DeadlineExceeded])
def test_errors_can_be_pickled(kind):
    """An error can be sent from one process to another."""
    copy = pickle.loads(pickle.dumps(kind("no luck")))

    assert type(copy) is kind
    assert str(copy) == "no luck"


def test_check_errors_have_an_executed_copy_or_none():
    """`output` exists on each, also when there is no copy."""
    assert CheckError("no such notebook").output is None
    assert DeadlineExceeded("late").output is None

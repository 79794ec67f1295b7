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
    """The tree that people read is the tree that `except` knows."""
    drawn, ancestors = {}, []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"([ │├└─]*)([A-Z]\w+)(  |$)", line):
            depth = (len(found[1]) - 4) // 4
            drawn[found[2]] = ancestors[depth - 1] if depth else "Exception"
            ancestors[depth:] = [found[2]]

    assert drawn == {each.__name__: each.__bases__[0].__name__ for each in CLASSES}


def test_errors_that_are_builtin_kinds_too_say_so_in_the_tree():
    """A bad setting is a ValueError, and a deadline a TimeoutError, for those who expect that."""
    assert issubclass(errors.SettingsError, ValueError)
    assert issubclass(errors.ParameterError, ValueError)
    assert issubclass(errors.UndecodableMessage, ValueError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_say_what_they_were_told(kind):
    """No class swallows its message, whatever else it descends from."""
    assert str(kind("the queue is full")) == "the queue is full"


def test_undecodable_message_says_where():
    """The byte where decoding stopped is in the message and on the error."""
    error = UndecodableMessage("not JSON", 7)

    assert str(error) == "not JSON at byte 7"
    assert (error.reason, error.offset) == ("not JSON", 7)


@pytest.mark.parametrize("kind", [errors.Reject, errors.ConnectionLost, errors.DeadlineExceeded])
def test_errors_can_be_pickled(kind):
    """An error can come back from another process."""
    copy = pickle.loads(pickle.dumps(kind("no luck")))

    assert type(copy) is kind
    assert str(copy) == "no luck"


def test_check_errors_have_room_for_the_executed_copy():
    """Whoever catches one can ask for the copy, also when there is none."""
    assert CheckError("no such notebook").output is None
    assert DeadlineExceeded("late").output is None

"""Handlers: with which argument a function is called, and which outputs its result becomes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mousetrap import stage
from mousetrap.errors import UndecodableMessage
from mousetrap.model.message import Message
from mousetrap.worker.handler import Handler
from mousetrap.worker.worker import Worker


@dataclass(frozen=True)
class Job:
    seed: int
    name: str = ""


def of_job(job: Job) -> int:
    return job.seed


def of_anything(data):
    return data


def of_message(message: Message) -> str:
    return message.id


def of_default(n: int = 5) -> int:
    return n


def of_nothing() -> int:
    return 1


def of_many(*data: int) -> int:
    return len(data)


def countdown(n: int) -> Iterator[int]:
    while n:
        yield n
        n -= 1
    raise ValueError("half-way")


async def later(n: int) -> int:
    return n


class Callable:
    def __call__(self, n: int) -> int:
        return n


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "body", "arguments"),
    [
        (of_job, b'{"seed": 3}', (Job(3),)),
        (of_anything, b'{"seed": 3}', ({"seed": 3},)),
        (of_anything, b"null", (None,)),
        (of_default, b"7", (7,)),
        (of_default, b"", ()),
        (of_nothing, b"", ()),
        (of_nothing, b"7", ()),
        (of_many, b"7", (7,)),
        (of_many, b"", ()),
        (later, b"7", (7,)),
        (Callable(), b"7", (7,)),
        (functools.partial(pow, exp=2), b"7", (7,)),
    ],
)
def test_arguments_are_the_data_or_none(function, body, arguments):
    """The data has the annotated type; an empty body calls the function without an argument."""
    assert Handler(function).arguments(Message(body=body)) == arguments


def test_arguments_are_the_message_where_it_is_annotated():
    """The body is not decoded then, and may be anything."""
    message = Message(body=b"\xff")

    assert Handler(of_message).arguments(message) == (message,)


@pytest.mark.parametrize(
    ("function", "body", "reason"),
    [
        (of_job, b"", "empty body, but of_job needs data"),
        (of_job, b"{", "not JSON"),
        (of_job, b'{"seed": "3"}', "wrong type"),
        (of_anything, b"\xff", "not"),
    ],
)
def test_arguments_refuse_a_body_that_cannot_be_read(function, body, reason):
    """The error says why; such a message is dead-lettered without a retry."""
    with pytest.raises(UndecodableMessage, match=reason):
        Handler(function).arguments(Message(body=body))


@pytest.mark.parametrize(
    ("function", "parameters"),
    [(lambda a, b: (a, b), "b"), (lambda *, a: a, "a"), (lambda a, *, b: (a, b), "b")],
)
def test_function_that_cannot_be_called_with_one_argument_is_refused(function, parameters):
    """The error names the parameters that need a default."""
    with pytest.raises(TypeError, match=f"give {parameters} a default"):
        Handler(function)


# ---- outputs -------------------------------------------------------------------------------------


def test_outputs_of_a_value_of_none_and_of_a_generator():
    """A value is one output, None is none, and a generator's values are one each."""
    handler, message = Handler(of_anything), Message(1)
    outputs = {
        name: [each.data for each in handler.outputs(result, message)]
        for name, result in (("value", [1, 2]), ("none", None), ("some", (n for n in range(3))))
    }

    assert outputs == {"value": [[1, 2]], "none": [], "some": [0, 1, 2]}


def test_outputs_have_the_same_ids_at_each_attempt():
    """The ids depend on the message, the handler's name and the place among the outputs."""
    message = Message(1)
    first, again, other = (
        [each.id for each in Handler(of_anything, name).outputs(iter_of(2), message)]
        for name in ("a", "a", "b")
    )

    assert first == again
    assert len({*first, *other}) == 4


def iter_of(n):
    yield from range(n)


def test_outputs_of_a_generator_that_raises_are_none():
    """The error is raised before any output can be sent."""
    with pytest.raises(ValueError, match="half-way"):
        Handler(countdown).outputs(countdown(2), Message(1))


def test_outputs_are_encoded_at_once():
    """What cannot be JSON is an error of the handler, not of the publisher later."""
    with pytest.raises(TypeError):
        Handler(of_anything).outputs(object(), Message(1))


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name", "shown"),
    [
        (of_job, "of_job", "<Handler of_job(Job)>"),
        (later, "later", "<Handler later(int) async>"),
        (Callable(), "Callable", "<Handler Callable(int)>"),
        (of_anything, "of_anything", "<Handler of_anything(Any)>"),
    ],
)
def test_handler_has_the_name_of_its_function(function, name, shown):
    """An object that can be called has the name of its class."""
    handler = Handler(function)

    assert (handler.name, repr(handler)) == (name, shown)
    assert handler.is_async is (function is later)


@pytest.mark.parametrize(
    "use", [Handler, lambda each: Worker("other", each), lambda each: stage("other")(each)]
)
def test_a_stage_is_no_handler(use):
    """Its queue, its name, its time limit and its retry delays would be lost without a word."""

    @stage("work", writes="out", retry_delays=(7.0,), timeout=2.0)
    def work(n: int) -> int:
        return n

    with pytest.raises(TypeError, match=r"work is a stage .* \.function"):
        use(work)

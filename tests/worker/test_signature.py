"""Signatures: a function that cannot take the data is refused where it is defined."""

from __future__ import annotations

import asyncio
import functools
import sys
import types
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import pydantic
import pytest
from support.callables import AWAITED, KNOWN_ASYNC, REFUSED, TAKES, take_seen, with_wraps

from mousetrap import Queue, Worker, consume, stage
from mousetrap.cli.find_stage import find_stage
from mousetrap.errors import SettingsError, UndecodableMessage
from mousetrap.model.message import Message
from mousetrap.notebook import registry
from mousetrap.worker.handler import Handler

if TYPE_CHECKING:
    pass

SEVEN = Message(body=b"7")


@dataclass(frozen=True)
class Job:
    seed: int


@dataclass(frozen=True)
class Other:
    seed: int


class Model(pydantic.BaseModel, arbitrary_types_allowed=True):
    seed: asyncio.Lock


def of_job(job: Job, scale: int = 1) -> Job:
    return job


def called(handler, message):
    """Call *handler* as a worker does, and return the data of its outputs."""
    if handler.is_async:
        outputs = asyncio.run(handler.call_async(message))
    else:
        outputs = handler.call(message)
    return [each.data for each in outputs]


# ---- which functions -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKES)
def test_function_that_takes_the_data_gets_exactly_the_data(name):
    """Once, decoded, and as its first argument."""
    take_seen()
    called(Handler(TAKES[name]), SEVEN)

    assert take_seen() == [7]


@pytest.mark.parametrize("name", REFUSED)
def test_function_that_cannot_take_the_data_is_refused(name):
    """Where it is defined, with a sentence that says what to do."""
    function, reason = REFUSED[name]

    with pytest.raises(TypeError, match=reason):
        Handler(function)


@pytest.mark.parametrize("name", AWAITED)
def test_result_that_must_be_awaited_is_awaited(name):
    """Its value is the output, and Python warns of no coroutine that was never awaited."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handler = Handler(AWAITED[name])

        assert called(handler, SEVEN) == [14]
    assert handler.is_async is (name in KNOWN_ASYNC)


def refuse_by_decorator(function, settings):
    stage(reads="work", writes="out")(function)


def refuse_by_worker(function, settings):
    Worker("work", function, settings)


def refuse_by_consume(function, settings):
    consume("work", function, settings)


def refuse_by_swap(function, settings):
    Worker("work", lambda data: data, settings).swap(function)


def refuse_by_command_line(function, settings):
    module = types.ModuleType("module_of_test_signature")
    module.function = function
    sys.modules[module.__name__] = module
    try:
        find_stage(f"{module.__name__}:function", "work", None)
    except SettingsError as error:
        raise TypeError(str(error)) from error
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    "way",
    [refuse_by_decorator, refuse_by_worker, refuse_by_consume, refuse_by_swap,
     refuse_by_command_line],
)  # fmt: skip
def test_every_way_to_define_a_handler_refuses_the_same(way, settings):
    """Before a connection is opened, and with the same text."""
    silent = settings.replace(host="127.0.0.1", port=1)
    for function, reason in REFUSED.values():
        if way is refuse_by_command_line and not callable(function):
            continue  # it says in its own words that this is no function
        with pytest.raises(TypeError, match=reason):
            way(function, silent)

    assert registry.handles() == []


def test_function_without_a_parameter_is_called_and_says_once_that_it_reads_no_data(caplog):
    """It is a trigger: each message calls it, and a warning says that data is not read."""
    calls = []

    def trigger():
        calls.append(1)

    handler = Handler(trigger)
    called(handler, Message(body=b""))
    assert caplog.messages == []
    called(handler, SEVEN)
    called(handler, SEVEN)

    assert len(calls) == 3
    [line] = caplog.messages
    assert "trigger has no parameter" in line
    assert "the data in them is not read" in line


# ---- the type of the data ------------------------------------------------------------------------


class Methods:
    def method(self, job: Job) -> Job:
        return job

    @staticmethod
    def static(job: Job) -> Job:
        return job

    def __call__(self, job: Job) -> Job:
        return job


@dataclass
class Wrapped:
    job: Job


JOB = Message(body=b'{"seed": 3}')
TYPED = {
    "function": of_job,
    "partial": functools.partial(of_job, scale=2),
    "partial of partial": functools.partial(functools.partial(of_job), scale=2),
    "method": Methods().method,
    "partial of a method": functools.partial(Methods.method, Methods()),
    "object": Methods(),
    "staticmethod object": vars(Methods)["static"],
    "decorated": with_wraps(of_job),
    "decorated partial": functools.partial(with_wraps(of_job), scale=1),
}


@pytest.mark.parametrize("name", TYPED)
def test_type_is_found_behind_partials_methods_and_decorators(name):
    """The data is decoded to the annotated type, not to plain values."""
    handler = Handler(TYPED[name])

    assert handler.arguments(JOB) == (Job(3),)
    with pytest.raises(UndecodableMessage, match="wrong type"):
        handler.arguments(Message(body=b'{"seed": "x"}'))


def test_type_of_a_class_is_that_of_its_first_field():
    """A dataclass as a handler gets its field decoded."""
    assert Handler(Wrapped).arguments(JOB) == (Job(3),)


def test_constraints_of_a_type_are_checked():
    """`Annotated` with `msgspec.Meta` is more than its plain type."""

    def positive(n: Annotated[int, msgspec.Meta(ge=1)]) -> int:
        return n

    assert Handler(positive).arguments(SEVEN) == (7,)
    with pytest.raises(UndecodableMessage, match="wrong type: Expected `int` >= 1"):
        Handler(positive).arguments(Message(body=b"0"))


def test_type_that_is_local_to_a_function_is_found():
    """A class inside the function that defines the stage is in no module."""

    @dataclass(frozen=True)
    class Local:
        seed: int

    def of_local(local: Local) -> None: ...

    assert Handler(of_local).arguments(JOB) == (Local(3),)


def test_return_type_that_cannot_be_evaluated_does_not_matter():
    """Only the parameter's annotation is evaluated, so the data is validated all the same."""

    def of_int(n: int) -> Missing:  # noqa: F821 -- it cannot be evaluated, which is the subject
        return n

    with pytest.raises(UndecodableMessage, match="wrong type"):
        Handler(of_int).arguments(JOB)


@pytest.mark.parametrize("annotation", [Message, Message | None, Annotated[Message, "words"]])
def test_message_is_passed_where_it_is_annotated(annotation):
    """The body is not decoded then."""

    def of_message(message):
        return message.id

    of_message.__annotations__["message"] = annotation
    broken = Message(body=b"{")

    assert Handler(of_message).arguments(broken) == (broken,)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Model, "is annotated Model, and no JSON value can become Lock, which pydantic only takes"),
        ("list[Model]", r"is annotated list\[.*Model\], and no JSON value can become Lock"),
        ("Job | Other", "is annotated .*Job | .*Other, and JSON cannot say which of Job and Other"),
        (asyncio.Lock, "no JSON value can become Lock"),
        ("Decimal", "cannot be evaluated .*'Decimal' is not defined.*TYPE_CHECKING"),
        ("list[Missing]", "cannot be evaluated .*'Missing' is not defined"),
        ("1 +", "cannot be evaluated .*SyntaxError"),
        ("Message | Job", "JSON cannot be decoded to it"),
        ("asyncio", "JSON cannot be decoded to it"),
    ],
)
@pytest.mark.parametrize(
    "define", [Handler, stage(reads="work"), functools.partial(Worker, "work")]
)
def test_type_that_no_body_can_become_is_refused(define, annotation, reason):
    """Where the function is defined, and not once for each message; the text says what to use."""

    def of_type(data):
        return data

    of_type.__annotations__["data"] = annotation

    with pytest.raises(TypeError, match=f"^of_type cannot handle messages: .*{reason}"):
        define(of_type)


def test_type_that_is_refused_leaves_the_handler_that_runs(settings):
    """`swap` raises, and the worker keeps its function."""

    def of_model(model: Model) -> None: ...

    worker = Worker(Queue("work"), of_job, settings)
    with pytest.raises(TypeError, match="pydantic"):
        worker.swap(of_model)

    assert worker.handler.function is of_job

"""A stage is still a plain function; a handler decodes what it reads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mousetrap import Stage, stage
from mousetrap.errors import SettingsError, UndecodableMessage
from mousetrap.job_queue import drain
from mousetrap.model.message import Message
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.start_fetch import FetchJob, start_fetch
from mousetrap.worker.handler import Handler


@dataclass
class Point:
    x: float
    y: float = 0.0


@stage(reads="points", writes="sums", retry_delays=(0.1,), concurrency=3)
def add(point: Point) -> float:
    """Add the coordinates."""
    return point.x + point.y


def test_calling_a_stage_is_calling_its_function():
    """Without a broker and without decoding; name and docstring are the function's."""
    assert isinstance(add, Stage)
    assert add(Point(1, 2)) == 3
    assert add.__name__ == "add"
    assert add.__doc__ == "Add the coordinates."
    assert repr(add) == "<Stage points → add → sums, concurrency 3>"


def test_stages_compose_without_a_broker():
    """The pipeline works as plain calls."""
    summary = process(fetch(FetchJob(seed=1, places=5)))

    assert summary.places == 5


def test_stage_starts_a_worker_in_the_background(settings):
    """`start` consumes until it is stopped; the `with` block stops it."""
    with add.start(settings) as worker:
        from mousetrap.amqp.publisher import Publisher

        with Publisher(settings) as publisher:
            publisher.publish(Message({"x": 1, "y": 2}), "points").wait()
        worker.wait_until(done=1)

    assert [m.data for m in drain("sums", settings=settings)] == [3.0]
    assert worker.concurrency == 3


def test_start_fetch_triggers_the_pipeline(settings):
    """One call sends one job, and its result carries the job's id."""
    with fetch.start(settings), process.start(settings):
        job = start_fetch(FetchJob(seed=5), settings)
        [result] = drain("results", 1, timeout=10, settings=settings)

    assert result.job == job
    assert result.data == {
        "places": 10,
        "most_northerly": list(process(fetch(FetchJob(seed=5))).most_northerly),
        "centroid": pytest.approx(list(process(fetch(FetchJob(seed=5))).centroid)),
    }


def test_stage_refuses_impossible_queues():
    """A bad name or delay is an error at the decorator, not when a message fails."""
    with pytest.raises(SettingsError, match="empty"):
        stage(reads="")(lambda data: data)
    with pytest.raises(SettingsError, match="retry delay"):
        stage(reads="x", retry_delays=(0,))(lambda data: data)


def needs_two(a, b): ...


def keyword_only(*, a): ...


@pytest.mark.parametrize("function", [needs_two, keyword_only])
def test_handler_refuses_functions_it_cannot_call(function):
    """The error names the parameters that need a default."""
    with pytest.raises(TypeError, match="default"):
        Handler(function)


def no_data():
    return 1


def with_default(job: FetchJob = FetchJob()):  # noqa: B008 -- frozen
    return job


def whole_message(message: Message):
    return message.id


@pytest.mark.parametrize(
    ("function", "body", "expected"),
    [
        (no_data, b'{"ignored": 1}', ()),
        (no_data, b"", ()),
        (with_default, b"", ()),
        (with_default, b'{"seed": 3}', (FetchJob(seed=3),)),
        (lambda data: data, b"[1]", ([1],)),
        (lambda *data: data, b"[1]", ([1],)),
    ],
)
def test_handler_decodes_to_the_annotated_type(function, body, expected):
    """The first parameter's annotation is the schema; an empty body means the default."""
    assert Handler(function).arguments(Message(body=body)) == expected


def test_handler_passes_the_message_itself_when_asked():
    """A parameter annotated `Message` gets the whole message, not decoded."""
    message = Message(body=b"{bad")

    assert Handler(whole_message).arguments(message) == (message,)


def test_handler_refuses_an_empty_body_where_data_is_needed():
    """An empty body is not None: a function without a default cannot be called."""
    with pytest.raises(UndecodableMessage, match="empty body"):
        Handler(add.function).arguments(Message(body=b""))

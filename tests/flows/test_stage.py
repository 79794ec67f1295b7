"""A stage is still a plain function; a handler decodes what it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from mousetrap import Batch, Queue, Recording, Send, Settings, Stage, consume, run, send, stage
from mousetrap.cli.find_stage import find_stage
from mousetrap.errors import SettingsError, UndecodableMessage
from mousetrap.flows.flow import Flow, reference
from mousetrap.flows.stage import OPTIONS
from mousetrap.job_queue import drain
from mousetrap.model.message import Message
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.sink.results_sink import with_results_sink
from mousetrap.start_fetch import FetchJob, start_fetch
from mousetrap.worker.handler import Handler
from mousetrap.worker.supervisor import Supervisor


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

    assert summary["places"] == 5


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
        "most_northerly": process(fetch(FetchJob(seed=5)))["most_northerly"],
        "centroid": pytest.approx(process(fetch(FetchJob(seed=5)))["centroid"]),
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


# ---- all attributes, in every way to start a stage -----------------------------------------------

DELAYS = (0.25, 3.5)


@stage(
    reads="points", writes="results", routes=["errors", "late"], retry_delays=DELAYS,
    concurrency=3, prefetch=7, timeout=45, batch=Batch(2),
)  # fmt: skip
def scale(numbers: list[int]) -> list[int]:
    return [2 * n for n in numbers]


def attributes_of(worker):
    return {
        "queue": worker.queue, "routes": worker.targets.routes, "concurrency": worker.concurrency,
        "prefetch": worker.prefetch, "name": worker.handler.name, "batch": worker.handler.batch,
        "joins": worker.handler.joins,
        **{each: getattr(worker, each) for each in OPTIONS if hasattr(worker, each)},
    }  # fmt: skip


def by_worker(settings, tmp_path):
    return scale.worker(settings)


def by_start(settings, tmp_path):
    return scale.start(settings)


def by_consume_of_its_queue(settings, tmp_path):
    return consume(scale.queue, scale, settings).worker


def by_consume_of_a_name(settings, tmp_path):
    return consume("points", scale, settings).worker


def by_run(settings, tmp_path):
    with run(scale, settings) as running:
        return running.workers[0]


def by_flow(settings, tmp_path):
    return Flow(Flow([scale])).stages[0].worker(settings)


def by_command_line(settings, tmp_path):
    return with_results_sink(find_stage(reference(scale), None, None)).worker(settings)


def by_command_line_with_sink(settings, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_SINK", str(tmp_path / "results.db"))
        found = with_results_sink(find_stage(reference(scale), None, None))
    assert found is not scale
    return found.worker(settings)


def by_replace(settings, tmp_path):
    return scale.replace(function=lambda n: scale.function(n)).worker(settings)


@pytest.mark.parametrize(
    "way",
    [by_worker, by_start, by_consume_of_its_queue, by_consume_of_a_name, by_run, by_flow,
     by_command_line, by_command_line_with_sink, by_replace],
)  # fmt: skip
def test_worker_has_all_attributes_of_its_stage(way, settings, tmp_path):
    """However a stage is started, nothing that its decorator says is dropped on the way."""
    worker = way(settings, tmp_path)
    try:
        found = attributes_of(worker)
    finally:
        worker.stop()

    assert found == {"name": "scale", **scale.options}
    assert scale.options == {
        **scale.options, "queue": Queue("points", DELAYS), "writes": "results", "concurrency": 3,
        "prefetch": 7, "timeout": 45, "routes": ("errors", "late"), "batch": Batch(2),
    }  # fmt: skip


def test_worker_process_has_all_attributes_of_its_stage():
    """The command of a worker process names the stage, and only what replaces its attributes."""
    options = {"concurrency": None, "prefetch": 9, "retry_delays": [0.5, 1]}
    supervisor = Supervisor.of({"scale": reference(scale)}, 1, Settings(), options)

    assert supervisor._options == ["--prefetch", "9", "--retry-delays", "0.5,1"]


def test_consume_of_a_stage_takes_what_is_given_in_place_of_its_attributes(settings):
    """Only the arguments that are given; another queue keeps the stage's retry delays."""
    other = consume("other", scale, settings, concurrency=2)
    given = consume(Queue("points", (9.0,)), scale, settings, writes="out")
    delays = consume("third", scale, settings, retry_delays=())
    for each in (other, given, delays):
        each.stop()

    assert attributes_of(other.worker) == {
        "name": "scale", **scale.options, "queue": Queue("other", DELAYS), "concurrency": 2,
    }  # fmt: skip
    assert given.worker.queue == Queue("points", (9.0,))
    assert (given.worker.writes, given.worker.prefetch) == ("out", 7)
    assert delays.worker.queue == Queue("third", ())


def test_stage_with_a_queue_and_retry_delays_has_those_delays():
    """An explicit argument is not dropped because the queue has retry delays of its own."""
    both = stage(reads=Queue("points", (1.0,)), retry_delays=DELAYS)(lambda n: n)
    queue = stage(reads=Queue("points", (1.0,)))(lambda n: n)

    assert both.queue.retry_delays == DELAYS
    assert queue.queue.retry_delays == (1.0,)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"reads": 5}, SettingsError, "give the name of a queue"),
        ({"writes": 5}, SettingsError, "writes names 5, which is no target"),
        ({"writes": ["out", "out"]}, SettingsError, "'out' is named twice"),
        ({"routes": ["out", ""]}, SettingsError, "queue name '' is empty"),
        ({"writes": ""}, SettingsError, "queue name '' is empty"),
        ({"concurrency": 0}, ValueError, "concurrency must be at least 1"),
        ({"prefetch": 0}, ValueError, "prefetch lie in"),
        ({"prefetch": 70_000}, ValueError, "prefetch lie in"),
    ],
)
def test_stage_refuses_attributes_that_no_worker_can_have(options, error, reason):
    """Where the stage is defined, not when its worker starts."""
    with pytest.raises(error, match=reason):
        stage(**{"reads": "points", **options})(lambda n: n)


def test_worker_of_a_stage_refuses_zero():
    """A 0 is a wrong value, and not the same as no value."""
    with pytest.raises(ValueError, match="concurrency"):
        scale.worker(concurrency=0)
    with pytest.raises(ValueError, match="prefetch"):
        scale.worker(prefetch=0)


# Computed by the version before stages could have several targets.
IDS = json.loads(Path(__file__).with_name("output_ids.json").read_text())


@stage(reads="words", writes="lengths")
def one(word: str) -> int:
    return len(word)


@stage(reads="words", writes=["letters", "copies"], routes=["long"])
def many(word: str):
    for letter in word:
        send("archive", letter)
        yield letter
    send("words", word)
    yield Send(word, to="long")


@stage(reads="words", writes=["out"], routes=["errors"], name="old")
def renamed(word: str) -> Send:
    return Send(word, priority=1)


@pytest.mark.parametrize("row", IDS, ids=lambda row: f"{row['stage']} {row['id']}")
def test_ids_of_outputs_stay_what_they_were(row):
    """Also with a further target, a route or a priority: a rolling deploy stores nothing twice."""
    [bound] = [each for each in (one, many, renamed) if each.name == row["stage"]]
    message = Message("trap" if row["id"] == "m1" else "mouse", id=row["id"])
    found = [[each.message.id, each.target] for each in bound.outputs(message)]

    assert [each for each in found if each[1] not in ("copies", "long")] == row["outputs"]
    assert len({id for id, _ in found}) == len(found)


def ids_of(bound):
    return [each.id for each in bound.handle(Message(3, id="m"))]


def test_a_renamed_function_keeps_the_ids_of_its_outputs_by_name():
    """With the old name, returned and sent outputs keep their ids."""

    def fetch(n: int) -> int:
        send("side", n)
        return n

    def fetch_places(n: int) -> int:
        return fetch(n)

    before = stage(reads="points", writes="out")(fetch)
    renamed = stage(reads="points", writes="out")(fetch_places)
    named = stage(reads="points", writes="out", name="fetch")(fetch_places)

    assert ids_of(named) == ids_of(before)
    assert not set(ids_of(renamed)) & set(ids_of(before))


def test_name_of_a_stage_is_in_workers_runs_consumers_and_recordings(settings, tmp_path):
    """Everything that names a stage uses its name, and not its function's."""

    @stage(reads="points", writes="out", name="old_name")
    def new_name(n: int) -> int:
        return n

    with run(new_name, settings, keep_bodies=100) as points:
        points.send(3)
        summary = points.settle(timeout=20)
        [result] = points.results()
        recording = Recording.load(points.save(tmp_path / "run.jsonl"))
    handle = consume("points", new_name, settings)
    handle.stop()

    assert list(summary.stages) == ["old_name"]
    assert result.id == Message(3, id=result.parent).child(3, "old_name", 0).id
    assert list(recording.differences(recording.replay(new_name))) == []
    assert handle.worker.handler.name == "old_name"
    assert new_name.replace(queue=Queue("other")).name == "old_name"
    assert new_name.replace(queue=Queue("other")).handler.name == "old_name"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", 5])
def test_stage_refuses_a_name_that_is_none(name):
    """An empty name would mean the function's, and a control character confuses people."""
    with pytest.raises(SettingsError, match="of a stage"):
        stage(reads="points", name=name)(lambda n: n)

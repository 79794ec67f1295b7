"""`send` sends one value or many, and returns what happened to each message."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest

import mousetrap
from mousetrap import Message, declare, depth, drain, peek, stage
from mousetrap.display.progress import ProgressDisplay
from mousetrap.errors import BrokerUnreachable, Unroutable
from mousetrap.flows.send import send
from mousetrap.model.topology import Queue


@dataclasses.dataclass
class Point:
    x: int


class Pair(msgspec.Struct):
    a: int
    b: str


class Corner(NamedTuple):
    x: int
    y: int


class Model:
    """Has the part of a pydantic model that matters here; it is iterable, too."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def model_dump(self, *, mode: str) -> dict[str, int]:
        assert mode == "json"
        return {"seed": self.seed}

    def __iter__(self):
        yield ("seed", self.seed)


@pytest.fixture
def work(settings):
    declare("work", settings=settings)
    return settings


def arrived(settings):
    return [message.data for message in drain("work", settings=settings)]


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, None), (7, 7), ("text", "text"), ({"a": [1]}, {"a": [1]}), ([[1, 2]], [1, 2]),
        (Corner(1, 2), [1, 2]), (Point(3), {"x": 3}), (Pair(1, "b"), {"a": 1, "b": "b"}),
        (Model(5), {"seed": 5}), ({"in": Model(6)}, {"in": {"seed": 6}}),
        (b'{"raw":1}', {"raw": 1}),
    ],
)  # fmt: skip
def test_send_takes_one_value_as_one_message(work, value, body):
    """Also dataclasses, structs, pydantic models, named tuples, and a list in a list."""
    sent = send("work", value, settings=work)

    assert sent.counts == {"confirmed": 1}
    assert arrived(work) == [body]


@pytest.mark.parametrize(
    "values",
    [[0, 1, 2], (0, 1, 2), range(3), (n for n in range(3)), {0: "a", 1: "b", 2: "c"}.keys()],
    ids=["list", "tuple", "range", "generator", "keys"],
)
def test_send_sends_a_message_for_each_value_of_an_iterable(work, values):
    """The messages are in order, each with its own id."""
    sent = send("work", values, settings=work)

    assert len(sent) == len(set(sent.ids)) == 3
    assert arrived(work) == [0, 1, 2]


def test_send_repeats_the_data_count_times(work):
    """Each message has its own id; a generator is read once."""
    sent = send("work", (n for n in (1, 2)), count=2, settings=work)

    assert len(set(sent.ids)) == 4
    assert arrived(work) == [1, 2, 1, 2]


def test_send_sends_a_message_as_it_is_and_only_once(work):
    """Two messages with one id would count as one wherever ids are compared."""
    message = Message(1, id="mine")

    assert send("work", message, settings=work).ids == ["mine"]
    with pytest.raises(ValueError, match="one id"):
        send("work", message, count=2, settings=work)


def test_send_knows_the_queue_of_a_stage(work):
    """It takes a stage, a queue or a name."""

    @stage(reads="work")
    def handle(n: int) -> None: ...

    for target in (handle, Queue("work"), "work"):
        send(target, 1, settings=work)

    assert arrived(work) == [1, 1, 1]


def test_send_sums_up(work):
    """The result says how many messages, how fast, and to which queue."""
    assert repr(send("work", range(1000), settings=work)).startswith("1,000 confirmed in ")
    assert "1,000 confirmed" in send("work", range(1000), settings=work)._repr_html_()
    assert repr(send("work", [], settings=work)).startswith("nothing to send")


def test_send_reports_messages_that_are_not_confirmed(settings, caplog):
    """The queue does not exist: the result and the log say so, and what to do."""
    with caplog.at_level(logging.WARNING, "mousetrap.flows.send"):
        sent = send("nowhere", range(3), settings=settings)

    assert sent.counts == {"returned": 3}
    assert isinstance(sent.error, Unroutable)
    for said in (repr(sent), sent._repr_html_(), caplog.text):
        assert "3 of 3 messages not confirmed: 3 returned in " in said
        assert "declare it" in said
        assert "job_queue.declare(" in said


def test_send_says_what_to_call_after_a_failure(settings, monkeypatch):
    """Both calls work as they are: the queue is declared, and what failed is sent, nothing else."""
    sent = send("later", range(3), settings=settings)
    for variable, value in settings.to_environment().items():
        monkeypatch.setenv(variable, value)

    assert repr(sent).startswith("3 of 3 messages not confirmed: ")
    for call in repr(sent).splitlines()[-1].removeprefix("Next: ").split(" · "):
        eval(call, {"mousetrap": mousetrap, "_": sent})

    assert [each.data for each in peek("later", settings=settings)] == [0, 1, 2]


def test_send_says_how_many_were_sent_before_a_bad_value(work):
    """The values before it are sent; a note on the error has their number."""
    values = (object() if n == 600 else n for n in range(700))

    with pytest.raises(TypeError, match="JSON cannot represent object") as raised:
        send("work", values, settings=work)

    [note] = raised.value.__notes__
    assert "so far: 600" in note
    assert len(arrived(work)) == len(raised.value.receipts) == 600


def test_send_ends_at_once_when_it_is_interrupted(work):
    """Ctrl-C between two messages: a note has the number sent; it does not wait for confirms."""

    def values():
        yield from range(600)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        send("work", values(), settings=work)

    assert "so far: 600" in raised.value.__notes__[0]
    assert [thread.name for thread in threading.enumerate() if "send" in thread.name] == []


def test_send_shows_its_progress_and_does_not_write_the_file_of_a_run(work, monkeypatch, tmp_path):
    """A line for people after two seconds; the progress file of a check is for runs only."""
    monkeypatch.setenv("MOUSETRAP_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr("mousetrap.display.progress.SHOWN_AFTER", 0.0)
    monkeypatch.setattr("mousetrap.display.progress.UPDATE_INTERVAL", 0.0)
    lines = []
    monkeypatch.setattr(ProgressDisplay, "show", lambda _, rows: lines.extend(map(str, rows)))

    send("work", range(1000), settings=work)

    assert lines[-1] == "work: 1,000 of 1,000 answered for"
    assert len(lines) > 3
    assert not (tmp_path / "progress.json").exists()


def test_send_without_a_broker_says_what_to_check(settings):
    """The error is that of the connection, and nothing is left behind."""
    with pytest.raises(BrokerUnreachable, match="RABBITMQ_PORT"):
        send("work", 1, settings=settings.replace(port=1, connect_timeout=0.5))


def test_send_sends_pydantic_models_as_their_fields(work):
    """With pydantic itself, if it is installed."""
    pydantic = pytest.importorskip("pydantic")

    class Job(pydantic.BaseModel):
        seed: int
        at: float = 0.5

    send("work", [Job(seed=1), [Job(seed=2)]], settings=work)

    assert arrived(work) == [{"seed": 1, "at": 0.5}, [{"seed": 2, "at": 0.5}]]
    assert json.loads(Message(Job(seed=3)).body) == {"seed": 3, "at": 0.5}


@pytest.mark.parametrize("frame", [pd.DataFrame({"a": [1]}), pd.Series([1]), np.array([1])])
def test_send_does_not_send_the_pieces_of_one_value(settings, frame):
    """A data frame would give its column names; the error says how to send its rows."""
    declare("frames", settings=settings)

    with pytest.raises(TypeError, match=r"as value\.to"):
        send("frames", frame, settings=settings)

    assert depth("frames", settings).messages == 0

"""The record of the queues that mousetrap has declared, in a file that a variable names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mousetrap import Message, Publisher, Queue, Worker, declare, open_channel
from mousetrap.amqp import declared_queues


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """The file to which the names of declared queues are appended."""
    path = tmp_path / "declared"
    monkeypatch.setenv(declared_queues.DECLARED_VARIABLE, str(path))
    return path


def test_note_writes_nothing_without_the_variable(tmp_path, monkeypatch):
    """No file is made anywhere."""
    monkeypatch.delenv(declared_queues.DECLARED_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)

    declared_queues.note("words")

    assert list(tmp_path.iterdir()) == []


def test_note_writes_each_name_once(notes):
    """Declaring again, as after a reconnect, adds no line."""
    for name in ("words", "words.dead", "words"):
        declared_queues.note(name)

    assert notes.read_text() == "words\nwords.dead\n"


def test_note_writes_to_each_file_it_is_given(notes, tmp_path, monkeypatch):
    """Two tests of one process declare the same queue: it is in the files of both."""
    declared_queues.note("words")
    monkeypatch.setenv(declared_queues.DECLARED_VARIABLE, str(tmp_path / "second"))
    declared_queues.note("words")

    assert (
        declared_queues.names_in(notes)
        == declared_queues.names_in(tmp_path / "second")
        == ["words"]
    )


def test_note_ignores_a_file_that_cannot_be_written(monkeypatch, tmp_path):
    """A folder that is gone is no reason for a worker to fail."""
    monkeypatch.setenv(declared_queues.DECLARED_VARIABLE, str(tmp_path / "gone" / "declared"))

    declared_queues.note("words")


def test_names_in_a_file_of_several_processes_are_unique_and_in_order(notes):
    """Each process writes its own lines; a name may have any character but the line's end."""
    declared_queues.note("größe\u2028x")
    program = (
        "from mousetrap.amqp import declared_queues\n"
        "for name in ('b', 'größe\u2028x'): declared_queues.note(name)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)

    assert declared_queues.names_in(notes) == ["größe\u2028x", "b"]


def test_names_in_no_file_are_none(tmp_path):
    """Nothing was declared, so the file does not exist."""
    assert declared_queues.names_in(tmp_path / "declared") == []


def test_everything_that_declares_is_recorded(settings, notes):
    """`open_channel`, `declare`, publisher and worker: by the names on the wire."""
    wire_name = settings.topology.wire_name
    with open_channel(settings):
        pass
    declare(Queue("asked", (1.0,)), settings=settings)
    with Publisher(settings) as publisher:
        publisher.declare([settings.topology.work_queue("published")])
        publisher.publish(Message(1), "published").wait()
    with Worker(Queue("read", ()), lambda message: message, settings, writes="written"):
        pass

    names = declared_queues.names_in(notes)
    plain = {"start_fetch", "data_processing", "asked", "asked.retry.1s", "asked.dead",
             "published", "read", "read.quarantine", "written"}  # fmt: skip
    assert {wire_name(name) for name in plain} <= set(names)


def test_exchanges_are_noted_beside_the_queues(notes):
    """In a file of their own: what reads the queues would not find them."""
    for name in ("orders", "alarms", "orders"):
        declared_queues.note_exchange(name)
    declared_queues.note("words")

    assert declared_queues.exchanges_in(notes) == ["orders", "alarms"]
    assert declared_queues.names_in(notes) == ["words"]


DECLARED_HERE = {
    "start_fetch", "start_fetch.dead", "start_fetch.retry.5s", "results", "words",
    "run-1234abcd.start_fetch", "run-1234abcd.words", "run-99999999.start_fetch",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("start_fetsh", ["start_fetch"]),
        ("result", ["results"]),
        ("run-1234abcd.start_fetsh", ["run-1234abcd.start_fetch"]),
        ("run-1234abcd.numbers", []),  # the same namespace alone is no similarity
        ("payments", []),
    ],
)
def test_similar_names_are_near_and_in_the_same_namespace(monkeypatch, name, suggested):
    """Neither a queue of another run, nor one that is merely there."""
    monkeypatch.setattr(declared_queues, "_declared_here", DECLARED_HERE)

    assert declared_queues.similar_names(name) == suggested

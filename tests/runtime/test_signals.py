"""Worker processes: they stop at a signal, end with their parent, and say why they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.worker.supervisor import Supervisor

PROGRAM = """
import os, sys, threading
from mousetrap import Worker
from mousetrap.runtime.signals import run_until_signalled

def slow(seconds: float) -> float:
    os.write(1, b"begun\\n")  # in one piece, beside the main thread's lines
    threading.Event().wait(seconds)
    return seconds

worker = Worker("work", slow, writes="out")
run_until_signalled(
    worker, stop_timeout=10, with_parent="--with-parent" in sys.argv,
    on_started=lambda: os.write(1, b"started\\n"),
    on_stopping=lambda: os.write(1, b"stopping\\n"),
)
os.write(1, b"ended\\n")
"""


@pytest.fixture
def run(settings):
    """Start `PROGRAM`; it is killed at the end of the test."""
    running = []

    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=os.environ | settings.to_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait(timeout=10)


def send(settings, *data):
    declare(Queue("work"), settings=settings)
    with Publisher(settings) as publisher:
        for receipt in publisher.publish_many(map(Message, data), "work"):
            receipt.wait()


def wait_until_begun(process):
    """Return when the worker has started and its handler has begun, in either order."""
    assert {process.stdout.readline(), process.stdout.readline()} == {"begun\n", "started\n"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_message_in_progress(run, settings, number):
    """After one signal the message in progress is done, the others stay, and the exit code is 0."""
    send(settings, 0.7, 0.7, 0.7)
    process = run()
    wait_until_begun(process)

    process.send_signal(number)
    output, errors = process.communicate(timeout=10)

    assert process.returncode == 0, errors
    assert output == "stopping\nended\n"
    assert depth("out", settings).messages == 1
    assert depth("work", settings).messages == 2


def test_second_signal_ends_at_once(run, settings):
    """After two signals the process does not wait for the handler; its message is redelivered."""
    send(settings, 30)
    process = run()
    wait_until_begun(process)

    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=3) == 128 + signal.SIGTERM
    assert [m.data for m in drain("work", 1, timeout=10, settings=settings)] == [30]


def test_worker_ends_with_its_parent(run, settings):
    """With ``with_parent`` the worker stops when its standard input is closed."""
    send(settings, 0.1)
    process = run("--with-parent")
    wait_until_begun(process)

    process.stdin.close()

    assert process.wait(timeout=10) == 0


def test_worker_killed_in_the_handler_loses_nothing(run, settings):
    """After ``kill -9`` while a handler runs, another worker gets the message."""
    send(settings, 1.0)
    process = run()
    wait_until_begun(process)
    process.kill()

    other = run()
    wait_until_begun(other)
    [result] = drain("out", 1, timeout=10, settings=settings)

    assert result.data == 1.0


def test_processes_work_and_stop(settings):
    """Two processes share the work; after the block they have ended, and their queues stay."""
    declare("start_fetch", "data_processing", settings=settings)
    with Supervisor({"fetch": 2}, settings) as workers:
        with Publisher(settings) as publisher:
            publisher.publish_many((Message({"seed": n}) for n in range(20)), "start_fetch")
            publisher.flush()
        results = drain("data_processing", 20, timeout=20, settings=settings)
        workers.check()
        assert "fetch-1 running" in repr(workers)

    assert len(results) == 20
    assert repr(workers) == "<Supervisor none>"


def test_processes_say_which_one_ended(settings):
    """A worker that cannot start raises an error with its exit code."""
    with Supervisor({"no_such_stage": 1}, settings) as workers:
        [process] = workers._running.values()
        assert process.wait(timeout=10) != 0

        with pytest.raises(MousetrapError, match=r"no_such_stage-0 ended with exit code"):
            workers.check()

"""The workers of a run: on threads, in processes, or none."""

from __future__ import annotations

import signal
import threading

import pytest
from support.messages import existing_queues
from support.waiting import wait_for

import mousetrap
from mousetrap import stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.job_queue import declare
from mousetrap.model.message import Message
from mousetrap.run_fetch_worker import fetch
from mousetrap.runs.workers import RunWorkers
from mousetrap.worker.worker import Worker


@stage(reads="numbers", retry_delays=())
def fail(n: int) -> None:
    raise ValueError(f"no {n}")


def test_threads_are_one_worker_for_each_stage(settings):
    """It consumes until `stop`, and the exception of a handler is known by the message's id."""
    declare(fail.queue, settings=settings)
    workers = RunWorkers([fail], "threads", 1, settings, {"concurrency": 2})
    workers.start()
    try:
        with Publisher(settings) as publisher:
            publisher.publish(Message(7, id="a"), "numbers").wait()
        [worker] = workers.threads
        worker.wait_until(dead=1)
        workers.check()
        error = workers.exception("a")
    finally:
        workers.stop()

    assert str(error) == "no 7"
    assert workers.exception("b") is None
    assert workers.output() == []  # nothing is recorded outside a kernel
    assert not workers.have_messages
    assert worker.statistics().state == "closed"
    assert workers.processes is None


def test_check_raises_when_a_process_ended_by_itself(settings):
    """The error names the process."""
    workers = RunWorkers([fetch], "processes", {"fetch": 1}, settings, {})
    workers.start()
    try:
        workers.check()
        process = workers.processes._running["fetch-0"]
        process.kill()
        process.wait(10)
        with pytest.raises(MousetrapError, match="fetch-0"):
            workers.check()
    finally:
        workers.stop()

    assert workers.threads == []


def test_all_connections_of_a_run_share_one_io_thread(settings):
    """Those of its workers, too: a job causes fewer switches between threads."""
    before = set(threading.enumerate())
    with mousetrap.run([fetch, fail], settings) as run:
        started = [each.name for each in threading.enumerate() if each not in before]
        io_threads = [name for name in started if name.startswith("mousetrap-io")]
        assert len(run.workers) == 2
        assert io_threads == [f"mousetrap-io run {run.namespace}"]


def test_a_run_connects_side_by_side(settings, monkeypatch):
    """First to its outcomes and for its jobs, then all its workers: each pair waits for the other.

    One after the other, the first would wait for ever.
    """
    start, run = Worker.start, mousetrap.run([fetch, fail], settings)
    own, workers = threading.Barrier(2, timeout=20), threading.Barrier(2, timeout=20)
    monkeypatch.setattr(Worker, "start", lambda worker: (workers.wait(), start(worker)))
    for each in (run._events, run._sender.publisher):
        monkeypatch.setattr(each, "open", lambda do=each.open: (own.wait(), do()))

    with run:
        assert [each.statistics().state for each in run.workers] == ["open", "open"]


def test_an_interrupt_while_workers_start_leaves_none(settings, monkeypatch):
    """Ctrl-C ends the wait of the caller; what workers begin after they were stopped is closed."""

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def late(worker):
        try:
            begun.wait()
            assert go.wait(20)
            return start(worker)
        finally:
            ended.release()

    begun = threading.Barrier(2, action=interrupt, timeout=20)
    start, go, ended = Worker.start, threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(Worker, "start", late)
    run = mousetrap.run([fetch, fail], settings)
    with pytest.raises(KeyboardInterrupt):
        run.start()
    go.set()
    assert all(ended.acquire(timeout=20) for _ in run.workers)

    assert run.state == "closed"
    wait_for(lambda: f"mousetrap-io run {run.namespace}" not in thread_names())
    assert [each.statistics().state for each in run.workers] == ["closed", "closed"]
    assert existing_queues(run) == {}


def thread_names():
    return [each.name for each in threading.enumerate()]


def test_none_starts_no_worker(settings):
    """Workers that are started elsewhere are not checked here."""
    workers = RunWorkers([fail], "none", 1, settings, {})
    workers.start()
    workers.check()
    workers.stop()

    assert (workers.threads, workers.processes, workers.have_messages) == ([], None, False)


def test_processes_need_stages_that_another_process_can_import(settings):
    """A stage of this test function cannot be imported."""

    @stage(reads="here")
    def local(n: int) -> None: ...

    with pytest.raises(SettingsError, match="put it into a module"):
        RunWorkers([local], "processes", 1, settings, {})

"""``mousetrap work`` warns of other applications on its queue, and of messages left behind."""

from __future__ import annotations

import uuid

import pytest
from support.messages import send
from support.waiting import wait_for

from mousetrap import doctor, job_queue
from mousetrap.cli.work_warnings import WorkWarnings
from mousetrap.model.topology import Queue
from mousetrap.worker.discovery_messages import ConsumerInfo
from mousetrap.worker.worker import Worker


def parse(n: int) -> int:
    return n


def score(n: int) -> int:
    return n


@pytest.fixture
def warnings_of():
    """Start the warnings of a worker, and return the list that they are put into."""
    started = []

    def start(worker, settings):
        notified = []
        found = WorkWarnings(worker, settings, notified.append)
        started.append(found)
        found.start()
        return found, notified

    yield start
    for each in started:
        each.stop()


def info(stage):
    return ConsumerInfo(worker="w", process="p", host="there", pid=7, program="b.py", stage=stage)


@pytest.mark.parametrize(("stage", "warns"), [("score", True), ("parse", False)])
def test_work_warns_of_another_application(settings, monkeypatch, warnings_of, stage, warns):
    """A worker of another stage takes messages away; one of the same stage shares the work."""
    with Worker("numbers", parse, settings) as worker, Worker("numbers", score, settings):
        monkeypatch.setattr(worker._discovery, "ask", lambda *_: (info(stage),))
        # both workers are in this process: to the one that asks, the second is elsewhere
        monkeypatch.setattr(type(worker._discovery), "consumers_here", 1)
        found, notified = warnings_of(worker, settings)
        if warns:
            [text] = wait_for(lambda: notified)
            assert "queue 'numbers' has consumers of another application" in text
            assert "b.py (score) on there, pid 7" in text
            wait_for(lambda: found.text == text)
        else:
            wait_for(lambda: found._checks)
            assert notified == []


def test_work_warns_of_messages_in_the_queue_that_it_wrote_before(
    settings, tmp_path, monkeypatch, warnings_of
):
    """After a deploy with another `writes`, the doctor says so as well."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    prefix = f"test-{uuid.uuid4().hex[:10]}"
    lasting = settings.replace(namespace="", queues_expire=False)
    reads = Queue(f"{prefix}-in", (0.1,))
    try:
        send(lasting, *range(10), queue=f"{prefix}-old")
        with Worker(reads, parse, lasting, writes=f"{prefix}-old") as worker:
            found, notified = warnings_of(worker, lasting)
            wait_for(lambda: found._checks)
        assert notified == []
        with Worker(reads, parse, lasting, writes=f"{prefix}-new") as worker:
            _, notified = warnings_of(worker, lasting)
            [text] = wait_for(lambda: notified)
        [finding] = doctor._leftovers(lasting)
    finally:
        job_queue.delete(reads, f"{prefix}-old", f"{prefix}-new", settings=lasting)

    assert f"10 messages in '{prefix}-old', which stage parse used before" in text
    assert f"mousetrap drain {prefix}-old" in finding.fix


def test_work_warns_of_another_name_on_the_same_queue(settings, tmp_path, monkeypatch, warnings_of):
    """A renamed function gives its outputs other ids; the doctor says so as well."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    lasting = settings.replace(namespace="", queues_expire=False)
    reads = Queue(f"test-{uuid.uuid4().hex[:10]}", (0.1,))
    try:
        with Worker(reads, parse, lasting) as worker:
            found, notified = warnings_of(worker, lasting)
            wait_for(lambda: found._checks)
        assert notified == []
        with Worker(reads, score, lasting) as worker:
            _, notified = warnings_of(worker, lasting)
            [text] = wait_for(lambda: notified)
        [finding] = doctor._leftovers(lasting)
    finally:
        job_queue.delete(reads, settings=lasting)

    assert "is read by stage score, before by parse" in text
    assert (finding.what, finding.fix) == ("stage names", "keep the identity: stage(name='parse')")


def test_messages_in_an_old_retry_queue_come_back_by_themselves(settings):
    """After a deploy with other retry delays, the broker returns what waits in the old queue."""

    def fail(n: int) -> None:
        raise ValueError(n)

    with Worker(Queue("numbers", (1.5,)), fail, settings) as worker:
        send(settings, *range(5), queue="numbers")
        worker.wait_until(retried=5)
    with Worker(Queue("numbers", (0.1,)), parse, settings) as worker:
        assert worker.wait_until(done=5, timeout=20).done == 5

"""What has connections, and other processes: a forked child; what is passed to a process."""

from __future__ import annotations

import copy
import os
import pickle

import pytest

import mousetrap
from mousetrap import job_queue
from mousetrap.amqp.blocking_channel import JobChannel, JobConnection
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import ensure
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.notebook.handle import Handle
from mousetrap.pytest_plugin.test_namespace import TestNamespace
from mousetrap.run_fetch_worker import fetch
from mousetrap.start_fetch import FetchJob
from mousetrap.worker.worker import Worker

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def leave_in_fork(context):
    """Leave *context* in a forked child, as an exception or the end of the block does."""
    child = os.fork()
    if child == 0:
        try:
            context.__exit__(None, None, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@needs_fork
def test_proxy_goes_on(settings):
    """The child's shutdown would reach the parent's sockets."""
    with Proxy(settings) as proxy, job_queue.open_channel(proxy.settings) as channel:
        leave_in_fork(proxy)

        assert channel.queue_declare(f"{settings.namespace}.one", exclusive=True)
        assert job_queue.ping(proxy.settings)


@needs_fork
def test_worker_processes_go_on(settings):
    """The child does not stop the processes of its parent."""
    with mousetrap.run(fetch, settings, workers="processes") as run:
        leave_in_fork(run.processes)
        run.send(FetchJob(1))
        assert run.settle(timeout=40).done == 1


@needs_fork
def test_namespace_of_a_test_goes_on(settings):
    """Neither its queues nor its files are deleted; the end of the parent deletes both."""
    with TestNamespace(ensure("external", settings.replace(namespace="")), "test") as namespace:
        mousetrap.declare("orders")
        leave_in_fork(namespace)

        assert mousetrap.depth("orders", namespace.settings).messages == 0
    [left] = job_queue.depths(["orders"], namespace.settings)
    assert left is None


CONNECTED = (Publisher, Worker, JobChannel, JobConnection, Handle, mousetrap.Run, mousetrap.Sink)


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy])
@pytest.mark.parametrize("kind", CONNECTED, ids=lambda each: each.__name__)
def test_what_has_connections_is_not_passed_to_a_process(kind, copying):
    """A spawned process, or a pool of processes, gets an error that says what to do."""
    with pytest.raises(TypeError, match=f"pass its settings, and make a {kind.__name__} there"):
        copying(object.__new__(kind))


def test_what_a_pool_returns_can_be_passed(settings):
    """Settings go to a process; messages, receipts and results come back from it."""
    mousetrap.declare("work", settings=settings)
    sent = mousetrap.send("work", [1, 2], settings=settings)
    taken = job_queue.drain("work", settings=settings)

    assert pickle.loads(pickle.dumps(settings)) == settings
    assert pickle.loads(pickle.dumps(sent)).counts == {"confirmed": 2}
    assert [each.data for each in pickle.loads(pickle.dumps(taken))] == [1, 2]

"""The orderly stop: messages are finished or given back, and no process counts them as lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest
from support.messages import QUICK, double, send
from support.waiting import wait_for

from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.message import ATTEMPT, JOB, LOSSES, Message
from mousetrap.model.targets import OutputTargets
from mousetrap.worker.worker import Worker


class Hanging:
    """Two handlers that hang until `gate` is set; the coroutine until it is cancelled."""

    def __init__(self):
        self.begun, self.gate = threading.Event(), threading.Event()
        self.was_cancelled = False

    def in_thread(self, n: int) -> int:
        self.begun.set()
        self.gate.wait(30)
        return n

    async def in_coroutine(self, n: int) -> int:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return n


@pytest.fixture
def hanging():
    hanging = Hanging()
    yield hanging
    hanging.gate.set()


@pytest.mark.parametrize("kind", ["in_thread", "in_coroutine"])
def test_message_is_given_back_when_its_handler_takes_too_long(settings, hanging, kind):
    """After the time-out of `stop` a copy with the same id and counts is in the queue."""
    headers = {LOSSES: 1, "theirs": "kept"}
    send(settings, Message(1, id="m1", attempt=2, headers=headers))
    worker = Worker(QUICK, getattr(hanging, kind), settings, writes="out").start()
    assert hanging.begun.wait(10)

    worker.stop(timeout=0.2)
    hanging.gate.set()

    with open_channel(settings) as channel:
        method, properties, body = channel.basic_get(settings.topology.wire_name("work"), True)
    assert (properties.message_id, body, method.redelivered) == ("m1", b"1", False)
    assert properties.headers == headers | {ATTEMPT: 2, JOB: "m1"}
    assert hanging.was_cancelled is (kind == "in_coroutine")


def test_late_result_of_a_message_that_was_given_back_is_dropped(settings, hanging, monkeypatch):
    """The handler returns while the worker still waits for the confirm of the copy."""
    send(settings, Message(1, id="m1"))
    worker = Worker(QUICK, hanging.in_thread, settings, writes="out").start()
    assert hanging.begun.wait(10)
    published = []
    publish = worker._publisher.publish

    def publish_late(message, queue, **options):
        published.append(queue)
        callback = options.pop("callback")
        hanging.gate.set()  # from here on the result is late
        later = worker._publisher.connection.call_later
        options["callback"] = lambda receipt: later(0.2, lambda: callback(receipt))
        return publish(message, queue, **options)

    monkeypatch.setattr(worker._publisher, "publish", publish_late)
    worker.stop(timeout=0.1)

    assert published == ["work"]
    assert (worker.statistics().done, depth("out", settings).messages) == (0, 0)
    assert [message.id for message in drain("work", settings=settings)] == ["m1"]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_messages_that_were_not_begun_are_given_back_when_the_process_ends(
    settings, hanging, queue_type
):
    """None of them is marked as redelivered, which the next process would count as a loss."""
    settings = settings.replace(queue_type=queue_type)
    send(settings, *range(20))
    worker = Worker(QUICK, hanging.in_thread, settings, writes="out").start()
    wait_for(lambda: worker.unacked == worker.statistics().prefetch)
    worker.stop(0.1, process_ends=True)

    found = set()
    with open_channel(settings) as channel:
        for _ in range(20):
            method, _, body = channel.basic_get(settings.topology.wire_name("work"), True)
            assert not method.redelivered, body
            found.add(int(body))
    assert found == set(range(20))


OTHER = """
import threading
from mousetrap.worker.worker import Worker
gate = threading.Event()
with Worker("work", lambda n: gate.wait(), prefetch=1) as worker:
    print("works", flush=True)
    input()
    gate.set()
"""


def test_messages_that_were_not_begun_are_given_back_when_another_process_consumes(
    settings, hanging
):
    """The broker would deliver them there, and that process would count a loss for each."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.to_environment(),
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "works\n"
        worker = Worker("work", hanging.in_thread, settings, prefetch=8).start()
        send(settings, *range(9))
        wait_for(lambda: worker.unacked == 8)
        worker.stop(0.1)
        with open_channel(settings) as channel:
            for _ in range(8):
                method, _, _ = channel.basic_get(settings.topology.wire_name("work"), True)
                assert not method.redelivered
        other.communicate("\n", timeout=20)


def test_outputs_that_are_not_confirmed_do_not_make_their_message_a_loss(settings):
    """A full output queue keeps the message in progress; it is given back all the same."""
    declare(QUICK, settings=settings)
    with open_channel(settings) as channel:
        full = settings.topology.wire_name("full")
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish", "x-expires": 60_000}
        channel.queue_declare(full, durable=True, arguments=arguments)
        channel.basic_publish("", full, b"0")
    send(settings, Message(1, id="m1"))
    worker = Worker(QUICK, double, settings)
    # without declaring it: its arguments are not ours
    worker._processor.targets = OutputTargets("full")
    with worker:
        wait_for(lambda: "full" in worker.statistics().problem)
        worker.stop(0.1)

    with open_channel(settings) as channel:
        method, properties, _ = channel.basic_get(settings.topology.wire_name("work"), True)
    assert (properties.message_id, method.redelivered) == ("m1", False)


def test_stop_raises_when_the_broker_does_not_confirm_what_is_given_back(settings, proxy, hanging):
    """The message stays unacked, so the broker delivers it again."""
    send(settings, Message(1, id="m1"))
    worker = Worker(QUICK, hanging.in_thread, proxy.settings).start()
    assert hanging.begun.wait(10)
    proxy.hold("from broker")

    with pytest.raises(TimeoutError, match="delivered again"):
        worker.stop(0.1)
    proxy.cut()
    wait_for(lambda: depth("work", settings).messages >= 1)


def test_cancelled_coroutine_may_clean_up(settings):
    """The event loop goes on until coroutines that were cancelled have ended."""
    begun, cleaned_up = threading.Event(), threading.Event()

    async def handler(_: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)  # the cleaning up
            cleaned_up.set()

    send(settings, 1)
    worker = Worker(QUICK, handler, settings).start()
    assert begun.wait(10)
    worker.stop(0.1)

    assert cleaned_up.wait(5)
    assert depth("work", settings).messages == 1


SIGNALLED_WHILE_STARTING = """
import os, signal, threading
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.worker.service import WorkerService
from mousetrap.worker.worker import Worker

begun = threading.Event()

def hang(_: int) -> None:
    begun.set()
    threading.Event().wait()

def signalled(_: str) -> None:  # the start has not returned, and the broker delivers already
    begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()

worker = Worker("work", hang, prefetch=4)
worker._discovery.start_answering = signalled
run_until_signalled(WorkerService(worker, 0.2), stop_timeout=0.2)
print(worker.statistics().state, flush=True)
os._exit(0)  # what has not ended by now would be ended here
"""


def test_messages_are_given_back_by_a_worker_that_is_signalled_while_it_starts(settings):
    """The return of `run_until_signalled` means that it was stopped, like any other."""
    send(settings, *range(6))
    program = subprocess.run(
        [sys.executable, "-c", SIGNALLED_WHILE_STARTING], capture_output=True, text=True,
        timeout=60, env=os.environ | settings.to_environment(),
    )  # fmt: skip

    assert (program.returncode, program.stdout) == (0, "closed\n"), program.stderr
    with open_channel(settings) as channel:
        for _ in range(6):
            method, _, body = channel.basic_get(settings.topology.wire_name("work"), True)
            assert not method.redelivered, body


def test_block_that_an_interrupt_leaves_gives_its_messages_back(settings, hanging):
    """Ctrl-C in ``with Worker(...)``: the program ends, and another process gets the messages."""
    send(settings, *range(6))
    worker = Worker(QUICK, hanging.in_thread, settings, prefetch=6)
    with pytest.raises(SystemExit), worker:  # noqa: PT012 -- what raises is the subject
        threading.Timer(0.2, hanging.gate.set).start()
        wait_for(lambda: worker.unacked == 6)
        sys.exit()

    with open_channel(settings) as channel:
        while (got := channel.basic_get(settings.topology.wire_name("work"), True))[0]:
            assert not got[0].redelivered, got[2]


def test_message_that_is_handled_within_the_grace_is_not_given_back(settings, hanging):
    """It is done once."""
    send(settings, 1)
    worker = Worker(QUICK, hanging.in_thread, settings, writes="out").start()
    assert hanging.begun.wait(10)
    threading.Timer(0.3, hanging.gate.set).start()
    worker.stop(10)

    assert worker.statistics().done == 1
    assert (depth("work", settings).messages, depth("out", settings).messages) == (0, 1)

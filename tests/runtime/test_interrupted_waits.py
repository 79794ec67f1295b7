"""Ctrl-C ends every wait at once, and nothing else: work in the background goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque

import pytest
from support.interrupts import interrupted
from support.messages import QUICK, double, send
from support.waiting import wait_for

import mousetrap
from mousetrap import Message, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.job_queue import declare, depth, drain, open_channel, ping
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.worker.supervisor import Supervisor
from mousetrap.worker.worker import Worker

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="an interrupt is sent to the main thread"
)


@pytest.fixture
def silent(settings):
    """An open port that sends nothing, and a connect timeout of half a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield settings.replace(
            host="127.0.0.1", port=listener.getsockname()[1], connect_timeout=30.0
        )


@pytest.fixture
def gate():
    """An event that a handler waits for; it is set at the end of the test."""
    gate = threading.Event()
    yield gate
    gate.set()


def thread_names():
    """Return the names of the package's threads that are alive."""
    return [each.name for each in threading.enumerate() if each.name.startswith("mousetrap")]


def sockets():
    """Return how many sockets this process has."""
    kinds = (os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if is_open(n))
    return sum(kind.startswith("socket:") for kind in kinds)


def is_open(descriptor):
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


@pytest.mark.parametrize("what", ["publisher", "worker", "channel", "ping", "consume"])
def test_interrupt_ends_connecting(silent, what):
    """Nothing is left behind: no thread, and no socket that could become a consumer later."""
    before, connect = sockets(), {
        "publisher": lambda: Publisher(silent).open(),
        "worker": lambda: Worker(QUICK, double, silent).start(),
        "channel": lambda: open_channel(silent),
        "ping": lambda: ping(silent, timeout=30),
        "consume": lambda: mousetrap.consume("work", double, silent),
    }[what]  # fmt: skip

    with interrupted():
        connect()

    wait_for(lambda: not thread_names())
    if what in ("publisher", "worker", "consume"):  # garbage collection closes the other sockets
        wait_for(lambda: sockets() <= before)


def test_interrupt_ends_waiting_for_a_confirm(settings, proxy):
    """The receipt keeps waiting, the publisher goes on, and the message can still be confirmed."""
    declare("work", settings=settings)
    publisher = Publisher(proxy.settings).open()
    proxy.hold()
    receipt = publisher.publish(Message(1), "work")

    with interrupted():
        receipt.wait(30)
    with interrupted():
        publisher.flush(30)
    proxy.cut()  # what was held is lost; the publisher reconnects by itself
    proxy.release()
    wait_for(lambda: receipt.state == "unknown")

    publisher.send_again(receipt).wait(10)
    publisher.close()


def test_interrupt_ends_publishing_into_a_full_window(settings, proxy):
    """The number in flight is correct afterwards, so that no later publish waits for ever."""
    declare("work", settings=settings)
    publisher = Publisher(proxy.settings.replace(max_in_flight=20)).open()
    proxy.hold()

    with interrupted():
        publisher.publish_many(map(Message, range(1000)), "work")
    assert publisher.in_flight < 40
    proxy.cut()
    proxy.release()
    publisher.flush(10)

    assert publisher.in_flight == 0
    publisher.close()


def test_interrupt_of_a_with_block_does_not_wait_for_open_receipts(settings, proxy):
    """Leaving the block does not take five seconds although the broker is silent."""
    declare("work", settings=settings)
    with interrupted(), Publisher(proxy.settings) as publisher:
        proxy.hold()
        publisher.publish(Message(1), "work").wait(30)

    proxy.release()
    wait_for(lambda: publisher.connection.state == "closed")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_while_publishing_leaves_the_count_right(settings):
    """After interrupts at many different moments the number in flight is correct."""
    declare("work", settings=settings)
    with Publisher(settings) as publisher:
        for n in range(20):
            with interrupted(after=0.05 + n / 500):
                while True:
                    publisher.publish(Message(n), "work")
            publisher.flush(10)

        assert publisher.in_flight == 0
        publisher.publish(Message("last"), "work").wait(10)


def test_interrupt_of_a_publish_leaves_no_message_unsent(settings):
    """A message that has just entered the outbox is sent although its publish was interrupted."""

    class Outbox(deque):
        def append(self, receipt):
            super().append(receipt)
            raise KeyboardInterrupt

    declare("work", settings=settings)
    with Publisher(settings) as publisher:
        publisher.window._outbox = Outbox()
        with pytest.raises(KeyboardInterrupt):
            publisher.publish(Message(1), "work")

        publisher.flush(5)
    assert depth("work", settings).messages == 1


def test_interrupt_ends_waiting_for_a_worker_and_it_goes_on(settings, gate):
    """The worker still consumes, handles and acks after the wait for it was interrupted."""

    def waits(n: int) -> int:
        gate.wait(20)
        return n

    send(settings, *range(5))
    with Worker(QUICK, waits, settings, writes="out") as worker:
        with interrupted():
            worker.wait_until(done=5)
        with interrupted():
            worker.wait()
        gate.set()

        assert worker.wait_until(done=5).reconnects == 0
    assert depth("work", settings).messages == 0


def test_interrupt_of_a_busy_wait_loses_nothing(settings):
    """Twenty interrupts while messages are handled: each message is handled once."""
    with (
        Worker(QUICK, double, settings, writes="out", concurrency=4) as worker,
        Publisher(settings) as publisher,
    ):
        sent = 0
        for n in range(20):
            receipts = publisher.publish_many(map(Message, range(500)), "work")
            sent += len(receipts)
            with interrupted(after=0.05 + n / 500):
                worker.wait_until(done=1_000_000)
        now = worker.wait_until(done=sent, timeout=60)

    assert (now.done, now.received, now.reconnects) == (sent, sent, 0)


def test_interrupt_ends_waiting_for_the_end_of_a_handler(settings, gate):
    """`stop` goes on in a thread: the message in progress is finished, then the worker closes."""

    def waits(n: int) -> int:
        gate.wait(20)
        return n

    send(settings, 1, 2)
    worker = Worker(QUICK, waits, settings, writes="out").start()
    wait_for(lambda: worker.statistics().in_progress == 1)

    with interrupted():
        worker.stop(20)
    assert worker.is_stopping
    gate.set()

    wait_for(lambda: worker.statistics().state == "closed")
    assert worker.statistics().done == 1
    assert depth("work", settings).messages == 1


def test_interrupt_of_a_workers_block_does_not_wait_for_its_handler(settings, gate):
    """``with worker:`` ends at once as well, and the worker stops in a thread."""
    send(settings, 1)
    with interrupted(), Worker(QUICK, lambda _: gate.wait(20), settings) as worker:
        worker.wait_until(done=1)

    gate.set()
    wait_for(lambda: worker.statistics().state == "closed")
    assert worker.statistics().done == 1


@pytest.mark.parametrize("is_silent", [False, True])
def test_interrupt_ends_draining(settings, proxy, is_silent):
    """An empty queue or a silent broker: the call returns, and a later one works."""
    declare("work", settings=settings)

    def hold(_):
        if is_silent:
            proxy.hold()

    send(settings, 1)
    with interrupted():
        drain("work", 2, timeout=30, settings=proxy.settings, on_message=hold)
    proxy.cut()
    proxy.release()
    send(settings, 2)

    assert 2 in [m.data for m in drain("work", settings=settings, idle=0.2)]


def test_interrupt_ends_consuming_and_keeps_the_channel_open(settings):
    """After an interrupt of the tutorial's loop in a cell, its channel can be used again."""
    name = settings.topology.wire_name("work")
    send(settings, 1)
    got = []

    def on_message(channel, method, _, body):
        got.append(body)
        channel.basic_ack(method.delivery_tag)

    with open_channel(settings) as channel:
        channel.basic_consume(name, on_message)
        with interrupted():
            channel.start_consuming()
        send(settings, 2)
        with interrupted():
            channel.start_consuming()
        assert channel.queue_declare(name, passive=True).method.consumer_count == 1

    assert got == [b"1", b"2"]


def test_interrupt_ends_settling_and_leaves_the_run(settings, gate):
    """A run that does not settle is left at once, although one of its handlers is busy."""

    @stage(reads="numbers")
    def waits(_: int) -> None:
        gate.wait(20)

    run = mousetrap.run(waits, settings).start()
    with interrupted(), run:
        run.send_many(range(3))
        run.settle()

    gate.set()
    wait_for(lambda: not thread_names())
    assert run.summary().done >= 1


def test_interrupt_of_processes_does_not_wait_for_them(settings):
    """The block ends at once; the processes end afterwards, as after a signal."""
    with interrupted(after=1.0), Supervisor({"fetch": 1}, settings) as processes:
        [process] = processes._running.values()
        threading.Event().wait(30)

    assert process.wait(20) == 0


def test_interrupt_of_a_kernels_worker_loop_ends_the_cell(settings, gate, monkeypatch):
    """``stage.run()`` in a cell: one interrupt ends it, two do not end the kernel."""
    monkeypatch.setattr("mousetrap.runtime.signals.is_kernel", lambda: True)
    send(settings, 1)
    worker = Worker(QUICK, lambda _: gate.wait(20), settings)

    with interrupted(after=1.0):
        run_until_signalled(worker)
    gate.set()

    wait_for(lambda: worker.statistics().state == "closed")
    assert worker.statistics().done == 1


def test_interrupt_ends_waiting_for_a_broker(silent):
    """Waiting for a broker to start can be interrupted."""
    with interrupted():
        deadline = time.monotonic() + 60
        probe.wait_until_ready(silent, deadline, "a broker", print, lambda: None)


def test_interrupt_of_a_start_that_has_just_succeeded_finishes_the_message(settings, monkeypatch):
    """The message arrived before the main thread had noticed that the worker consumes."""
    declare("work", settings=settings)
    send(settings, 1)
    begun, go_on = threading.Event(), threading.Event()

    def work(n: int) -> int:
        begun.set()
        assert go_on.wait(10)
        return n

    worker = Worker(QUICK, work, settings, writes="out")
    changed = worker._consumer.connection._changed
    wait = changed.wait_for

    def wait_and_be_interrupted(*arguments):
        monkeypatch.setattr(changed, "wait_for", wait)
        wait(*arguments)
        assert begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(changed, "wait_for", wait_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.start()
    go_on.set()

    wait_for(lambda: worker.statistics().state == "closed")
    assert depth("out", settings).messages == 1
    assert depth("work", settings).messages == 0

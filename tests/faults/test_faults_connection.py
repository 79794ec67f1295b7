"""Faults of the connection: cut after each byte, half-open, slow, without an answer, late."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig import work_stage
from rig.byte_proxy import ByteProxy, Cut
from rig.trial import LONG, Trial, trial_counts
from support.waiting import wait_for

from mousetrap.errors import MousetrapError
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

WORK = Queue("work", work_stage.DELAYS)
STRIDE = int(os.environ.get("RIG_STRIDE", "4"))  # bytes between two cuts, in the long tier


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        yield trial


def session(trial, settings, id):
    """Run a worker from its first byte to its last, with one message."""
    trial.send([id])
    with work_stage.work.worker(settings) as worker:
        trial.settle(15)
        trial.wait_until_idle(worker)


@pytest.mark.fault("F02")
@pytest.mark.parametrize("direction", ["to broker", "from broker"])
@pytest.mark.parametrize("end", ["RST", "FIN"])
@pytest.mark.parametrize(
    "stride", [97, pytest.param(STRIDE, marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
)
def test_cut_after_byte(settings, fault_row, seeded_random, direction, end, stride):
    """A worker recovers from a cut after any byte of a session, in each direction.

    Both connections of a worker, in turn. No thread ends with an exception: pytest would report it.
    With `RIG_STRIDE=1` the long tier's `cut_after` leaves out no byte.
    """
    threads = 6

    def cuts(thread):
        trial_settings = settings.replace(namespace=f"{settings.namespace}-{thread}")
        with Trial(trial_settings, WORK) as trial:
            with ByteProxy(trial_settings) as byte_proxy:
                session(trial, byte_proxy.settings, "measure")
            lengths = [link[direction] for link in byte_proxy.byte_counts]  # of two connections
            every = [(link, n) for link in (0, 1) for n in range(offset, lengths[link], stride)]
            places = every[thread::threads]
            not_triggered = 0
            for link, byte in places:
                cut = Cut(byte, direction, end, link)
                with ByteProxy(trial_settings, cut) as byte_proxy:
                    session(trial, byte_proxy.settings, f"{link}-{byte}")
                not_triggered += not cut.triggered.is_set()
                assert (
                    byte_proxy.passed["Channel.Close", "from broker"] == 0
                )  # sent after a wrong ack
            return trial.drain_queues(), len(places), not_triggered

    offset = seeded_random.randrange(stride)
    with ThreadPoolExecutor(threads) as pool:
        for history, trials, not_triggered in pool.map(cuts, range(threads)):
            # a session may be shorter than the one that was measured
            fault_row.not_triggered += not_triggered
            fault_row.add(history, trials - not_triggered)
    assert fault_row.not_triggered < fault_row.trials / 10


@pytest.mark.fault("F02")
@trial_counts(20, 200)
def test_cut_leaves_no_descriptor(trial, proxy, fault_row, times):
    """Reconnecting leaves no file descriptor open."""
    ids = iter(range(10**6))

    def cut():
        before = worker.statistics().reconnects
        trial.send([str(next(ids))])
        proxy.cut()
        wait_for(lambda: worker.statistics().reconnects >= before + 2)
        worker.wait_until(done=before // 2)

    with work_stage.work.worker(proxy.settings) as worker:
        cut()
        opened = descriptors()
        for _ in range(times):
            cut()
        wait_for(lambda: descriptors() <= opened)
        trial.settle()
        trial.wait_until_idle(worker)
    fault_row.add(trial.drain_queues(), times)


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.fault("F04")
@pytest.mark.parametrize(
    ("times", "heartbeat"), [(3, 2.0), pytest.param(10, 10.0, marks=pytest.mark.long)]
)
def test_half_open(settings, fault_row, times, heartbeat):
    """On a half-open connection the client notices within three heartbeats.

    Another worker gets the message.
    """

    def half_open(n):
        with (
            Trial(
                settings.replace(namespace=f"{settings.namespace}-{n}", heartbeat=heartbeat), WORK
            ) as trial,
            Proxy(trial.settings) as proxy,
        ):
            begun, gate = threading.Event(), threading.Event()

            def stuck(id: str) -> str:
                begun.set()
                gate.wait(4 * heartbeat)
                return id

            with Worker(WORK, stuck, proxy.settings, writes="out") as worker:
                trial.send(["a"])
                assert begun.wait(10)
                proxy.hold("to broker", "from broker")
                started = time.monotonic()
                with work_stage.work.worker(trial.settings) as other:
                    wait_for(lambda: not worker.statistics().connected, 3 * heartbeat)
                    trial.settle(3.5 * heartbeat - (time.monotonic() - started))
                    heal = time.monotonic() - started
                    trial.wait_until_idle(other)
                proxy.release()
                proxy.cut()
                gate.set()
            return trial.drain_queues(), heal

    with ThreadPoolExecutor(times) as pool:
        for history, heal in pool.map(half_open, range(times)):
            fault_row.add(history)
            fault_row.heal_seconds.append(heal)
    assert max(fault_row.heal_seconds) <= 3.5 * heartbeat


@pytest.mark.fault("F08")
@pytest.mark.parametrize(
    ("times", "heartbeat", "seconds"), [(4, 2.0, 7.0), pytest.param(20, 5.0, 60.0, marks=LONG)]
)
def test_handler_longer_than_the_heartbeat(settings, fault_row, times, heartbeat, seconds):
    """Handlers that take longer than two heartbeats do not end the connection."""

    def slow(id: str) -> str:
        threading.Event().wait(seconds)
        return id

    trial_settings = settings.replace(heartbeat=heartbeat)
    with (
        Trial(settings, WORK) as trial,
        Worker(WORK, slow, trial_settings, writes="out", concurrency=times) as worker,
    ):
        assert worker.wait(3 * heartbeat) is False
        trial.send(map(str, range(times)))
        trial.settle(seconds + 20)
        trial.wait_until_idle(worker)
        assert worker.statistics().reconnects == 0
        fault_row.add(trial.drain_queues(), times)


@pytest.mark.fault("F12")
@trial_counts(20, 200)
def test_acks_of_a_lost_channel(settings, fault_row, seeded_random, times):
    """Acks of messages from a lost channel are never sent on the next channel."""
    with (
        Trial(settings, WORK) as trial,
        Proxy(settings) as proxy,
        ByteProxy(proxy.settings) as byte_proxy,
    ):

        def slow(id: str) -> str:
            threading.Event().wait(seeded_random.random() * 0.05)  # so that some end after a cut
            return id

        with Worker(WORK, slow, byte_proxy.settings, writes="out", concurrency=4) as worker:
            for n in range(times):
                before = worker.statistics().reconnects
                number = seeded_random.randint(1, 6)
                cut = proxy.at(
                    "Basic.Deliver", "from broker", "after", number=number, action=proxy.cut
                )
                trial.send(f"{n}-{i}" for i in range(8))
                cut.wait()
                wait_for(lambda before=before: worker.statistics().reconnects >= before + 2)
                trial.settle()
                assert not trial.missing
            trial.wait_until_idle(worker)
        assert byte_proxy.passed["Channel.Close", "from broker"] == 0  # sent after a wrong ack
        fault_row.add(trial.drain_queues(), times)


@pytest.mark.fault("F13")
@trial_counts(5, 50)
def test_no_confirm(settings, fault_row, times):
    """A confirm that never comes: the output is *unknown* at the deadline, and there is no ack."""
    confirm_timeout = 2.0  # seconds

    def unanswered(n):
        trial_settings = settings.replace(
            namespace=f"{settings.namespace}-{n}", confirm_timeout=confirm_timeout
        )
        with Trial(trial_settings, WORK) as trial, Proxy(trial_settings) as proxy:
            trial.send(["a"])
            step = proxy.at("Basic.Publish", action=lambda: proxy.hold("from broker"))
            with work_stage.work.worker(proxy.settings) as worker:
                step.wait()
                wait_for(lambda: "no answer in" in worker.statistics().problem, confirm_timeout + 3)
                late = time.time() - step.at - confirm_timeout
                assert worker.unacked == 1
                proxy.release()
                proxy.cut()
                trial.settle()
                trial.wait_until_idle(worker)
            return trial.drain_queues(), late

    with ThreadPoolExecutor(10) as pool:
        for history, late in pool.map(unanswered, range(times)):
            fault_row.add(history)
            assert -0.1 <= late <= 1.0
            fault_row.heal_seconds.append(late)


@pytest.mark.fault("F19")
@pytest.mark.parametrize(
    ("times", "rate"), [(1, 100), pytest.param(10, 200, marks=pytest.mark.long)]
)
def test_slow_and_lossy(settings, fault_row, seeded_random, times, rate):
    """With 200 ms of delay and 5 % late packets, nothing reconnects and the rate is kept."""
    with (
        Trial(settings, WORK) as trial,
        Proxy(settings) as proxy,
        ByteProxy(proxy.settings) as byte_proxy,
    ):
        proxy.delay(0.1)  # in each direction
        byte_proxy.stall = lambda: 0.3 * (seeded_random.random() < 0.05)
        with work_stage.work.worker(
            byte_proxy.settings.replace(heartbeat=5.0), prefetch=256
        ) as worker:
            for _ in range(times):
                with trial.sending(rate):
                    began = time.monotonic()
                    while time.monotonic() < began + 5:
                        trial.collect()
                # it has kept up: only messages in transit are missing
                assert len(trial.missing) < 2 * rate
                trial.settle()
            trial.wait_until_idle(worker)
            assert worker.statistics().reconnects == 0
        fault_row.add(trial.drain_queues(), times)


@pytest.mark.fault("F25")
@trial_counts(4, 20)
def test_late_broker(settings, fault_row, seeded_random, times):
    """A worker whose broker refuses connections at first waits, and starts when it can."""
    for n in range(times):
        with Trial(settings, WORK) as trial, Proxy(settings) as proxy:
            trial.send([str(n)])
            proxy.refuse()
            threading.Timer(seeded_random.uniform(0.1, 2), proxy.accept).start()
            with work_stage.work.worker(proxy.settings.replace(connect_timeout=10.0)) as worker:
                trial.settle()
                trial.wait_until_idle(worker)
            assert proxy.connections > 2
            fault_row.add(trial.drain_queues())


@pytest.mark.fault("F25")
@trial_counts(4, 20)
def test_silent_port(settings, fault_row, times):
    """A port that accepts and sends nothing gives an error within the timeout, which says so."""
    for _ in range(times):
        with socket.create_server(("127.0.0.1", 0)) as silent_port:
            silent = settings.replace(
                host="127.0.0.1", port=silent_port.getsockname()[1], connect_timeout=0.5
            )
            started = time.monotonic()
            with pytest.raises(MousetrapError, match="no AMQP answer from"):
                work_stage.work.worker(silent).start()
            assert time.monotonic() - started < 3
            fault_row.trials += 1
    assert not [each for each in threading.enumerate() if str(silent.port) in each.name]

"""Waits for a broker that says nothing: each ends in its time-out, with its error."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress

import pytest
from rig.brokers import ask_docker
from rig.checker import History
from rig.public_waits import (
    COMMANDS,
    CONFIRM,
    CONNECT,
    CONNECTED,
    CONNECTING,
    LIMIT,
    OTHER,
    RUNNING,
    found,
)
from rig.trial import trial_counts
from rig.worker_pool import WorkerPool
from support.waiting import wait_for

from mousetrap import run, stage
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import BrokerUnreachable, NotSettled, WireError
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import declare, drain
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.notebook.registry import consume
from mousetrap.runs.run_lock import RunLock

JOBS = 60  # messages in the queue of each trial
MARGIN = 1.0  # seconds that a call may take beyond its time-out
STOPPING = 10.0  # seconds after which a container engine kills a command that has got SIGTERM
AT_ONCE = 4  # waits at the same time: they share one interpreter, and each has to be in time


def test_each_public_wait_has_a_row():
    """A function or command with a time-out is tested here, or the table says what it waits for."""
    rows = {name.partition(",")[0] for name in (*CONNECTING, *COMMANDS, *RUNNING, *OTHER)}

    assert found() == rows & found()
    assert {*COMMANDS, *RUNNING, *OTHER} <= found()


def seconds_of(call, errors, at):
    """Return the seconds that *call* takes; it must raise one of *errors*, if there are any."""
    started = time.monotonic()
    with pytest.raises(errors, match=r"answer|confirmed") if errors else nullcontext() as caught:
        call(at)
    return time.monotonic() - started, caught and caught.value


def check_each(rows, check, times, at_once=AT_ONCE):
    """Call *check* with each row, *at_once* at the same time; fail with all that was wrong."""
    wrong = []
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(times):
            for name, found in [(name, pool.submit(check, *row)) for name, row in rows.items()]:
                try:
                    found.result(100)
                except (Exception, pytest.fail.Exception) as error:
                    wrong.append(f"{name}: {type(error).__name__} {error}")
    assert not wrong, "\n".join(each[:300] for each in wrong)


def check_connecting(at, times):
    def check(call, limit, errors):
        seconds, _ = seconds_of(call, errors, at)
        assert seconds <= limit + MARGIN, f"took {seconds:.1f} s, not {limit:g}"

    check_each(CONNECTING, check, times)


@pytest.fixture
def dumb(settings, tmp_path, monkeypatch):
    """Settings for a port that accepts connections and says nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with socket.create_server(("127.0.0.1", 0), backlog=500) as server:
        yield settings.replace(
            host="127.0.0.1", port=server.getsockname()[1],
            connect_timeout=CONNECT, confirm_timeout=CONFIRM,
        )  # fmt: skip


@pytest.mark.fault("F48")
@pytest.mark.parametrize("protocol", ["amqp", "amqps"])
@trial_counts(1, 20)
def test_broker_silent_from_the_start(dumb, fault_row, protocol, times):
    """A port that accepts and says nothing: each wait ends in its time-out with its error."""
    check_connecting(dumb.replace(tls=protocol == "amqps"), times)
    fault_row.add(History(), times * len(CONNECTING))


@pytest.fixture
def command_pool(tmp_path):
    """Starts commands that need no time to import the package."""
    with WorkerPool(tmp_path, RIG_IMPORT_ALL="1") as pool:
        yield pool


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_command_with_a_silent_broker(dumb, command_pool, tmp_path, fault_row, times):
    """Each command ends in its time-out with its exit code, without a traceback."""
    notebook = tmp_path / "check_it.ipynb"
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": [],
            "execution_count": None}  # fmt: skip
    notebook.write_text(
        json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    )
    state = tmp_path / "state"
    for n in range(3):  # killed runs of one broker: it is asked once
        RunLock(dumb.replace(namespace=f"run-{n}"), [f"run-{n}.q"]).release()

    def check(arguments, limit, code):
        words = arguments.format(notebook=notebook).split()
        process = command_pool.run(dumb, *words, XDG_STATE_HOME=str(state))
        ended = process.wait(60)
        output = process.log.read_text()
        assert ended == code or code is None, output
        assert "Traceback" not in output
        assert 0 < process.waited <= limit + MARGIN, f"took {process.waited:.1f} s, not {limit:g}"

    command_pool.run(dumb, "--help").wait()  # the pool has imported everything now
    check_each(COMMANDS, check, times, at_once=2)  # each needs the processor when it starts
    fault_row.add(History(), times * len(COMMANDS))


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_broker_silent_in_the_middle(settings, fault_row, tmp_path, monkeypatch, times):
    """A broker that is paused at a step of the protocol: the same, and nothing is lost."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    trials = times * len(CONNECTED)

    def check(*row):
        while not was_silent(*row):  # the call found no broker in its time, and never came so far
            fault_row.count_not_triggered(limit=trials // 4)

    def was_silent(method, number, call, limit, errors):
        own = settings.replace(
            namespace=f"{settings.namespace}-{os.urandom(4).hex()}",
            connect_timeout=CONNECT, confirm_timeout=CONFIRM,
        )  # fmt: skip
        ids = {f"{n:08d}" for n in range(JOBS)}
        declare(Queue("q"), settings=own)
        with Publisher(own.replace(confirm_timeout=30.0)) as publisher:
            for queue in ("q", "q.dead"):
                messages = [Message(1, id=id) for id in sorted(ids)]
                publisher.publish_until_confirmed(messages, queue)
        direction = "from broker" if method == "Basic.Deliver" else "to broker"
        with Proxy(own) as proxy:
            silent = proxy.at(
                method, direction, number=number,
                action=lambda: proxy.hold("from broker", "to broker"),
            )  # fmt: skip
            try:
                seconds, error = seconds_of(call, errors, proxy.settings)
            except (Exception, pytest.fail.Exception):
                if silent.triggered.wait(0.1):
                    raise
            if not silent.triggered.wait(0.1):
                return False
        assert seconds <= limit + MARGIN, f"took {seconds:.1f} s, not {limit:g}"
        if call in [CONNECTING[name][0] for name in ("drain", "peek", "dead")]:
            taken = [each.id for each in getattr(error, "taken", [])]
            left = {name: drain_all(name, own) for name in ("q", "q.dead")}
            assert left["q"] | set(taken) == ids
            assert left["q.dead"] == ids
        return True

    check_each(CONNECTED, check, times)
    fault_row.add(History(), trials)


def drain_all(queue, settings):
    """Return the ids of all messages, also of those that a lost connection holds for a moment."""
    return {each.id for each in drain(queue, idle=0.7, settings=settings)}


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_run_on_a_broker_that_falls_silent(settings, fault_row, times):
    """`settle` raises NotSettled with its table; `results`, `stop` and a worker's stop end."""
    for _ in range(times):
        with Proxy(settings) as proxy:

            @contextmanager
            def silent(proxy=proxy):
                proxy.hold("from broker", "to broker")
                yield

            check_a_run(proxy.settings, silent)
    fault_row.add(History(), times)


@pytest.mark.fault("F48")
@trial_counts(1, 20)
def test_frozen_broker(rabbit, rabbit_settings, fault_row, times):
    """The same with a broker whose process is stopped; a connection is accepted all the same."""
    check_frozen(rabbit, rabbit_settings, times)
    fault_row.add(History(), times)


@pytest.mark.fault("F48")
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_frozen_node(node, fault_row):
    """The same with a node outside of a container, by SIGSTOP."""
    check_frozen(node, node.settings.replace(namespace="rig", queues_expire=True), 20)
    fault_row.add(History(), 20)


def check_frozen(broker, settings, times):
    @contextmanager
    def frozen():
        freeze(broker, "pause")
        try:
            yield
        finally:
            freeze(broker, "unpause")

    at = settings.replace(connect_timeout=CONNECT, confirm_timeout=CONFIRM)
    for _ in range(times):
        with frozen():
            check_connecting(at, 1)
        check_a_run(settings, frozen)
        broker.wait_until_ready() if hasattr(broker, "wait_until_ready") else broker.start()


def freeze(broker, order):
    """Pause a container, or stop the process of a node; or let it go on."""
    if hasattr(broker, "pid"):
        os.kill(broker.pid, signal.SIGSTOP if order == "pause" else signal.SIGCONT)
    else:
        ask_docker(order, broker.name)


def check_a_run(settings, silent):
    late = [each for each in waits_of_a_run(settings, silent) if each[2] > each[1] + MARGIN]
    assert late == []


def connected(call):
    """Return what *call* returns once a broker that is not silent has answered in `CONNECT` s."""

    def answered():
        with suppress(BrokerUnreachable):
            return call()

    return wait_for(answered, 60)


def waits_of_a_run(settings, silent):
    """Return the name, the time-out and the seconds of each wait for a broker that is *silent*."""
    release = threading.Event()
    seconds = []

    def wait(n: int) -> int:
        release.wait(30)
        return n

    def measure(name, limit, call, *errors):
        started = time.monotonic()
        with pytest.raises(errors) if errors else nullcontext() as caught:
            call()
        seconds.append((name, limit, time.monotonic() - started))
        return caught and caught.value

    short = settings.replace(connect_timeout=CONNECT, confirm_timeout=CONFIRM)
    running = connected(
        lambda: run(stage(reads="jobs", writes="out", prefetch=3)(wait), short).start()
    )
    handle = connected(lambda: consume("cell", wait, running.settings))
    publisher = connected(lambda: Publisher(running.settings.replace(confirm_timeout=60.0)).open())
    try:
        running.send_many([1, 2, 3])
        publisher.publish_until_confirmed([Message(1)], "cell")
        worker = running.workers[0]
        wait_for(lambda: worker.unacked == 3 and handle.worker.unacked == 1)
        with silent():
            error = measure("Run.settle", LIMIT, lambda: running.settle(LIMIT), NotSettled)
            assert "could not be read" in str(error)
            assert len(error.table) == 3
            receipt = publisher.publish(Message(2), "cell")
            for name, call, errors in (
                ("Run.results", lambda: running.results(LIMIT), [WireError]),
                ("Worker.attached", lambda: worker.attached(LIMIT), []),
                ("Handle.attached", lambda: handle.attached(LIMIT), []),
                ("Worker.wait", lambda: worker.wait(LIMIT), []),
                ("Handle.wait", lambda: handle.wait(LIMIT), []),
                (
                    "Worker.wait_until",
                    lambda: worker.wait_until(done=3, timeout=LIMIT),
                    [TimeoutError],
                ),
                (
                    "Handle.wait_until",
                    lambda: handle.wait_until(done=3, timeout=LIMIT),
                    [TimeoutError],
                ),
                ("Ledger.wait_for", lambda: running.ledger.wait_for(lambda: False, LIMIT), []),
                ("Receipt.wait", lambda: receipt.wait(LIMIT), [TimeoutError]),
                ("Publisher.close", lambda: publisher.close(LIMIT), []),
                ("Handle.stop", lambda: handle.stop(LIMIT), [TimeoutError]),
            ):
                measure(name, LIMIT, call, *errors)
            release.set()
            measure("Worker.stop", LIMIT, lambda: worker.stop(LIMIT), TimeoutError)
            measure("Run.stop", 10.0, running.stop, WireError)
    finally:
        release.set()
        publisher.close(0.0)
        with suppress(Exception):
            handle.stop(0.1)
    return seconds


@pytest.mark.fault("F48")
@pytest.mark.parametrize("options", ["", "--processes 2"], ids=["threads", "processes"])
@trial_counts(1, 10)
def test_work_command_stopped(settings, worker_pool, tmp_path, fault_row, options, times):
    """A handler that hangs and a broker that is silent: SIGTERM ends the command in ten seconds."""
    for n in range(times):
        own = settings.replace(namespace=f"{settings.namespace}-{n}")
        gate = tmp_path / f"gate-{n}"
        with Proxy(own) as proxy, Publisher(own) as publisher:
            command = ["work", "rig.work_stage:work", *options.split()]
            process = worker_pool.run(proxy.settings, *command, RIG_GATE=str(gate))
            declare(Queue("work"), settings=own)
            publisher.publish_until_confirmed([Message("1")], "work")
            wait_for((tmp_path / f"{gate.name}.begun").exists, 30)
            proxy.hold("from broker", "to broker")
            started = time.monotonic()
            process.kill(signal.SIGTERM)
            process.wait(30)
            seconds = time.monotonic() - started
            assert seconds < STOPPING, process.log.read_text()
            fault_row.heal_seconds.append(seconds)
    fault_row.add(History(), times)

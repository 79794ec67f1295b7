"""A run: apart from all others, settled by facts, and accounted for."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types

import pytest
from support.messages import open_messages
from support.waiting import wait_for

import mousetrap
from mousetrap import Message, Reject, job_queue, stage
from mousetrap.amqp import connection
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import (
    AccessRefused,
    MessageDied,
    MousetrapError,
    NotSettled,
    SettingsError,
)
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.runs.run_lock import sweep
from mousetrap.start_fetch import FetchJob

QUICK = (0.05, 0.1)  # seconds


@stage(reads="numbers", writes="doubled")
def double(n: int) -> int:
    return 2 * n


@stage(reads="doubled", writes="shown")
def show(n: int) -> str:
    if n == 26:
        raise Reject("unlucky")
    return str(n)


@stage(reads="numbers", retry_delays=(30.0,))
def stubborn(n: int) -> None:
    raise ConnectionError(f"no answer at {n}")


@pytest.fixture
def own_state(tmp_path, monkeypatch):
    """A state folder of our own: leases of other runs on this machine are not ours to sweep."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "mousetrap" / "runs"


def left_at_the_broker(run):
    """The queues of a run that still exist, with what is in them."""
    found = job_queue.depths(run._wire_names(), run.settings.replace(namespace=""))
    return {each.queue: each.messages for each in found if each is not None}


def test_run_accounts_for_every_message(settings):
    """Done, dead with a reason, results where they belong; afterwards nothing is left."""
    with mousetrap.run([double, show], settings) as run:
        receipts = run.send_many(range(50))
        summary = run.settle(timeout=20)
        results = run.results()

    assert all(receipt.confirmed for receipt in receipts)
    assert (summary.sent, summary.confirmed, summary.done, summary.dead) == (50, 50, 49, 1)
    assert summary.lost == summary.duplicates == 0
    assert summary.reasons == {"Reject: unlucky": 1}
    assert {each.data for each in results} == {str(2 * n) for n in range(50)} - {"26"}
    assert summary.stages["double"].done == 50
    assert summary.stages["show"].dead == 1
    assert left_at_the_broker(run) == {}


def test_run_works_in_processes(settings):
    """The same with `mousetrap work` as a process for each stage, and two of one."""
    options = {"workers": "processes", "processes": {"fetch": 2}, "retry_delays": QUICK}
    with mousetrap.run([fetch, process], settings, **options) as run:
        run.send_many(FetchJob(n, failure_rate=0.3) for n in range(40))
        summary = run.settle(timeout=40)
        again = run.settle(timeout=1)

    assert (summary.lost, summary.done + summary.dead) == (0, 40)
    assert summary.retried > 0
    assert again == summary
    assert len({outcome.worker for e in run.ledger.entries() for outcome in e.outcomes}) >= 2


def test_run_counts_what_workers_elsewhere_do(settings):
    """Workers that nobody here started, in the run's namespace: their fates are heard as well."""
    with (
        mousetrap.run(double, settings, workers="none") as run,
        double.start(run.settings) as worker,
    ):
        run.send(4)
        summary = run.settle(timeout=10)

    assert summary.done == worker.statistics().done == 1


def test_run_takes_a_module_for_a_flow(settings):
    """The stages that a module holds, in the order in which they stand there."""
    module = types.ModuleType("my_flow")
    module.__dict__.update(first=double, second=show, alias=double, other=len)

    with mousetrap.run(module, settings) as run:
        run.send(1)
        run.settle(timeout=10)

    assert run.flow.stages == [double, show]


def test_runs_side_by_side_never_meet(settings):
    """Ten runs at a time on one broker: each counts its own messages and no other's."""
    outcomes = {}

    def one(number):
        with mousetrap.run([double, show], settings) as run:
            run.send_many([100 + number] * 20)
            summary = run.settle(timeout=40)
            outcomes[number] = (summary.sent, summary.done, {m.data for m in run.results()})

    threads = [threading.Thread(target=one, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert outcomes == {n: (20, 20, {str(2 * (100 + n))}) for n in range(10)}


def test_settle_returns_only_when_nothing_is_open(settings):
    """Random failures, retries and outputs: whenever it returns, no message is anywhere."""
    chance = random.Random(7)

    @stage(reads="fan", writes="leaves", retry_delays=QUICK, concurrency=4)
    def fan_out(n: int) -> types.GeneratorType:
        if chance.random() < 0.2:
            raise ConnectionError("chance")
        yield from range(n)

    @stage(reads="leaves", retry_delays=QUICK, concurrency=4)
    def leaf(n: int) -> None:
        if chance.random() < 0.2:
            raise ConnectionError("chance")

    for _ in range(5):
        with mousetrap.run([fan_out, leaf], settings) as run:
            run.send_many(chance.choices(range(4), k=20))
            summary = run.settle(timeout=30)
            waiting = open_messages(run)
            in_progress = sum(worker.statistics().in_progress for worker in run.workers)

        assert (summary.lost, waiting, in_progress) == (0, 0, 0)
        assert summary.done + summary.dead == 20


def test_settle_says_where_each_message_stopped(settings):
    """At the time-out: which messages, in which queue, at which attempt, and the last failure."""
    with mousetrap.run(stubborn, settings) as run:
        run.send_many([1, 2])
        with pytest.raises(NotSettled) as stuck:
            run.settle(timeout=1.5)

    rows = list(stuck.value.table)
    assert [row["stopped in"] for row in rows] == ["numbers, after 30 s"] * 2
    assert [row["attempt"] for row in rows] == [2, 2]
    text = str(stuck.value)
    assert "2 messages have no final outcome after 1.5 s" in text
    assert "numbers.retry.30s: 2 wait" in text
    assert 'raise ConnectionError(f"no answer at {n}")' in text
    assert isinstance(stuck.value.__cause__, ConnectionError)
    assert isinstance(stuck.value, TimeoutError)


def test_settle_can_end_at_the_first_death(settings):
    """`fail_fast`: the function's own exception is the cause, its traceback in the message."""
    with mousetrap.run(stubborn, settings, retry_delays=()) as run:
        run.send(7)
        with pytest.raises(MessageDied, match="died in stage stubborn at attempt 1") as died:
            run.settle(timeout=20, fail_fast=True)

    assert isinstance(died.value.__cause__, ConnectionError)
    assert died.value.__cause__.__traceback__ is not None
    assert "no answer at {n}" in str(died.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_settle_fails_at_once_when_a_handler_thread_dies(settings, monkeypatch):
    """A defect that ends a worker's thread surfaces in the waiting cell, with its origin."""
    with mousetrap.run(double, settings) as run:
        monkeypatch.setattr(run.workers[0]._processor, "publish_outputs", lambda *_: 1 / 0)
        run.send(1)
        with pytest.raises(MousetrapError, match="a thread that calls double ended") as dead:
            run.settle(timeout=20)

    assert isinstance(dead.value.__cause__, ZeroDivisionError)


def test_settle_fails_at_once_when_a_process_dies(settings):
    """A worker process that ended by itself is named with its last words."""
    with mousetrap.run(fetch, settings, workers="processes") as run:
        process = run.processes._running["fetch-0"]
        process.kill()
        run.send(FetchJob(1, latency=30))
        with pytest.raises(MousetrapError, match="fetch-0 ended with exit code -9"):
            run.settle(timeout=20)


def test_settle_outlives_a_killed_worker_when_there_is_another(settings):
    """The killed one's messages come again, and settle waits for them."""
    options = {"workers": "processes", "processes": 2, "retry_delays": QUICK}
    with mousetrap.run([fetch, process], settings, **options) as run:
        run.send_many(FetchJob(n, latency=0.01) for n in range(100))
        run.ledger.wait_for(lambda: run.ledger.open < 150, 20)
        run.processes.kill("fetch-0")
        run.processes.kill("process-1")
        summary = run.settle(timeout=40)
        waiting = open_messages(run)

    assert (summary.done, summary.lost, waiting) == (100, 0, 0)


def test_settle_outlasts_a_broker_that_is_away_when_all_is_known(proxy):
    """Every fate is there, and nobody answers what the queues hold: it asks until somebody does."""
    records = []
    with mousetrap.run([double, show], proxy.settings.replace(connect_timeout=1.0)) as run:
        run.send_many(range(5))
        assert run.ledger.wait_for(lambda: run.ledger.open == 0, 20)
        proxy.refuse()
        proxy.cut()
        before = proxy.connections
        settling = threading.Thread(target=lambda: records.append(run.settle(30)))
        settling.start()
        proxy.wait_for_connections(before + 3)  # the workers, and who asks for the depths
        assert settling.is_alive()
        proxy.accept()
        settling.join(30)

    assert [summary.done for summary in records] == [5]


def test_settle_outlasts_a_cut_wire(proxy):
    """Jobs whose confirms were lost with the connection are sent again; none is missing."""
    with mousetrap.run([double, show], proxy.settings) as run:
        run.send_many(range(100, 400))
        proxy.cut()
        run.send_many(range(400, 500))
        summary = run.settle(timeout=60)

    assert (summary.sent, summary.confirmed, summary.done, summary.lost) == (400, 400, 400, 0)


def test_settle_waits_for_what_a_broken_link_may_have_left(proxy, monkeypatch):
    """The broker gives it out again when it has noticed, which may be after the worker is back."""
    monkeypatch.setattr(connection, "REDELIVERY_DELAY", 2.0)  # seconds
    with mousetrap.run(fetch, proxy.settings) as run:
        run.send(FetchJob())
        run.settle(20)
        proxy.cut()
        wait_for(lambda: run.workers[0].is_recovering)
        run.settle(30)

        assert not run.workers[0].is_recovering
        assert run.workers[0].statistics().reconnects >= 1


def test_settle_counts_late_jobs(settings):
    """What is sent after a settle is settled by the next one."""
    with mousetrap.run(double, settings) as run:
        run.send(1)
        first = run.settle(timeout=10)
        with Publisher(run.settings) as publisher:  # and from outside
            publisher.publish(Message(2), "numbers").wait()
        run.send(3)
        run.settle(timeout=10)
        run.ledger.wait_for(lambda: run.summary().done == 3, 10)
        second = run.summary()

    assert (first.done, second.done, second.sent) == (1, 3, 3)


def test_run_runs_coroutines(settings):
    """Stages that are `async def` are as good as others."""

    @stage(reads="waits", concurrency=50)
    async def wait(n: int) -> None:
        await asyncio.sleep(0.1)

    with mousetrap.run(wait, settings) as run:
        run.send_many(range(50))
        summary = run.settle(timeout=20)

    assert summary.done == 50


def test_run_shows_itself(settings):
    """Table, diagram, plot and repr: for people, and without a password."""
    pytest.importorskip("matplotlib").use("agg")
    with mousetrap.run([double, show], settings) as run:
        run.send_many([1, 13])
        run.settle(timeout=10)
        rows = list(run.messages())
        run.plot()
        picture = run.diagram()._repr_mimebundle_()

    assert {row["path"] for row in rows} == {"double", "double → show", "double → show → shown"}
    assert {row["outcome"] for row in rows} == {"done", "dead", "result"}
    assert "1 done" in picture["text/plain"]
    assert picture["image/svg+xml"].startswith("<svg")
    assert "2 sent, 1 done, 1 dead, 0 open" in repr(run)
    assert settings.password not in repr(run)


@pytest.mark.parametrize(
    ("flow", "options", "says"),
    [
        ([], {}, "at least one stage"),
        ([len], {}, "len is not a stage: decorate it"),
        ([double, double], {}, "two stages of double, double have the same name"),
        (double, {"workers": "magic"}, "'threads', 'processes' or 'none'"),
        (fetch, {"workers": "processes", "processes": {"fetsch": 1}}, "no stage of this flow: fet"),
    ],
)
def test_run_refuses_what_cannot_work(settings, flow, options, says):
    """One clear sentence, before anything is started."""
    with pytest.raises(SettingsError, match=says):
        mousetrap.run(flow, settings, **options)


def test_run_refuses_processes_for_a_stage_of_this_process(settings):
    """A function that lives in a notebook cannot be imported by another process."""

    @stage(reads="here")
    def local(n: int) -> None: ...

    with pytest.raises(SettingsError, match=r"only this process has it: put it into a module"):
        mousetrap.run(local, settings, workers="processes")


def test_run_needs_events(settings):
    """A run without events would hear nothing."""
    with pytest.raises(SettingsError, match="MOUSETRAP_EVENTS_EXCHANGE"):
        mousetrap.run(double, settings.replace(events_exchange=""))


def test_send_asks_where_when_there_are_two_ways_in(settings):
    """Two stages that nobody feeds: the sender has to choose."""
    with mousetrap.run([double, fetch], settings) as run:
        with pytest.raises(SettingsError, match="one of numbers, start_fetch"):
            run.send(1)
        run.send(1, to="numbers")
        assert run.settle(timeout=10).done == 1
    with pytest.raises(MousetrapError, match="not open"):
        run.send(1, to="numbers")


def test_run_that_cannot_start_leaves_nothing(settings, own_state):
    """A wrong password: the error, no thread, and nothing that a sweep could not forget."""
    before = threading.active_count()

    with pytest.raises(AccessRefused), mousetrap.run(double, settings.replace(password="wrong")):
        pytest.fail("it started")

    assert threading.active_count() <= before
    assert [each.queues for each in sweep(settings)] == [()]
    assert list(own_state.iterdir()) == []


def test_run_writes_its_progress_where_it_is_asked(settings, tmp_path, monkeypatch):
    """`mousetrap check` reads the counts of the stages while the notebook runs."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("MOUSETRAP_PROGRESS", str(path))

    with mousetrap.run([double, show], settings) as run:
        run.send_many(range(5))
        run.settle(timeout=10)

    progress = json.loads(path.read_text())
    assert progress["namespace"] == run.namespace
    assert (progress["open"], progress["stages"]["show"]["done"]) == (0, 5)
    assert list(tmp_path.iterdir()) == [path]


# ---- leftovers -----------------------------------------------------------------------------------


def test_sweep_leaves_live_runs_alone(settings, own_state):
    """A lease whose lock is held is somebody's run; one that ended well has no lease."""
    with mousetrap.run(double, settings) as run:
        assert sweep(settings) == []
        assert run.settle(timeout=5).sent == 0
        assert len(list(own_state.iterdir())) == 1

    assert list(own_state.iterdir()) == []


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_sweep_removes_what_a_killed_run_left(settings, own_state, workers):
    """kill -9 in the middle: the sweep names the run, removes its queues, and has then nothing."""
    program = f"""
        import mousetrap
        from mousetrap.run_fetch_worker import fetch
        from mousetrap.start_fetch import FetchJob
        settings = mousetrap.Settings.from_environment()
        with mousetrap.run(fetch, settings, workers={workers!r}) as run:
            run.send_many(FetchJob(n, latency=0.1) for n in range(100))
            run.ledger.wait_for(lambda: run.ledger.open < 99, 30)
            print(run.namespace, flush=True)
            run.settle(timeout=60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.to_environment(),
    )  # fmt: skip
    namespace = child.stdout.readline().strip()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    run = mousetrap.run(fetch, settings)
    run.settings = run.settings.replace(namespace=namespace)
    assert left_at_the_broker(run)

    [leftover] = sweep(settings)

    assert leftover.namespace == namespace
    assert leftover.problem == ""
    assert f"{namespace}.start_fetch" in leftover.queues
    assert str(child.pid) in leftover.process
    assert left_at_the_broker(run) == {}
    assert sweep(settings) == []


def test_queues_of_a_failed_run_stay_and_expire(settings, own_state, capsys):
    """After an error they can be looked at; when nobody does, they are gone by themselves."""
    run = mousetrap.run(stubborn, settings.replace(queue_expiry=1.0))

    def fail():
        with run:
            run.send(1)
            run.settle(timeout=0.5)

    with pytest.raises(NotSettled):
        fail()

    assert left_at_the_broker(run)
    assert f"MOUSETRAP_NAMESPACE={run.namespace} mousetrap queues" in capsys.readouterr().err
    deadline = time.monotonic() + 15
    pause = threading.Event()
    while pause.wait(1.5) or job_queue.depths(
        run._wire_names(), settings.replace(namespace="")
    ) != [None] * len(run._wire_names()):
        assert time.monotonic() < deadline

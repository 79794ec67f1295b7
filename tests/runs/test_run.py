"""A run is isolated from others, ends when all outcomes are known, and counts each message."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import types

import pytest
from support.messages import existing_queues
from support.stages import QUICK, double, show, stubborn

import mousetrap
from mousetrap import stage
from mousetrap.errors import (
    AccessRefused,
    MousetrapError,
    NotSettled,
    SettingsError,
)
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.runs.run_lock import sweep
from mousetrap.start_fetch import FetchJob


def test_run_accounts_for_every_message(settings):
    """Messages are done, dead with a reason, or results; afterwards no queue is left."""
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
    assert existing_queues(run) == {}


def test_a_run_needs_few_connections_and_one_answer_to_delete_its_queues(proxy):
    """Two connections of the run, two of each worker, one at the end, however many queues."""
    answers = proxy.at("Queue.DeleteOk", "from broker", number=1000)  # is never reached
    with mousetrap.run([double, show], proxy.settings) as run:
        assert proxy.connections == 6

    assert (proxy.connections, 1000 - answers.number) == (7, 1)
    assert existing_queues(run) == {}


def test_run_works_in_processes(settings):
    """The workers are processes of `mousetrap work`, two of them for one stage."""
    options = {"workers": "processes", "processes": {"fetch": 2}, "retry_delays": QUICK}
    with mousetrap.run([fetch, process], settings, **options) as run:
        run.send_many(FetchJob(n, failure_rate=0.3) for n in range(40))
        summary = run.settle(timeout=40)
        again = run.settle(timeout=1)

    assert (summary.lost, summary.done + summary.dead) == (0, 40)
    assert summary.retried > 0
    assert again == summary
    assert len({outcome.worker for e in run.ledger.entries() for outcome in e.outcomes}) >= 2


def test_run_counts_the_work_of_other_workers(settings):
    """It receives the outcomes of workers that it did not start, in its namespace."""
    with (
        mousetrap.run(double, settings, workers="none") as run,
        double.start(run.settings) as worker,
    ):
        run.send(4)
        summary = run.settle(timeout=10)

    assert summary.done == worker.statistics().done == 1


def test_run_takes_a_module_as_a_flow(settings):
    """Its stages are those in the module, in their order there."""
    module = types.ModuleType("my_flow")
    module.__dict__.update(first=double, second=show, alias=double, other=len)

    with mousetrap.run(module, settings) as run:
        run.send(1)
        run.settle(timeout=10)

    assert run.flow.stages == [double, show]


def test_simultaneous_runs_do_not_affect_each_other(settings):
    """Of ten runs on one broker, each counts its own messages only."""
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


def test_run_runs_coroutines(settings):
    """Stages may be `async def`."""

    @stage(reads="waits", concurrency=50)
    async def wait(n: int) -> None:
        await asyncio.sleep(0.1)

    with mousetrap.run(wait, settings) as run:
        run.send_many(range(50))
        summary = run.settle(timeout=20)

    assert summary.done == 50


def test_run_shows_itself(settings):
    """Table, diagram, plot and repr show the counts, and no password."""
    pytest.importorskip("matplotlib").use("agg")
    with mousetrap.run([double, show], settings) as run:
        run.send_many([1, 13])
        run.settle(timeout=10)
        rows = list(run.messages())
        run.plot()
        picture = run.diagram()._repr_mimebundle_()

    assert {row["stage"] for row in rows} == {"double", "double → show", "double → show → shown"}
    assert {row["outcome"] for row in rows} == {"done", "dead", "result"}
    assert "1 done" in picture["text/plain"]
    assert picture["image/svg+xml"].startswith("<svg")
    assert "2 sent, 1 done, 1 dead, 0 open" in repr(run)
    assert settings.password not in repr(run)


@stage(reads="numbers", writes="out")
def tell(n: int) -> int:
    mousetrap.send("told", [n, n + 1])
    return n


def test_summary_counts_what_handlers_sent_themselves(settings):
    """Beside the jobs, and all messages that came of them."""
    with mousetrap.run(tell, settings) as run:
        run.send_many(range(5))
        summary = run.settle(timeout=10)

    assert (summary.sent, summary.messages, summary.own_sends) == (5, 20, 10)
    assert any(line.split()[-2:] == ["20", "10"] for line in str(summary).splitlines())


def test_run_is_shown_by_the_panel_outside_a_kernel_too(settings):
    """The panel registers its view when it is imported; the run imports it when it is shown."""
    run = mousetrap.run(double, settings)

    bundle = run._repr_mimebundle_()

    assert bundle["text/plain"] == repr(run)
    assert f"run {run.namespace}" in bundle["text/html"]


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
    """The error says what is wrong before anything is started."""
    with pytest.raises(SettingsError, match=says):
        mousetrap.run(flow, settings, **options)


def test_run_refuses_processes_for_a_stage_of_this_process(settings):
    """Another process cannot import a function that is defined in a notebook."""

    @stage(reads="here")
    def local(n: int) -> None: ...

    with pytest.raises(SettingsError, match=r"only this process has it: put it into a module"):
        mousetrap.run(local, settings, workers="processes")


def test_run_needs_events(settings):
    """Without events a run would receive no outcomes."""
    with pytest.raises(SettingsError, match="MOUSETRAP_EVENTS_EXCHANGE"):
        mousetrap.run(double, settings.replace(events_exchange=""))


def test_send_needs_a_queue_when_there_are_two_entry_queues(settings):
    """Two stages read queues that no stage writes, so the caller has to choose one."""
    with mousetrap.run([double, fetch], settings) as run:
        with pytest.raises(SettingsError, match="one of numbers, start_fetch"):
            run.send(1)
        run.send(1, to="numbers")
        assert run.settle(timeout=10).done == 1
    with pytest.raises(MousetrapError, match="closed: make a new one"):
        run.send(1, to="numbers")


def test_run_that_cannot_start_leaves_nothing(settings, own_state):
    """After a wrong password there is no thread, and a sweep finds no queue to delete."""
    before = threading.active_count()

    with pytest.raises(AccessRefused), mousetrap.run(double, settings.replace(password="wrong")):
        pytest.fail("it started")

    assert threading.active_count() <= before
    assert [each.queues for each in sweep(settings)] == [()]
    assert list(own_state.iterdir()) == []


def test_run_writes_its_progress_to_a_file(settings, tmp_path, monkeypatch):
    """`mousetrap check` reads the counts of the stages from it while the notebook runs."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("MOUSETRAP_PROGRESS", str(path))

    with mousetrap.run([double, show], settings) as run:
        run.send_many(range(5))
        run.settle(timeout=10)

    progress = json.loads(path.read_text())
    assert progress["namespace"] == run.namespace
    assert (progress["open"], progress["stages"]["show"]["done"]) == (0, 5)
    assert list(tmp_path.iterdir()) == [path]


def test_queues_of_a_failed_run_stay_until_they_expire_or_are_swept(settings, own_state, capsys):
    """After an error you can look at them; a retry queue never expires with its messages."""
    run = mousetrap.run(stubborn, settings.replace(queue_expiry=1.0))

    def fail():
        with run:
            run.send(1)
            run.settle(timeout=0.5)

    with pytest.raises(NotSettled):
        fail()

    assert existing_queues(run)
    told = re.search(r"MOUSETRAP_NAMESPACE=(\S+) mousetrap queues (.*);", capsys.readouterr().err)
    assert told, "no command that shows the queues"
    assert told[1] == run.namespace
    names = [stubborn.queue.name, stubborn.queue.dead]
    assert told[2].split()[:2] == names
    retry = run.settings.topology.wire_name(stubborn.queue.retry_queue(30.0))
    deadline = time.monotonic() + 15
    pause = threading.Event()
    # longer than the expiry, because counting the messages is a use of a queue
    while pause.wait(1.5) or set(existing_queues(run)) != {retry}:
        assert time.monotonic() < deadline
    assert [each.queues for each in sweep(settings)] == [(retry,)]

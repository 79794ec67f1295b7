"""Faults on purpose: each one happens, or says that it did not, and nothing is lost by it."""

from __future__ import annotations

import os
import threading

import pytest

import mousetrap
from mousetrap import Message, Publisher, stage
from mousetrap.errors import FaultError, OutcomeUnknown, WireError
from mousetrap.job_queue import declare, depth, drain
from mousetrap.run_fetch_worker import fetch
from mousetrap.run_processing_worker import process
from mousetrap.settings import Settings
from mousetrap.start_fetch import FetchJob

QUICK = (0.05, 0.1)  # seconds


@stage(reads="counted", writes="counted_done")
def count(n: int) -> int:
    return n


@pytest.fixture
def faults(settings):
    with mousetrap.faults(settings, seed=7) as faults:
        yield faults


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cut_breaks_all_connections_and_the_run_goes_on(faults):
    """Everybody is back within seconds; nothing is lost."""
    with mousetrap.run(count, faults.settings) as run:
        run.send_many(range(200))
        injected = faults.cut()
        faults.wait_until_healed(20)
        summary = run.settle(30)

    assert (summary.done, summary.lost) == (200, 0)
    assert injected.triggered
    assert injected.lost >= 2  # the worker, and the run that hears the fates
    assert 0 < injected.seconds < 20
    assert not faults.not_triggered


def test_lost_ack_brings_the_message_again(faults):
    """The worker has done it, the broker does not know: it is done twice, under one id."""
    with mousetrap.run(count, faults.settings, concurrency=1, prefetch=1) as run:
        injected = faults.lose_ack()
        run.send_many(range(20))
        injected.wait(20)
        summary = run.settle(30)

    assert injected.triggered
    assert injected.healed
    assert (summary.done, summary.lost) == (20, 0)
    assert summary.duplicates == 1


def test_lost_confirm_leaves_the_sender_in_doubt(faults, settings):
    """The broker has the message and its sender does not know: sent again, it is there twice."""
    declare("work", settings=settings)
    messages = [Message(n) for n in range(5)]
    unknown = []
    with Publisher(faults.settings) as publisher:
        injected = faults.lose_confirm()
        for message in messages:
            try:
                publisher.publish(message, "work").wait(20)
            except OutcomeUnknown:
                unknown.append(message)
                publisher.publish(message, "work").wait(20)
    found = [each.id for each in drain("work", settings=settings)]

    assert injected.triggered
    assert len(unknown) == 1
    assert sorted(found) == sorted(each.id for each in messages + unknown)


def test_duplicate_makes_one_message_arrive_twice_unseen_by_its_sender(faults, settings):
    """Byte for byte, with its id; the confirms of the others are still theirs."""
    declare("work", settings=settings)
    messages = [Message(n) for n in range(10)]
    injected = faults.duplicate("work")
    with Publisher(faults.settings) as publisher:
        receipts = publisher.publish_many(messages, "work")
        publisher.flush(10)
    found = [(each.id, each.data) for each in drain("work", settings=settings)]

    assert injected.triggered
    assert all(receipt.confirmed for receipt in receipts)
    assert len(found) == 11
    assert set(found) == {(each.id, n) for n, each in enumerate(messages)}


def test_duplicate_is_handled_twice_and_counted(faults):
    """The ledger knows: one message too many was done, none is missing."""
    with mousetrap.run(count, faults.settings) as run:
        faults.duplicate("counted")
        run.send_many(range(10))
        summary = run.settle(20)

    assert (summary.done, summary.lost, summary.duplicates) == (10, 0, 1)


def test_killed_worker_is_replaced_and_its_messages_come_again(faults):
    """One process of two dies by SIGKILL; the next one takes its place."""
    options = {"workers": "processes", "retry_delays": QUICK}
    with mousetrap.run([fetch, process], faults.settings, **options) as run:
        run.send_many(FetchJob(n, latency=0.01) for n in range(60))
        injected = faults.kill_worker()
        pid = int(injected.what.rpartition(" ")[2])
        summary = run.settle(40)
        faults.wait_until_healed(20)

    assert injected.triggered
    assert injected.seconds > 0
    assert not is_running(pid)
    assert (summary.done, summary.lost) == (60, 0)


def test_kill_worker_refuses_to_kill_this_process(faults):
    """Workers on threads die with everything else: say so instead."""
    with (
        mousetrap.run(count, faults.settings),
        pytest.raises(FaultError, match="workers='processes'"),
    ):
        faults.kill_worker()


def test_kill_worker_wants_to_know_which_run(faults):
    """No run goes through these faults, so none is hurt."""
    with pytest.raises(FaultError, match="0 runs use these faults"):
        faults.kill_worker()


def test_restart_refuses_a_broker_that_is_not_ours(faults):
    """Somebody else's messages are in it."""
    assert not faults.can_restart_broker
    with pytest.raises(FaultError, match="has not started the broker"):
        faults.restart_broker()
    assert faults.injected == []


@pytest.mark.local
def test_restarted_broker_has_every_message_and_settle_outlasts_it(node):
    """Killed while a run waits for its end: the run waits on, and all of it is there."""
    with (
        mousetrap.faults(node.settings) as faults,
        mousetrap.run(count, faults.settings) as run,
    ):
        pid = node.pid
        run.send_many(range(300))
        planting = threading.Thread(target=faults.restart_broker)
        planting.start()
        summary = run.settle(60)
        planting.join(60)
        faults.wait_until_healed(30)

    [injected] = faults.injected
    assert injected.triggered
    assert injected.seconds > 0
    assert node.pid != pid
    assert (summary.done, summary.lost) == (300, 0)


def test_fault_that_did_not_happen_is_void(settings):
    """No connection to cut, no ack to lose: that proves nothing, and says so."""
    with mousetrap.faults(settings) as faults:
        cut, ack = faults.cut(), faults.lose_ack()
        with pytest.raises(FaultError, match="cut was not triggered: there was no connection"):
            cut.wait(1)
        with pytest.raises(FaultError, match="send more"):
            ack.wait(0.05)
        with pytest.raises(FaultError, match="cut was not triggered"):
            faults.wait_until_healed(0.05)

    assert faults.not_triggered == [cut, ack]
    assert [row["triggered"].partition(":")[0] for row in faults.table()] == [
        "not triggered",
        "not triggered",
    ]
    assert "not triggered: nothing that it applies to passed" in repr(faults)
    assert "<table>" in faults._repr_html_()


def test_same_seed_gives_the_same_faults(settings):
    """What is left to chance can be played again."""
    choices = []
    for seed in (1, 1, 2, 3, 4):
        with mousetrap.faults(settings, seed=seed) as faults:
            choices.append([faults.lose_ack().what for _ in range(8)])

    assert choices[0] == choices[1]
    assert len({tuple(each) for each in choices}) > 1


def test_faults_say_what_they_cannot_do(settings):
    """An unknown name lists the known ones; TLS cannot be read; nothing begins before its block."""
    with (
        mousetrap.faults(settings) as faults,
        pytest.raises(FaultError, match="use one of cut, lose_ack"),
    ):
        faults.inject("earthquake")
    with pytest.raises(FaultError, match="TLS"):
        mousetrap.faults(settings.replace(tls=True))
    with pytest.raises(FaultError, match="with block"):
        mousetrap.faults(Settings()).settings  # noqa: B018 -- looking is what is tested


def test_faults_leave_nothing_behind(settings):
    """Afterwards nobody listens, and no thread of theirs goes on."""
    with mousetrap.faults(settings) as faults:
        depth_settings = faults.settings
        declare("work", settings=depth_settings)
    with pytest.raises(WireError):
        depth("work", depth_settings.replace(connect_timeout=1))


def test_picture_marks_the_faults_that_landed(settings):
    """A line and a number for each, a band until it was healed; the void one is not drawn."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    with mousetrap.faults(settings) as faults:
        faults.cut()  # nobody is there
        with mousetrap.run(count, faults.settings) as run:
            run.send_many(range(50))
            triggered = faults.cut()
            run.settle(30)
            assert triggered._wait_for(lambda: triggered.healed is not None, 20)
            run.plot(faults)
    rate, backlog = pyplot.gcf().axes

    assert [text.get_text() for text in rate.texts] == ["1"]
    assert rate.get_title() == "50 messages; faults: 1"
    assert len(rate.patches) == 2  # the rate, and the band
    assert backlog.lines[0].get_ydata()[-1] == 0
    pyplot.close("all")

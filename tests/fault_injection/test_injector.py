"""Fault injection: each fault is triggered or says that it was not, and no message is lost."""

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
    """After a cut all clients reconnect within seconds, and nothing is lost."""
    with mousetrap.run(count, faults.settings) as run:
        run.send_many(range(200))
        fault = faults.cut()
        faults.wait_until_healed(20)
        summary = run.settle(30)

    assert (summary.done, summary.lost) == (200, 0)
    assert fault.triggered
    assert fault.lost >= 2  # the worker, and the run that consumes events
    assert 0 < fault.seconds < 20
    assert not faults.not_triggered


def test_lost_ack_brings_the_message_again(faults):
    """A message whose ack was lost is done twice, with the same result id."""
    with mousetrap.run(count, faults.settings, concurrency=1, prefetch=1) as run:
        fault = faults.lose_ack()
        run.send_many(range(20))
        fault.wait(20)
        summary = run.settle(30)

    assert fault.triggered
    assert fault.healed
    assert (summary.done, summary.lost) == (20, 0)
    assert summary.duplicates == 1


def test_lost_confirm_leaves_the_sender_in_doubt(faults, settings):
    """A message whose confirm was lost is unknown to its sender, who publishes it twice."""
    declare("work", settings=settings)
    messages = [Message(n) for n in range(5)]
    unknown = []
    with Publisher(faults.settings) as publisher:
        fault = faults.lose_confirm()
        for message in messages:
            try:
                publisher.publish(message, "work").wait(20)
            except OutcomeUnknown:
                unknown.append(message)
                publisher.publish(message, "work").wait(20)
    found = [each.id for each in drain("work", settings=settings)]

    assert fault.triggered
    assert len(unknown) == 1
    assert sorted(found) == sorted(each.id for each in messages + unknown)


def test_duplicate_makes_one_message_arrive_twice_unseen_by_its_sender(faults, settings):
    """One message arrives twice, byte for byte; the confirms of the others are right."""
    declare("work", settings=settings)
    messages = [Message(n) for n in range(10)]
    fault = faults.duplicate("work")
    with Publisher(faults.settings) as publisher:
        receipts = publisher.publish_many(messages, "work")
        publisher.flush(10)
    found = [(each.id, each.data) for each in drain("work", settings=settings)]

    assert fault.triggered
    assert all(receipt.confirmed for receipt in receipts)
    assert len(found) == 11
    assert set(found) == {(each.id, n) for n, each in enumerate(messages)}


def test_duplicate_is_handled_twice_and_counted(faults):
    """The ledger counts one duplicate, and no message is missing."""
    with mousetrap.run(count, faults.settings) as run:
        faults.duplicate("counted")
        run.send_many(range(10))
        summary = run.settle(20)

    assert (summary.done, summary.lost, summary.duplicates) == (10, 0, 1)


def test_killed_worker_is_replaced_and_its_messages_come_again(faults):
    """After SIGKILL of one of two processes another starts, and its messages are redelivered."""
    options = {"workers": "processes", "retry_delays": QUICK}
    with mousetrap.run([fetch, process], faults.settings, **options) as run:
        run.send_many(FetchJob(n, latency=0.01) for n in range(60))
        fault = faults.kill_worker()
        pid = int(fault.what.rpartition(" ")[2])
        summary = run.settle(40)
        faults.wait_until_healed(20)

    assert fault.triggered
    assert fault.seconds > 0
    assert not is_running(pid)
    assert (summary.done, summary.lost) == (60, 0)


def test_kill_worker_refuses_to_kill_this_process(faults):
    """If the workers are threads, it raises."""
    with (
        mousetrap.run(count, faults.settings),
        pytest.raises(FaultError, match="workers='processes'"),
    ):
        faults.kill_worker()


def test_kill_worker_wants_to_know_which_run(faults):
    """If no run uses the proxy, it raises."""
    with pytest.raises(FaultError, match="0 runs use these faults"):
        faults.kill_worker()


def test_restart_refuses_a_broker_that_is_not_ours(faults):
    """A broker that this process has not started is not restarted."""
    assert not faults.can_restart_broker
    with pytest.raises(FaultError, match="has not started the broker"):
        faults.restart_broker()
    assert faults.injected == []


@pytest.mark.local
def test_restarted_broker_has_every_message_and_settle_outlasts_it(node):
    """A run that settles while the broker restarts goes on, with every message."""
    with (
        mousetrap.faults(node.settings) as faults,
        mousetrap.run(count, faults.settings) as run,
    ):
        pid = node.pid
        run.send_many(range(300))
        restart = threading.Thread(target=faults.restart_broker)
        restart.start()
        summary = run.settle(60)
        restart.join(60)
        faults.wait_until_healed(30)

    [fault] = faults.injected
    assert fault.triggered
    assert fault.seconds > 0
    assert node.pid != pid
    assert (summary.done, summary.lost) == (300, 0)


def test_fault_that_did_not_happen_is_not_triggered(settings):
    """A fault without a connection or an ack says that it was not triggered."""
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
    """The same seed makes the same choices."""
    choices = []
    for seed in (1, 1, 2, 3, 4):
        with mousetrap.faults(settings, seed=seed) as faults:
            choices.append([faults.lose_ack().what for _ in range(8)])

    assert choices[0] == choices[1]
    assert len({tuple(each) for each in choices}) > 1


def test_faults_say_what_they_cannot_do(settings):
    """An unknown name, TLS, and use outside the block raise errors that say so."""
    with (
        mousetrap.faults(settings) as faults,
        pytest.raises(FaultError, match="use one of cut, lose_ack"),
    ):
        faults.inject("earthquake")
    with pytest.raises(FaultError, match="TLS"):
        mousetrap.faults(settings.replace(tls=True))
    with pytest.raises(FaultError, match="with block"):
        mousetrap.faults(Settings()).settings  # noqa: B018 -- reading the property is what is tested


def test_faults_leave_nothing_behind(settings):
    """After the block nothing listens on the port."""
    with mousetrap.faults(settings) as faults:
        depth_settings = faults.settings
        declare("work", settings=depth_settings)
    with pytest.raises(WireError):
        depth("work", depth_settings.replace(connect_timeout=1))


def test_plot_marks_the_triggered_faults(settings):
    """The plot has a line and a band for a triggered fault, and nothing for another."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    with mousetrap.faults(settings) as faults:
        faults.cut()  # there is no connection
        with mousetrap.run(count, faults.settings) as run:
            run.send_many(range(50))
            triggered = faults.cut()
            run.settle(30)
            assert triggered._wait_for(lambda: triggered.healed is not None, 20)
            run.plot(faults)
    rate, backlog = pyplot.gcf().axes

    texts = [text.get_text() for text in rate.texts]
    assert "1" in texts
    assert any(text.startswith("1 fault, healed") for text in texts)
    assert "messages done per second, 50 in all" in texts
    assert len(rate.patches) == 2  # the rate, and the band
    assert backlog.lines[0].get_ydata()[-1] == 0
    pyplot.close("all")

"""Faults of a queue itself: the broker refuses it, forgets it, or it does not answer.

It is a retry queue, or another quorum queue that was declared a moment ago.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable

import pytest
from rig import brokers
from rig.trial import Trial, trial_counts
from support.waiting import wait_for

from mousetrap.amqp.new_queues import NEW_QUEUE_TIME
from mousetrap.broker import probe
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import delete, depth
from mousetrap.model.message import current_message
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

CONFIRM_TIMEOUT = 3.0  # seconds


class OddFailsOnce:
    """A handler that raises at the first attempt of each odd id."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def __call__(self, id: str) -> str:
        if int(id) % 2 and id not in self.failed:
            self.failed.add(id)
            raise ConnectionError("no luck")
        return id


def fails_first(id: str) -> str:
    """Raise at the first attempt; a message that comes again because nobody acked it has none."""
    if current_message.get().attempt == 1:
        raise ConnectionError("no luck")
    return id


def tee(handled: list[str]) -> Callable[[str], str]:
    """Return a handler that appends each id to *handled* and returns it."""

    def handle(id: str) -> str:
        handled.append(id)
        return id

    return handle


def repeat(fault_row, times, trial_of):
    """Call *trial_of* with 0, 1, ... until its fault has happened *times* times.

    It returns the history, and whether the fault happened; if not, the trial does not count.
    """
    for number in itertools.count():
        history, is_triggered = trial_of(number)
        if not is_triggered:
            fault_row.count_not_triggered(4 * times)  # fails in the end
            continue
        fault_row.add(history)
        if fault_row.trials == times:
            return


@pytest.mark.fault("F30")
@trial_counts(1, 10)
def test_broker_killed_after_the_declaration(rabbit, rabbit_settings, fault_row, times):
    """Retries of the first moment survive, although RabbitMQ forgets that queue and has confirmed.

    The kill comes after the confirms and before RabbitMQ has written the name of the queue.
    """

    def trial_of(number):
        settings = rabbit_settings.replace(
            namespace=f"{rabbit_settings.namespace}-{number}", confirm_timeout=CONFIRM_TIMEOUT
        )
        handler = OddFailsOnce()
        with Trial(settings, Queue("work", (4.0,))) as trial:
            trial.send(f"{n}" for n in range(100))
            with Worker(trial.queue, handler, settings, writes="out", prefetch=256) as worker:
                wait_for(lambda: len(handler.failed) == 50)
                time.sleep(0.1)  # the fault: the confirms come meanwhile
                rabbit.kill()
                rabbit.start()
                trial.settle(60)
                trial.wait_until_idle(worker)
            history = trial.drain_queues()
        return history, brokers.has_forgotten(rabbit, trial.wire_name("work.retry.4s"))

    repeat(fault_row, times, trial_of)


@pytest.mark.fault("F30")
@trial_counts(1, 10)
def test_broker_killed_after_the_first_outputs(rabbit, rabbit_settings, fault_row, times):
    """Outputs to a quorum queue that their worker has just declared survive in the same way.

    Before 4.3 that queue has no leader afterwards: somebody has to delete it.
    """
    needs_deletion = (probe.version(rabbit_settings) or "") < "RabbitMQ 4.3"

    def trial_of(number):
        patient = rabbit_settings.replace(
            namespace=f"{rabbit_settings.namespace}-{number}", queue_type="quorum"
        )
        settings = patient.replace(confirm_timeout=CONFIRM_TIMEOUT)
        handled = []
        with Trial(settings, declares_results=False) as trial:
            trial.send(f"{n}" for n in range(100))
            with Worker(trial.queue, tee(handled), settings, writes="out", prefetch=256) as worker:
                wait_for(lambda: len(handled) == 100)
                time.sleep(0.1)  # the fault: the confirms come meanwhile
                rabbit.kill()
                rabbit.start()
                is_forgotten = brokers.has_forgotten(rabbit, trial.wire_name("out"))
                if is_forgotten and needs_deletion:
                    delete("out", settings=patient)  # takes five seconds
                trial.settle(60)
                trial.wait_until_idle(worker)
            return trial.drain_queues(), is_forgotten

    repeat(fault_row, times, trial_of)


REFUSALS = {
    "permission": (
        ["set_permissions", "DEV_USER", r"^(?!.*\.retry\.)", ".*", ".*"],
        ["set_permissions", "DEV_USER", ".*", ".*", ".*"],
        "ACCESS_REFUSED",
    ),
    "limit": (
        ["set_vhost_limits", '{"max-queues": 1}'],
        ["clear_vhost_limits"],
        "limit in vhost",
    ),
}


@pytest.mark.fault("F39")
@pytest.mark.parametrize("refusal", REFUSALS)
def test_retry_queue_is_refused(rabbit, rabbit_settings, fault_row, refusal):
    """Other messages are done meanwhile; the retries go on when the queue is allowed."""
    refuse, allow, reason = REFUSALS[refusal]
    handler = OddFailsOnce()
    with (
        Trial(rabbit_settings, Queue("work", (0.2,))) as trial,
        Worker(trial.queue, handler, rabbit_settings, writes="out", prefetch=64) as worker,
    ):
        rabbit.rabbitmqctl(*refuse)
        try:
            trial.send(f"{n}" for n in range(40))
            worker.wait_until(done=20, timeout=20)
            wait_for(lambda: reason in worker.statistics().problem)
            assert "job_queue.declare" not in worker.statistics().problem
        finally:
            rabbit.rabbitmqctl(*allow)
        trial.settle(30)
        trial.wait_until_idle(worker)
        wait_for(lambda: not worker.statistics().problem)
        assert worker.statistics().retried == 20
        fault_row.add(trial.drain_queues())


@pytest.mark.fault("F39")
def test_retry_queue_does_not_answer(rabbit, rabbit_settings, fault_row, caplog):
    """If a retry queue confirms nothing, as one without a leader, retries wait in another one."""
    caplog.set_level(logging.WARNING, "mousetrap")
    settings = rabbit_settings.replace(confirm_timeout=1.0)
    handler = OddFailsOnce()
    with (
        Trial(settings, Queue("work", (0.2,))) as trial,
        Worker(trial.queue, handler, settings, writes="out", prefetch=64) as worker,
    ):
        trial.send(["1"])
        trial.settle()
        trial.wait_until_idle(worker)
        name = trial.wire_name("work.retry.0.2s")
        rabbit.rabbitmqctl("eval", f'sys:suspend(list_to_atom("%2F_{name}")).')
        trial.send(f"{n}" for n in range(2, 42))
        trial.settle(30)
        rabbit.rabbitmqctl("eval", f'sys:resume(list_to_atom("%2F_{name}")).')
        trial.wait_until_idle(worker)
        assert f"{name!r} has confirmed no message" in worker.statistics().problem
        assert caplog.text.count("has confirmed no message") == 1
        assert depth("work.retry.0.2s.2", settings).messages == 0
        fault_row.add(trial.drain_queues())


@pytest.mark.fault("F39")
@trial_counts(10, 100)
def test_no_connection_lives_long(rabbit_settings, fault_row, times):
    """The confirms of an old retry queue count at once on each new connection.

    Each connection is shorter than the time for which those of a new queue do not count.
    """
    with (
        Proxy(rabbit_settings) as proxy,
        Trial(rabbit_settings, Queue("work", (0.2,))) as trial,
        Worker(trial.queue, fails_first, proxy.settings, writes="out", prefetch=2) as worker,
    ):
        trial.send(["1"])
        trial.settle()
        trial.wait_until_idle(worker)  # from now on the queue is old
        proxy.cut()
        trial.send(f"{n}" for n in range(2, times + 2))
        cuts = 0
        while trial.missing:
            assert cuts < 3 * times
            wait_for(lambda: worker.statistics().consuming, 20)
            time.sleep(NEW_QUEUE_TIME / 2)  # the fault: so long is the connection open
            proxy.cut()
            cuts += 1
            trial.collect()
        trial.wait_until_idle(worker)
        fault_row.add(trial.drain_queues(), cuts)


@pytest.mark.fault("F39")
def test_old_queue_is_deleted_and_the_broker_killed(rabbit, rabbit_settings, fault_row):
    """A retry queue that somebody deletes is new again when it is declared for the next message."""
    handler = OddFailsOnce()
    with (
        Trial(rabbit_settings, Queue("work", (4.0,))) as trial,
        Worker(trial.queue, handler, rabbit_settings, writes="out", prefetch=256) as worker,
    ):
        trial.send(["1"])
        trial.settle()
        trial.wait_until_idle(worker)
        delete(trial.queue.retry_queue(4.0), settings=rabbit_settings)
        trial.send(f"{n}" for n in range(2, 102))
        wait_for(lambda: len(handler.failed) == 51)
        wait_for(lambda: depth("work.retry.4s", rabbit_settings).messages == 50)
        rabbit.kill()
        rabbit.start()
        trial.settle(60)
        trial.wait_until_idle(worker)
        fault_row.add(trial.drain_queues())

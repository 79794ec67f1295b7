"""Faults of counting: messages that a run did not send, and that a worker elsewhere holds."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from rig.trial import trial_counts
from support.processes import other_process
from support.waiting import wait_for

import mousetrap
from mousetrap import job_queue, stage
from mousetrap.errors import NotSettled
from mousetrap.job_queue import open_channel

ELSEWHERE = (Path(__file__).parents[1] / "rig" / "relay_workers.py").read_text()
MESSAGES = 6  # of one trial
TIMEOUT = 30.0  # seconds for a settle


@stage(reads="work")
def relay(n: int) -> None: ...


@stage(reads="archive")
def archive(n: int) -> None: ...


def publish(channel, run, number):
    """Publish as another program does: the run does not know of these messages."""
    work = f"{run.namespace}.work"
    for n in range(number):
        channel.basic_publish("", work, str(n).encode())
    channel.queue_declare(work, passive=True)  # its answer shows that they are in the queue


@pytest.mark.fault("F41")
@trial_counts(20, 200)
@pytest.mark.parametrize("way", ["pika", "send"])
def test_settle_while_another_process_holds_messages_sent_by(settings, fault_row, way, times):
    """Whatever the ledger knows of them: `settle` returns when the last one was handled."""
    os.environ["RIG_RELAY"] = way
    with mousetrap.run([relay, archive], settings, workers="none") as run, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(other_process(run.settings, ELSEWHERE))
        channel = stack.enter_context(open_channel(run.settings))
        for trial in range(times):
            publish(channel, run, MESSAGES)

            run.settle(timeout=TIMEOUT)

            handled = run.ledger.counts().get("archive", {"done": 0})["done"]
            fault_row.trials += 1
            fault_row.messages += MESSAGES
            fault_row.lost += (trial + 1) * MESSAGES - handled
            assert handled == (trial + 1) * MESSAGES


@pytest.mark.fault("F41")
@trial_counts(1, 20)
def test_settle_while_a_stopped_process_holds_messages(settings, fault_row, times):
    """SIGSTOP: the worker cannot answer; `settle` does not return, and says who is silent."""
    os.environ["RIG_RELAY"] = "pika"
    with mousetrap.run([relay, archive], settings, workers="none") as run, ExitStack() as stack:
        other = stack.enter_context(other_process(run.settings, ELSEWHERE))
        channel = stack.enter_context(open_channel(run.settings))
        run.settle(timeout=TIMEOUT)  # now the run knows the worker
        for trial in range(times):
            os.kill(other.pid, signal.SIGSTOP)
            publish(channel, run, 1)
            work = f"{run.namespace}.work"
            wait_for(lambda: channel.queue_declare(work, passive=True).method.message_count == 0)  # noqa: B023
            with pytest.raises(NotSettled) as silent:
                run.settle(timeout=1.0)
            os.kill(other.pid, signal.SIGCONT)
            run.settle(timeout=TIMEOUT)

            assert f"pid {other.pid} does not answer" in str(silent.value)
            assert run.ledger.counts()["archive"]["done"] == trial + 1
            fault_row.trials += 1
            fault_row.messages += 1


@pytest.mark.fault("F46")
@trial_counts(20, 200)
def test_send_in_a_handler_that_fails_at_random(settings, fault_row, seeded_random, times):
    """Each job is archived once, from whichever attempt; nothing leaves the namespace."""
    outside = settings.replace(queue_expiry=3600.0)  # nobody uses it until the end of the test
    job_queue.declare("archive", settings=outside)  # of the same name, outside the run

    @stage(reads="work", retry_delays=(0.05,) * 20, concurrency=4)
    def sends_and_fails(n: int) -> None:
        thread = threading.Thread(target=mousetrap.send, args=("archive", n))
        thread.start()
        thread.join()
        if seeded_random.random() < 0.3:
            raise ConnectionError("chance")

    with mousetrap.run([sends_and_fails, archive], settings) as run:
        for trial in range(times):
            run.send_many(range(MESSAGES), "work")
            run.settle(timeout=TIMEOUT)

            archived = run.ledger.counts()["archive"]["done"]
            fault_row.trials += 1
            fault_row.messages += MESSAGES
            fault_row.lost += max(0, (trial + 1) * MESSAGES - archived)
            assert archived == (trial + 1) * MESSAGES
    fault_row.unexpected += job_queue.depth("archive", outside).messages
    assert fault_row.unexpected == 0

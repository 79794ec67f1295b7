"""Slow messages are shared: no worker keeps what another one could handle."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
from rig.checker import History
from rig.trial import LONG
from support.messages import send
from support.waiting import wait_for

from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

MESSAGES = 12


class Handling:
    """Takes *seconds* for each message, and keeps the messages."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.done = []

    def __call__(self, number):
        threading.Event().wait(self.seconds)
        self.done.append(number)


def handled_by_two(settings, queue, seconds):
    """Return the messages that each of two workers handled."""
    send(settings, *range(MESSAGES), queue=queue.name)
    handlings = Handling(seconds), Handling(seconds)
    with ExitStack() as stack:
        for handling in handlings:
            worker = stack.enter_context(Worker(queue, handling, settings))
            # the second one may start when the first has also prefetched
            wait_for(lambda worker=worker: worker.statistics().received >= 2)
        wait_for(lambda: sum(len(each.done) for each in handlings) == MESSAGES, 60)
    return [each.done for each in handlings]


@pytest.mark.fault("F44")
@pytest.mark.parametrize(
    ("seconds", "trials"), [(0.3, 1), pytest.param(2.0, 5, marks=LONG)], ids=["quick", "slow"]
)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_second_worker_gets_its_share(rabbit_settings, fault_row, queue_type, seconds, trials):
    """It starts after the first has taken what it wants; each handles five to seven of twelve."""
    settings = rabbit_settings.replace(queue_type=queue_type)
    for trial in range(trials):
        handled = handled_by_two(settings, Queue(f"slow{trial}"), seconds)

        history = History()
        history.attempted = history.confirmed = {str(number) for number in range(MESSAGES)}
        history.effects.update(str(number) for each in handled for number in each)
        fault_row.add(history)
        shares = sorted(map(len, handled))
        assert shares in ([5, 7], [6, 6]), shares

"""Faults of a stage with several targets: each of them gets every output, whenever it is killed."""

from __future__ import annotations

import pytest
from rig import work_stage
from rig.checker import History
from rig.trial import Trial, trial_counts
from support.waiting import wait_for
from test_faults_worker import kill_at, words

from mousetrap.job_queue import declare, drain
from mousetrap.model.topology import Queue

WORK = Queue("work", work_stage.DELAYS)
# The worker takes one message at a time: the first three publishes are its outputs to a queue, an
# exchange and a route, the fourth is the event with the outcome.
STEPS = [
    "handler ends",
    *(
        ("Basic.Publish", "to broker", when, n)
        for n in (1, 2, 3, 4)
        for when in ("before", "after")
    ),
    ("Basic.Ack", "from broker", "before", 1),
    ("Basic.Ack", "from broker", "after", 1),
    ("Basic.Ack", "to broker", "before", 1),
    ("Basic.Ack", "to broker", "after", 1),
]


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        declare(work_stage.COPIES, *work_stage.TARGETS, settings=settings)
        yield trial


class Outputs:
    """The history of each id in each of the target queues."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.histories = {queue: History() for queue in work_stage.TARGETS}

    def collect(self) -> bool:
        """Take what is in the targets; return whether each has each id."""
        sent = self.trial.history
        for queue, history in self.histories.items():
            history.attempted, history.confirmed = sent.attempted, sent.confirmed
            for message in drain(queue, idle=0.05, timeout=2.0, settings=self.trial.settings):
                history.effects[message.data] += 1
                history.names.setdefault(message.data, set()).add(message.id)
        return all(sent.confirmed <= each.effects.keys() for each in self.histories.values())

    def finish(self) -> None:
        """Let a worker without faults handle what is left."""
        with work_stage.fan_out.worker(self.trial.settings) as worker:
            wait_for(self.collect, 30.0)
            self.trial.wait_until_idle(worker)
        self.collect()


@pytest.mark.fault("F51")
@trial_counts(1, 30)
@pytest.mark.parametrize("step", STEPS, ids=words)
def test_fan_out_killed_at(trial, proxy, worker_pool, fault_row, step, times):
    """After SIGKILL at this step each target has each output, always with the same id."""
    outputs, trials = Outputs(trial), 0
    while trials < times:
        trial.send([f"{trials}-{i}" for i in range(3)])
        options = ("--prefetch", "1")
        if isinstance(step, str):
            killed = worker_pool.start(proxy.settings, *options, RIG_TARGETS="1", RIG_KILL=step)
            assert killed.wait() == -9
        else:
            outcome = kill_at(step, proxy, worker_pool)
            killed = worker_pool.start(proxy.settings, *options, RIG_TARGETS="1")
            outcome.wait()
            assert killed.wait() == -9
        outputs.finish()
        trials += 1

    fault_row.trials = trials
    for history in outputs.histories.values():
        fault_row.add(history, 0)

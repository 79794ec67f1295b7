"""Only what dies counts as a loss: connections that break, under a long job."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest
from rig.trial import LONG, Trial, trial_counts
from rig.work_stage import DELAYS
from rig.worker_pool import PoolProcess
from support.waiting import wait_for

from mousetrap.fault_injection.proxy import Proxy
from mousetrap.model.message import current_message
from mousetrap.model.poison_messages import ALONE_FROM, MAX_LOSSES
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

WORK = Queue("work", DELAYS)
PROCESSES = MAX_LOSSES + 1  # each one that gets the job for the first time would count a loss


class LongJob:
    """A job that the worker processes of one queue hold in turn; it ends with the file *gate*.

    Each process connects through a proxy of its own.
    """

    def __init__(self, settings, worker_pool, rabbit, gate: Path):
        self.rabbit, self.gate = rabbit, gate
        self._begun = Path(f"{gate}.begun")
        self._open = contextlib.ExitStack()
        self._proxies: dict[int, Proxy] = {}  # by process
        self.workers: list[PoolProcess] = []
        for _ in range(PROCESSES):
            proxy = self._open.enter_context(Proxy(settings))
            # handlers that lost their message go on, so each begin needs a free one
            worker = worker_pool.start(proxy.settings, "--concurrency", "50", RIG_GATE=str(gate))
            self._proxies[worker.pid] = proxy
            self.workers.append(worker)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gate.touch()
        self._open.close()

    @property
    def begins(self) -> list[tuple[int, int]]:
        """The process and the losses of the job, each time that a handler began with it."""
        lines = self._begun.read_text().splitlines() if self._begun.exists() else []
        return [(int(pid), int(losses)) for pid, losses in map(str.split, lines)]

    def cut_its_worker(self) -> None:
        self._proxies[self.begins[-1][0]].cut()

    def cut_all(self) -> None:
        for proxy in self._proxies.values():
            proxy.cut()

    def close_by_operator(self) -> None:
        self.rabbit.rabbitmqctl("close_all_connections", "maintenance")

    def restart_broker(self) -> None:
        self.rabbit.kill()
        self.rabbit.start()


@pytest.mark.fault("F52")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "how", "times"),
    [("classic", "cut_its_worker", MAX_LOSSES + 2), ("quorum", "cut_all", MAX_LOSSES + 2),
     ("classic", "restart_broker", ALONE_FROM),
     *[pytest.param(kind, how, times, marks=LONG)
       for kind in ("classic", "quorum")
       for how, times in {"cut_its_worker": 40, "cut_all": 40, "close_by_operator": 20,
                          "restart_broker": MAX_LOSSES + 1}.items()]],
)  # fmt: skip
def test_broken_connections_of_a_long_job(
    rabbit_settings, rabbit, worker_pool, fault_row, tmp_path, how, times, kind
):
    """The job is done: it is neither dead-lettered nor quarantined, because its workers live.

    The processes hold it in turn. A new one, or one that held it before the last one, cannot know
    by itself that the last one lives.
    """
    settings = rabbit_settings.replace(queue_type=kind)
    with (
        Trial(settings, WORK) as trial,
        LongJob(settings, worker_pool, rabbit, tmp_path / "gate") as job,
    ):
        trial.send(["a"])
        wait_for(lambda: job.begins, 30)
        for n in range(times):
            began = time.monotonic()
            getattr(job, how)()
            wait_for(lambda n=n: len(job.begins) >= n + 2, 60)
            fault_row.heal_seconds.append(time.monotonic() - began)
        job.gate.touch()
        trial.settle()
        worker_pool.kill_all()
        trial.finish()
        fault_row.add(trial.drain_queues(), times)

    assert not trial.history.dead
    assert max(losses for _, losses in job.begins) < ALONE_FROM
    if how == "cut_its_worker":
        holders = {pid for pid, _ in job.begins}
        assert len(holders) > ALONE_FROM  # fewer cannot count so many losses


@pytest.mark.fault("F52")
@trial_counts(2, MAX_LOSSES + 1)
def test_backlog_when_the_broker_is_killed(rabbit, rabbit_settings, fault_row, times):
    """RabbitMQ marks all of a classic queue as redelivered, but what waited was held by nobody.

    The first mark counts as a loss, from which nothing follows. The others do not.
    """
    losses = []

    def work(id: str) -> str:
        losses.append(current_message.get().losses)
        time.sleep(0.02)  # the work
        return id

    with Trial(rabbit_settings, WORK) as trial:
        trial.send(str(n) for n in range(200 * times))
        with Worker(WORK, work, rabbit_settings, writes="out", prefetch=20) as worker:
            for n in range(times):
                wait_for(lambda n=n: len(losses) > 100 * n)
                rabbit.kill()
                rabbit.start()
                began, done = time.monotonic(), len(losses)
                wait_for(lambda n=n: worker.statistics().reconnects > n, 60)
                # the last of those that were asked for at the same time; then all others go on
                wait_for(lambda done=done: len(losses) > done + 50, 60)
                fault_row.heal_seconds.append(time.monotonic() - began)
            trial.settle(120)
            trial.wait_until_idle(worker)
        fault_row.add(trial.drain_queues(), times)

    assert max(losses) < ALONE_FROM

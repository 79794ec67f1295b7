"""Faults of a worker: killed at each step, too slow, refused by the broker."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from rig.trial import Trial, trial_counts
from rig.work_stage import DELAYS
from support.waiting import wait_for

from mousetrap.errors import QueueMissing
from mousetrap.job_queue import depth, open_channel
from mousetrap.model.poison_messages import MAX_ACK_TIMEOUTS
from mousetrap.model.topology import Queue
from mousetrap.worker.worker import Worker

WORK = Queue("work", DELAYS)
# The steps of one message: method, direction, before or after, which one. The worker takes one
# message at a time here, so the first publish is a result, the second an event with the outcome.
STEPS = [
    ("Basic.Consume", "to broker", "before", 1),
    ("Basic.Deliver", "from broker", "before", 1),
    ("Basic.Deliver", "from broker", "after", 1),
    "handler begins",
    "handler ends",
    ("Basic.Publish", "to broker", "before", 1),
    ("Basic.Publish", "to broker", "after", 1),
    ("Basic.Ack", "from broker", "before", 1),
    ("Basic.Ack", "from broker", "after", 1),
    ("Basic.Publish", "to broker", "before", 2),
    ("Basic.Ack", "from broker", "before", 2),
    ("Basic.Ack", "to broker", "before", 1),
    ("Basic.Ack", "to broker", "after", 1),
]


def words(step):
    return step if isinstance(step, str) else " ".join(map(str, step))


@pytest.fixture
def trial(settings):
    with Trial(settings, WORK) as trial:
        yield trial


def kill_at(step, proxy, worker_pool):
    """Kill the worker at *step*; a *before* step also cuts the connection, so it does not pass."""
    name, direction, when, number = step

    def kill():
        worker_pool.newest.kill()
        if when == "before":
            proxy.cut()

    return proxy.at(name, direction, when, number=number, action=kill)


@pytest.mark.fault("F03")
@trial_counts(2, 30)
@pytest.mark.parametrize(
    "step", STEPS, ids=lambda step: " ".join(map(str, step)) if isinstance(step, tuple) else step
)
def test_killed_at(trial, proxy, worker_pool, fault_row, step, times):
    """After SIGKILL at this step the message is redelivered, and its result has the same id."""
    while fault_row.trials < times:
        n = fault_row.trials + fault_row.not_triggered
        trial.send([f"{n}-{i}" for i in range(3)])
        if isinstance(step, str):
            killed = worker_pool.start(proxy.settings, "--prefetch", "1", RIG_KILL=step)
            assert killed.wait() == -9
        else:
            outcome = kill_at(step, proxy, worker_pool)
            killed = worker_pool.start(proxy.settings, "--prefetch", "1")
            outcome.wait()
            assert killed.wait() == -9
        trial.finish()
        fault_row.trials += 1

    fault_row.add(trial.drain_queues(), 0)


@pytest.mark.fault("F03")
@trial_counts(20, 300)
def test_killed_at_random(trial, proxy, worker_pool, fault_row, seeded_random, times):
    """After SIGKILL with four messages in progress, some of which fail, nothing is lost."""
    methods = [step[:3] for step in STEPS[1:] if not isinstance(step, str)]
    while fault_row.trials < times:
        n = fault_row.trials + fault_row.not_triggered
        trial.send([f"{seeded_random.choice(['', '', 'fail-'])}{n}-{i}" for i in range(8)])
        outcome = kill_at(
            (*seeded_random.choice(methods), seeded_random.randint(1, 6)), proxy, worker_pool
        )
        killed = worker_pool.start(proxy.settings, "--concurrency", "4")
        if outcome.triggered.wait(3):
            assert killed.wait() == -9
            fault_row.trials += 1
        else:  # there were fewer acks, because one can ack several messages
            proxy.forget(outcome)
            killed.kill()
            fault_row.count_not_triggered(times // 4 + 5)
        trial.finish()

    fault_row.add(trial.drain_queues(), 0)


@pytest.mark.fault("F10")
@pytest.mark.timeout(300)
@trial_counts(4, 20)
def test_ack_timed_out(rabbit_settings, short_ack_timeout, fault_row, times):
    """A handler slower than the ack timeout: redelivered, retried, dead-lettered.

    The messages behind it are done. Classic queues have no such timeout on RabbitMQ 4.3, so these
    are quorum queues. With one worker the message is dead-lettered after the third time; a second
    worker cannot know why it was redelivered, and counts a lost worker. An ack that comes too late
    would close the channel, or ack another message. RabbitMQ 4.3.6 sometimes loses the timer for
    that (see `mousetrap.amqp.overdue_acks`). While messages are ready in the queue, no worker makes
    it look; then the fault is not triggered.
    """
    numbers = itertools.count()

    def held(n):
        namespace = f"{rabbit_settings.namespace}-{next(numbers)}"
        settings = rabbit_settings.replace(namespace=namespace, queue_type="quorum")
        handled, over, missed = Counter(), threading.Event(), threading.Event()

        def work(id: str, worker: Worker) -> str:
            handled[id] += 1
            if id == "slow":  # until the broker has requeued it
                mine, deadline = (
                    worker._consumer._generation,
                    time.monotonic() + 2.5 * short_ack_timeout,
                )
                while worker._consumer._generation == mine and not over.wait(0.02):
                    if time.monotonic() > deadline:  # sometimes it does not
                        missed.set()
                        break
            return id

        def consuming() -> Worker:
            def pass_on(id: str) -> str:
                return work(id, worker)

            worker = Worker(WORK, pass_on, settings, writes="out", concurrency=1 + n % 4)
            return worker

        with Trial(settings, WORK) as trial, contextlib.ExitStack() as workers:
            trial.send([*(f"before-{i}" for i in range(5)), "slow", *map(str, range(40))])
            for _ in range(1 + n % 2):
                worker = workers.enter_context(consuming())
            # results come late as well
            wait_for(lambda: trial.collect() or trial.history.dead or missed.is_set(), 60)
            over.set()
            trial.settle()
            trial.wait_until_idle(worker)
            history = trial.drain_queues()
        if missed.is_set():
            return None
        assert list(history.dead) == ["slow"]
        assert handled["slow"] >= MAX_ACK_TIMEOUTS
        if n % 2 == 0:
            assert history.dead["slow"].startswith(f"AckTimedOut: {MAX_ACK_TIMEOUTS} times")
        return history

    waiting = list(range(times))
    with ThreadPoolExecutor(10) as pool:
        while waiting:
            histories = list(pool.map(held, waiting))
            for history in histories:
                if history is None:
                    fault_row.count_not_triggered(10 * times)
                else:
                    fault_row.add(history)
            waiting = [n for n, history in zip(waiting, histories, strict=True) if history is None]


@pytest.mark.fault("F14")
@trial_counts(400, 2000)
def test_slow_beside_fast(trial, fault_row, times):
    """A slow worker holds a bounded number of messages; the fast one handles the rest."""
    over = threading.Event()

    def slow(id: str) -> str:
        over.wait(1)
        return id

    def fast(id: str) -> str:
        return id

    with (
        Worker(WORK, slow, trial.settings, writes="out") as stuck,
        Worker(WORK, fast, trial.settings, writes="out") as quick,
    ):
        trial.send(map(str, range(times)))
        quick.wait_until(done=math.ceil(0.95 * times))
        over.set()
        trial.settle()
        trial.wait_until_idle(stuck)
        trial.wait_until_idle(quick)
    fault_row.add(trial.drain_queues())


# ---- refused by the broker ----------------------------------------------------------------------


def declared(name, **arguments):
    """Return a function that declares a queue with other arguments than ours."""

    def declare(channel, settings):
        channel.queue_declare(settings.topology.wire_name(name), durable=True, arguments=arguments)

    return declare


# What is wrong with the broker or the settings, and what the log of the worker must contain.
LIMITED = {"x-expires": 600_000, "x-max-length": 5}
WRONG = {
    "work queue": (declared("work", **LIMITED), {}, [".work'", "x-max-length"]),
    "quarantine": (declared("work.quarantine", **LIMITED), {}, [".quarantine'", "x-max-length"]),
    "queue downstream": (declared("out", **LIMITED), {}, [".out'", "x-max-length"]),
    "queue type": (declared("work"), {"queue_type": "quorum"},
                   [".work'", "MOUSETRAP_QUEUE_TYPE"]),
    "exchange": (None, {"events_exchange": "amq.fanout"}, ["amq.fanout", "type"]),
    "vhost": (None, {"vhost": "no such"}, ["'no such'", "RABBITMQ_VHOST"]),
    "password": (None, {"password": "wrong"}, ["RABBITMQ_PASSWORD"]),
    "permission to use": (None, {"user": "nobody"}, ["'nobody'", "set_permissions"]),
    "permission to configure": (None, {"user": "reader"}, [".work'", "set_permissions"]),
    "permission to read": (None, {"user": "writer"}, [".work.", "set_permissions"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def users(_session_rabbit):
    """Users of the broker with restricted permissions."""
    password = _session_rabbit.settings.password
    for name, allowed in {"nobody": None, "reader": ("^$", ".*", ".*"),
                          "writer": (".*", ".*", "^$")}.items():  # fmt: skip
        _session_rabbit.rabbitmqctl("add_user", name, password)
        if allowed:
            _session_rabbit.rabbitmqctl("set_permissions", name, *allowed)


@pytest.mark.fault("F11")
@trial_counts(1, 3)
def test_worker_refused(rabbit, rabbit_settings, users, worker_pool, fault_row, times):
    """With other arguments, permissions or vhost a worker exits within five seconds.

    The log names the object and the reason.
    """
    for n, (what, (prepare, changes, words)) in enumerate([*WRONG.items()] * times):
        settings = rabbit_settings.replace(namespace=f"{rabbit_settings.namespace}-{n}")
        if prepare is not None:
            with open_channel(settings) as channel:
                prepare(channel, settings)
        worker = worker_pool.start(settings.replace(**changes))
        code = worker.wait(5)

        said = worker.log.read_text()
        assert code not in (0, 70), (what, said)  # 70: an internal error
        assert all(word in said for word in words), (what, said)
        fault_row.trials += 1
    with pytest.raises(QueueMissing, match="'nowhere'"):
        depth("nowhere", rabbit_settings)


@pytest.fixture
def small(rabbit):
    """A broker that accepts no message of more than a megabyte."""

    def limit(size):
        rabbit.rabbitmqctl("eval", f"application:set_env(rabbit, max_message_size, {size}), "
                                   f"persistent_term:put(max_message_size, {size}).")  # fmt: skip

    limit(1_000_000)
    yield rabbit
    limit(16_777_216)


@pytest.mark.fault("F11")
@trial_counts(1, 3)
def test_too_large_for_the_broker(small, rabbit_settings, fault_row, times):
    """A message with a too large result is dead-lettered; the other messages are done."""

    def grow(id: str) -> str:
        return id + "x" * (2_000_000 if id == "grow" else 0)

    for _ in range(times):
        with Trial(rabbit_settings, WORK) as trial:
            trial.send([*map(str, range(50)), "grow", *map(str, range(50, 100))])
            with Worker(WORK, grow, rabbit_settings, writes="out", concurrency=4) as worker:
                trial.settle()
                trial.wait_until_idle(worker)
            history = trial.drain_queues()
        assert list(history.dead) == ["grow"]
        assert "2,000,006 bytes is larger than the 1,000,000" in history.dead["grow"]
        fault_row.add(history)

"""Faults of joins: killed at each step of those that split, handle and join, and of the broker."""

from __future__ import annotations

import contextlib
import threading

import pytest
from rig import join_stages
from rig.checker import History
from rig.join_stages import QUEUES, ROLES, ROLES_WITH_SINK, STAGES, expected
from rig.trial import LONG
from support.postgres import Postgres
from support.waiting import wait_for
from test_faults_worker import kill_at, words

from mousetrap import Sink
from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import WireError
from mousetrap.job_queue import declare, depths, drain
from mousetrap.model.message import Message

SIZES = (3, 0, 9)  # parts of three messages
CONFIRM_TIMEOUT = 10.0  # seconds
PUBLISH, CONFIRM, DELIVER, ACK = (
    ("Basic.Publish", "to broker"), ("Basic.Ack", "from broker"),
    ("Basic.Deliver", "from broker"), ("Basic.Ack", "to broker"),
)  # fmt: skip
AROUND = ("before", "after")
# A worker that takes one message at a time publishes its outputs or notices, then the outcome. The
# one that joins publishes the joined message, the mark that its group has ended, then outcomes.
STEPS = [
    *(("split", (*PUBLISH, when, n)) for n in (1, 3, 4) for when in AROUND),
    *(("split", (*ACK, when, 1)) for when in AROUND),
    *(("handle", (*PUBLISH, when, n)) for n in (1, 2) for when in AROUND),
    *(("handle", (*ACK, when, 1)) for when in AROUND),
    *(("join", (*DELIVER, "after", n)) for n in (1, 4)),
    *(("join", (*PUBLISH, when, n)) for n in (1, 2, 3, 4) for when in AROUND),
    *(("join", (*CONFIRM, when, n)) for n in (1, 2, 3) for when in AROUND),
    *(("join", (*ACK, when, n)) for n in (1, 2) for when in AROUND),
    *((role, "handler begins") for role in ROLES),
]


QUICK_STEPS = {  # in every run; the others in the long tier
    ("split", "Basic.Publish to broker after 3"), ("split", "Basic.Ack to broker before 1"),
    ("handle", "Basic.Publish to broker after 1"), ("handle", "Basic.Ack to broker before 1"),
    ("join", "Basic.Deliver from broker after 4"), ("join", "Basic.Publish to broker before 1"),
    ("join", "Basic.Ack from broker before 1"), ("join", "Basic.Publish to broker after 2"),
    ("join", "Basic.Publish to broker before 3"), ("join", "Basic.Ack to broker before 1"),
    ("join", "handler begins"),
}  # fmt: skip


def trials_at(role, step):
    """Return the parameters of a step: once in every run if it is quick, 30 times in the long."""
    name = f"{role} {words(step)}"
    quick = (
        [pytest.param(role, step, 1, id=f"{name}-1")] if (role, words(step)) in QUICK_STEPS else []
    )
    return [*quick, pytest.param(role, step, 30, id=f"{name}-30", marks=LONG)]


class Joins:
    """Messages that are split and joined, what came of each, and the workers without faults."""

    stages = STAGES

    def __init__(self, settings, **options):
        self.settings = settings
        self.options = options
        self.history = History()
        self.sizes = {}
        self.wrong = []
        declare(*(each.queue for each in self.stages), "out", settings=settings)

    def send(self, sizes):
        """Publish a message for each of *sizes*, until the broker has confirmed it."""
        messages = []
        for size in sizes:
            id = f"{len(self.sizes)}"
            self.sizes[id] = size
            messages.append(Message([id, size], id=id))
        self.history.attempted |= {each.id for each in messages}
        with Publisher(self.settings) as publisher:
            publisher.publish_until_confirmed(messages, "work")
        self.history.confirmed |= {each.id for each in messages}

    def collect(self):
        """Take the joined outputs and the dead letters; return whether none is missing."""
        history = self.history

        def note_dead_letter(dead_letter):
            history.dead[dead_letter.id] = dead_letter.reason

        with contextlib.suppress(WireError):
            self.take_joined()
            for stage in self.stages:
                self.drain(stage.queue.dead, note_dead_letter)
        return history.confirmed <= history.effects.keys()

    def collect_all(self):
        """Collect until no joined output is missing; fail if none comes for two minutes."""
        while not self.collect():
            before = len(self.history.effects)
            wait_for(lambda n=before: self.collect() or len(self.history.effects) > n, 120.0)

    def take_joined(self):
        """Take the joined outputs out of their queue."""
        self.drain("out", lambda message: self.note(message.id, *message.data))

    def note(self, message_id, id, parts):
        """Record the joined output *message_id* of the message *id*."""
        self.history.effects[id] += 1
        self.history.names.setdefault(id, set()).add(message_id)
        if parts != expected(self.sizes[id]):
            self.wrong.append((id, parts))

    def drain(self, queue, on_message):
        """Take what is in *queue*. Before a message is acked it is recorded by *on_message*.

        `drain` may raise after it has taken some messages: the broker is away, or slow.
        """
        options = {"idle": 0.05, "timeout": 1.0, "settings": self.settings}
        drain(queue, **options, on_message=on_message)

    @contextlib.contextmanager
    def workers(self):
        """Workers without faults."""
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(e.worker(self.settings, **self.options)) for e in self.stages
            ]

    def finish(self, timeout=40.0):
        """Let workers without faults handle what is left, until nothing is held."""
        with self.workers() as workers:
            self.collect_all()
            wait_for(lambda: self.is_idle(workers) and self.is_idle(workers), timeout)
        self.collect()

    def is_idle(self, workers):
        queues = [name for each in self.stages for name in each.queue.names()]
        dead = {each.queue.dead for each in self.stages}
        ready = depths([name for name in queues if name not in dead], self.settings)
        is_ready = any(each.messages for each in ready if each)
        return not is_ready and not any(each.unacked for each in workers)

    def check(self, fault_row):
        """Check that nothing was lost, dead, early or different, and that each has one id."""
        assert self.wrong == []
        assert self.history.dead == {}
        fault_row.add(self.history, 0)


class StoredJoins(Joins):
    """The same, with a stage that stores each joined output in *sink*."""

    stages = (*STAGES, join_stages.keep)

    def __init__(self, settings, sink, **options):
        self.sink = sink
        self.seen = set()
        super().__init__(settings, **options)

    def take_joined(self):
        """Note the rows that are new in the sink."""
        for row in self.sink.rows():
            if row["id"] not in self.seen:
                self.seen.add(row["id"])
                self.note(row["id"], *row["data"])

    def check(self, fault_row):
        """Check also that each message is joined and stored once."""
        super().check(fault_row)
        assert len(self.sink) == len(self.sizes)


def start(worker_pool, settings, role, prefetch=1, **environment):
    command = ("work", ROLES_WITH_SINK[role], "--with-parent", "--prefetch", str(prefetch))
    return worker_pool.run(settings, *command, **environment)


def bring_to(joins, role):
    """Let the stages before *role* handle all messages; return when they have."""
    before = STAGES[: list(ROLES).index(role)]
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(each.worker(joins.settings)) for each in before]
        queues = [name for name in QUEUES for each in before if name in each.queue.names()]

        def is_done():
            ready = any(each.messages for each in depths(queues, joins.settings) if each)
            return not ready and not any(each.unacked for each in workers)

        wait_for(lambda: is_done() and is_done(), 30.0)


@pytest.mark.fault("F58")
@pytest.mark.parametrize(
    ("role", "step", "times"), [each for one in STEPS for each in trials_at(*one)]
)
def test_join_killed_at(settings, proxy, worker_pool, fault_row, role, step, times):
    """After SIGKILL at this step each message is joined, with all parts, always with one id."""
    joins = Joins(settings)
    for _ in range(times):
        joins.send(SIZES)
        bring_to(joins, role)
        if isinstance(step, str):
            killed = start(worker_pool, proxy.settings, role, RIG_KILL=step)
        else:
            outcome = kill_at(step, proxy, worker_pool)
            killed = start(worker_pool, proxy.settings, role)
            outcome.wait()
        assert killed.wait() == -9
        joins.finish()

    fault_row.trials = times
    joins.check(fault_row)


def sizes(seeded_random, number):
    """Return *number* sizes, 20 parts in the mean: 200,000 parts for 10,000 joins.

    All are log-uniform: one in ten is between 1 and 1,000, the others are between 1 and 20. With 1
    and 1,000 for all, the mean would be 145.
    """

    def size():
        largest = 1000 if seeded_random.random() < 0.1 else 20
        return round(largest ** seeded_random.random())

    return [size() for _ in range(number)]


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as server:
        yield server


@pytest.fixture
def place(request, tmp_path, database):
    """The file or the URL of a new database."""
    if database == "sqlite":
        return str(tmp_path / "joined.db")
    return request.getfixturevalue("postgres").url()


LONG_KILLS = [pytest.mark.long, pytest.mark.timeout(14_000)]


@pytest.mark.fault("F58")
@pytest.mark.parametrize(
    ("database", "kills", "number"),
    [
        ("sqlite", 8, 60),
        pytest.param("sqlite", 150, 3_000, marks=LONG_KILLS),
        pytest.param("sqlite", 500, 10_000, marks=LONG_KILLS),
        pytest.param("postgresql", 40, 800, marks=LONG_KILLS),
    ],
)
def test_joins_while_workers_are_killed(
    settings, worker_pool, fault_row, seeded_random, monkeypatch, place, kills, number
):
    """Two processes of each stage and of the sink, one of them killed at a time, at any moment."""
    settings = settings.replace(connect_timeout=60.0)  # the processes keep the machine busy
    monkeypatch.setattr(join_stages, "sink", sink := Sink(place))  # of the workers without faults
    joins = StoredJoins(settings, sink, prefetch=64)

    def started(role):
        return role, start(worker_pool, settings, role, 32, RIG_SINK=place)

    processes = [started(role) for role in ROLES_WITH_SINK for _ in range(2)]
    for kill in range(kills):
        part = number * (kill + 1) // kills - len(joins.sizes)
        joins.send(sizes(seeded_random, part))
        threading.Event().wait(seeded_random.uniform(0.0, 1.0))  # the moment
        position = seeded_random.randrange(len(processes))
        role, process = processes[position]
        process.kill()
        assert process.wait() == -9
        processes[position] = started(role)
        if kill % 5 == 0:
            joins.collect()
    joins.collect_all()
    worker_pool.kill_all()
    joins.finish()

    fault_row.trials = kills
    joins.check(fault_row)
    sink.close()


@pytest.mark.fault("F58")
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=LONG)])
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_joins_while_the_broker_is_killed(
    rabbit_settings, rabbit, fault_row, seeded_random, queue_type, kills
):
    """The parts that are held come back from the queue, and their groups are built again.

    Retry queues may be new at the kill. Before RabbitMQ 4.3 such a queue has no leader afterwards,
    and is replaced by another one when it has not answered two publishes.
    """
    settings = rabbit_settings.replace(queue_type=queue_type, confirm_timeout=CONFIRM_TIMEOUT)
    joins = Joins(settings)
    with joins.workers():
        for _ in range(kills):
            joins.send(sizes(seeded_random, 40))
            threading.Event().wait(seeded_random.uniform(0.0, 0.3))  # the moment
            rabbit.kill()
            rabbit.start()
            joins.collect_all()
    joins.finish()

    fault_row.trials = kills
    joins.check(fault_row)

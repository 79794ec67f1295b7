"""Working on queues that exist already, with and without the permission to declare any."""

from __future__ import annotations

import base64
import json
import logging

import pytest
from pika.exceptions import ChannelClosedByBroker
from support import their_flow
from support.waiting import wait_for

import mousetrap
from mousetrap import Exchange, Publisher, Queue, Worker
from mousetrap.amqp.properties import sent_properties
from mousetrap.errors import AccessRefused, QueueMissing, TopologyMismatch
from mousetrap.flows.definitions import definitions
from mousetrap.flows.flow import Flow
from mousetrap.job_queue import declare, delete, drain, ping, short_channel
from mousetrap.model.delays import delay_queue

FLOW = Flow([their_flow.accept, their_flow.price, their_flow.book])
URGENT = {"x-max-priority": 5}


@pytest.fixture
def lasting(rabbit_settings):
    """Settings of an administrator, with a prefix: queues stay until the end of the test."""
    settings = rabbit_settings.replace(queues_expire=False)
    yield settings
    names = [name for one in (Queue("work", (0.1,)), *(e.queue for e in FLOW.stages))
             for name in [*one.possible_names(), "out", "company.results"]]  # fmt: skip
    delayed = [delay_queue(name, 0.1) for name in names if not name.startswith("work")]
    delete(*names, *delayed, settings=settings)
    with short_channel(settings) as channel:
        for exchange in ("orders", "nowhere"):
            channel.exchange_delete(settings.topology.wire_name(exchange))


@pytest.fixture(scope="module")
def permissions(_session_rabbit):
    """Give the user `theirs` other permissions: (configure, write, read)."""
    _session_rabbit.rabbitmqctl("add_user", "theirs", "secret")
    present = None

    def change(*wanted):
        nonlocal present
        if wanted != present:
            _session_rabbit.rabbitmqctl("set_permissions", "theirs", *wanted)
            present = wanted

    yield change
    _session_rabbit.rabbitmqctl("delete_user", "theirs")


@pytest.fixture
def restricted(lasting, permissions):
    """Return a function that returns the settings of a user with these permissions."""

    def make(write=".*", read=".*", configure="^$"):
        permissions(configure, write, read)
        return lasting.replace(user="theirs", password="secret")

    return make


def exists(name, settings, arguments=None):
    """Return whether the queue is there, with these arguments if they are given."""
    with short_channel(settings) as channel:
        try:
            channel.queue_declare(settings.topology.wire_name(name), durable=True,
                                  passive=arguments is None, arguments=arguments)  # fmt: skip
        except ChannelClosedByBroker:  # 404, or 406 for other arguments
            return False
    return True


def make(lasting, *names, arguments=None):
    """Declare queues in plain pika, as an administrator does."""
    with short_channel(lasting) as channel:
        for name in names:
            wire_name = lasting.topology.wire_name(name)
            channel.queue_declare(wire_name, durable=True, arguments=arguments)


PLAIN, WITH = Queue("work", ()), Queue("work", (), arguments=URGENT)
THEIRS = Queue("work", (), declare=False)
# The queue, what it has at the broker (None: it does not exist), the setting, whether the user may
# declare; then what becomes of it.
RULES = [
    (PLAIN, None, "missing", True, "declared"),
    (PLAIN, {}, "missing", True, "used"),
    (PLAIN, URGENT, "missing", True, "used"),
    (PLAIN, None, "missing", False, "missing"),
    (PLAIN, URGENT, "missing", False, "used"),
    (PLAIN, None, "never", True, "missing"),
    (PLAIN, URGENT, "never", True, "used"),
    (WITH, None, "missing", True, "declared"),
    (WITH, URGENT, "missing", True, "used"),
    (WITH, {}, "missing", True, "refused"),
    (WITH, None, "missing", False, "missing"),
    (WITH, URGENT, "missing", False, "used"),
    (WITH, {}, "never", True, "used"),
    (THEIRS, None, "missing", True, "missing"),
    (THEIRS, {}, "missing", True, "used"),
    (THEIRS, URGENT, "missing", True, "used"),
    (THEIRS, URGENT, "missing", False, "used"),
    (THEIRS, URGENT, "never", False, "used"),
]


@pytest.mark.parametrize(("queue", "there", "setting", "may_declare", "outcome"), RULES)
def test_what_becomes_of_a_queue(lasting, restricted, queue, there, setting, may_declare, outcome):
    """By its `Queue`, the setting and the permissions; what exists is never changed."""
    settings = (lasting if may_declare else restricted()).replace(declare=setting)
    make(lasting, "work.quarantine", "work.dead")
    if there is not None:
        make(lasting, "work", arguments=there)
    worker = Worker(queue, lambda _: None, settings)

    if outcome in ("used", "declared"):
        with worker:
            assert mousetrap.send("work", 1, settings=settings).error is None
            worker.wait_until(done=1, timeout=10)
    else:
        error = {"missing": QueueMissing, "refused": TopologyMismatch}[outcome]
        with pytest.raises(error, match=f"{lasting.namespace}.work'"):
            worker.start()
    wanted = there if there is not None else queue.arguments if outcome == "declared" else None
    assert exists("work", lasting) is (wanted is not None)
    if wanted is not None:
        assert exists("work", lasting, wanted)


@pytest.mark.parametrize("setting", ["missing", "never"])
def test_worker_names_at_once_all_that_is_missing(lasting, restricted, setting):
    """With the retry queues and the dead queue, which others declare when a message needs them."""
    settings = restricted().replace(declare=setting)
    bound = Queue("work", (0.1,), bindings=[Exchange("nowhere")["#"]])
    worker = Worker(bound, lambda _: None, settings, writes="out", routes=[their_flow.incoming])

    with pytest.raises(QueueMissing, match="`mousetrap topology STAGE") as missing:
        worker.start()

    wanted = {"work", "work.quarantine", "work.retry.0.1s", "work.dead", "out", "orders"}
    wanted |= {"nowhere"} if setting == "missing" else set()  # no binding is made either
    named = {line.split("'")[1] for line in str(missing.value).splitlines() if line[:2] == "  "}
    assert {lasting.topology.plain_name(each) for each in named} == wanted


def test_restricted_user_works_a_flow_of_an_administrator(rabbit, lasting, restricted, caplog):
    """Three stages, with arguments, a binding, retries and dead letters: none is lost, and none
    of the user's own queues is declared.
    """
    caplog.set_level(logging.WARNING, "mousetrap")
    make(lasting, "company.orders", "company.results", arguments={"x-max-length": 9999})
    needed = definitions(FLOW, lasting, delays=[0.1])
    content = json.dumps(needed.as_file("/")).encode()
    encoded = base64.b64encode(content).decode()
    rabbit.rabbitmqctl("eval", f'rabbit_definitions:import_raw(base64:decode("{encoded}")).')
    settings = restricted(needed.write, needed.read)

    workers = [each.worker(settings) for each in FLOW.stages]
    for worker in workers:
        worker.start()
    try:
        later = {"settings": settings, "delay": 0.1}
        assert mousetrap.send("company.orders", range(1, 91), settings=settings).error is None
        assert mousetrap.send("company.orders", range(91, 96), **later).error is None
        assert mousetrap.send("company.orders", range(96, 101), **later).error is None
        accept, price, book = workers
        accept.wait_until(done=100, timeout=30)
        price.wait_until(done=100 - 14, dead=14, timeout=30)
        book.wait_until(done=100 - 14 + 10, timeout=30)
    finally:
        for worker in workers:
            worker.stop()

    results = sorted(each.data for each in drain("company.results", settings=settings))
    assert results == sorted([n for n in range(1, 101) if n % 7] + [-n for n in range(10, 101, 10)])
    dead = mousetrap.dead("urgent", settings=settings)
    assert sorted(each.data for each in dead) == list(range(7, 101, 7))
    assert {each.attempt for each in dead} == {2}
    assert (len(mousetrap.peek("urgent.dead", 3, settings)), price.statistics().retried) == (3, 14)
    told = [record.getMessage() for record in caplog.records]
    assert sum("workers of this queue do not know of each other" in each for each in told) == 3
    assert not any(each.statistics().reconnects for each in workers)


def test_retried_message_keeps_its_priority(settings):
    """It comes back from the retry queue in front of those that are less urgent."""
    order = []

    def handle(message: mousetrap.Message) -> None:
        if message.data == "urgent" and message.attempt == 1:
            raise ConnectionError("again")
        if message.data == "blocker":
            wait_for(lambda: mousetrap.depth("work", settings).messages == 3, 20)
        order.append(message.data)

    queue = Queue("work", (0.1,), arguments=URGENT)
    declare(queue, settings=settings)
    with Publisher(settings) as publisher:
        for data, priority in {"low": 0, "none": None, "blocker": 1, "urgent": 4}.items():
            properties = None if priority is None else sent_properties(priority)
            publisher.publish(mousetrap.Message(data), "work", properties=properties)
        publisher.flush()
    with Worker(queue, handle, settings, prefetch=1) as worker:
        worker.wait_until(done=4, timeout=30)

    assert order == ["blocker", "urgent", "low", "none"]


def test_run_is_refused_unless_the_user_may_configure_a_prefix(lasting, restricted):
    """The error says which permission to ask for; with it, the same flow runs."""
    with pytest.raises(AccessRefused, match=r"runs, checks and tests make queues .*'\^rig-\w+-'"):
        mousetrap.run(FLOW, restricted()).start()

    prefix = f"^{lasting.namespace}-"
    read = f"{prefix}|^mousetrap.events$"
    allowed = restricted(f"{read}|^amq.default$", read, prefix)
    with short_channel(lasting) as channel:
        channel.exchange_declare("mousetrap.events", "topic", durable=True)
    with mousetrap.run(FLOW, allowed, retry_delays=(0.1,)) as run:
        run.send_many(range(1, 21))
        summary = run.settle(30)
        assert len(run.results()) == 20 - 2 + 2
    assert (summary.dead, exists("company.orders", lasting)) == (2, False)


def test_outcomes_need_the_permission_to_publish_them(lasting, restricted, caplog):
    """Without it the worker says so once, and works."""
    caplog.set_level(logging.WARNING, "mousetrap")
    make(lasting, "work", "work.quarantine", "work.dead")
    with short_channel(lasting) as channel:
        channel.exchange_declare("mousetrap.events", "topic", durable=True)
    settings = restricted(r"^amq\.default$")

    with Worker(Queue("work", ()), lambda _: None, settings) as worker:
        mousetrap.send("work", range(3), settings=settings)
        worker.wait_until(done=3, timeout=20)

    told = [record.getMessage() for record in caplog.records]
    assert sum("outcomes of messages are not published" in each for each in told) == 1
    assert ping(settings) > 0


def test_worker_refuses_a_stream_that_exists(lasting):
    """Asking whether it exists does not show it; its messages would stay when they are acked."""
    make(lasting, "work", arguments={"x-queue-type": "stream"})

    with pytest.raises(TopologyMismatch, match="is a stream"):
        Worker(Queue("work", ()), lambda _: None, lasting).start()

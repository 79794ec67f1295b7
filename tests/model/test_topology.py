"""Queues and topology: names on the wire, and the arguments of each queue."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mousetrap.errors import SettingsError
from mousetrap.model.exchanges import Exchange
from mousetrap.model.topology import (
    MAX_DELAY,
    Binding,
    Declaration,
    ExchangeDeclaration,
    Queue,
    Topology,
    check_queue_name,
    work_queue_of,
)


def test_queue_names_all_queues_that_belong_to_it():
    """Retry, dead and quarantine queues are named after the work queue, which comes first."""
    queue = Queue("start_fetch", retry_delays=(1, 0.5))

    assert queue.names() == [
        "start_fetch",
        "start_fetch.retry.1s",
        "start_fetch.retry.0.5s",
        "start_fetch.dead",
        "start_fetch.quarantine",
    ]


def test_work_queues_are_declared_without_arguments():
    """A notebook that declares them in plain pika gets no 406; a namespace makes no difference."""
    queue = Queue("q", retry_delays=())
    for topology in (Topology(), Topology("team")):
        declarations = [*topology.declarations(queue), *topology.failure_queues(queue)]

        plain = {topology.plain_name(each.name): each.arguments for each in declarations}
        assert plain == {"q": {}, "q.quarantine": {}, "q.dead": {}}


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_retry_queues_keep_a_message_until_its_target_has_it(queue_type):
    """Whatever the type of the work queue, they are quorum queues that never expire."""
    topology = Topology("run-7f3a", queue_type, expiry=60.0)
    [retry, _] = topology.failure_queues(Queue("q", retry_delays=(2.5,)))

    assert retry == Declaration(
        "run-7f3a.q.retry.2.5s",
        {
            "x-queue-type": "quorum",
            "x-message-ttl": 2500,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "run-7f3a.q",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def test_only_classic_queues_of_a_namespace_with_an_expiry_expire():
    """A quorum queue never does: declaring it again does not renew its expiry."""
    for topology, wanted in [
        (Topology("run-7f3a", expiry=60.0), {"x-expires": 60_000}),
        (Topology("run-7f3a", "quorum", expiry=60.0), {"x-queue-type": "quorum"}),
        (Topology(expiry=60.0), {}),
    ]:
        queue = Queue("q", retry_delays=())
        declarations = [*topology.declarations(queue), *topology.failure_queues(queue)]

        assert [each.arguments for each in declarations] == [wanted] * 3


@given(st.lists(st.floats(1e-9, MAX_DELAY), max_size=3), st.sampled_from(["q", "q.dead", "é.1"]))
def test_work_queue_of_is_the_inverse_of_the_names_of_failure_queues(delays, name):
    """Retry and dead queues lead back to the work queue; other names belong to none."""
    queue = Queue(name, tuple(delays))
    of_failures = {*queue.possible_names()} - {queue.name, queue.quarantine}

    assert {work_queue_of(each) for each in of_failures} == {name}
    assert work_queue_of(queue.quarantine) is None
    assert work_queue_of("dead") is None


@pytest.mark.parametrize("namespace", ["", "run-7f3a"])
def test_plain_name_is_the_inverse_of_wire_name(namespace):
    """People see the names that they chose."""
    topology = Topology(namespace)

    assert topology.plain_name(topology.wire_name("start_fetch")) == "start_fetch"


@given(
    st.lists(st.floats(0, MAX_DELAY, exclude_min=True), max_size=6),
    st.text("ä", min_size=95, max_size=95),
)
def test_every_name_fits_into_amqp(delays, name):
    """Even the longest name, in the longest namespace, with the oddest delay, has 255 bytes."""
    topology = Topology("n" * 40)

    declarations = topology.declarations(Queue(name, tuple(delays)))

    assert max(len(each.name.encode()) for each in declarations) <= 255
    assert all(each.arguments.get("x-message-ttl", 1) >= 1 for each in declarations)


@pytest.mark.parametrize("delay", [0, -1, math.nan, math.inf, MAX_DELAY + 1])
def test_queue_refuses_an_invalid_delay(delay):
    """The error names the queue and what is allowed."""
    with pytest.raises(SettingsError, match=r"retry delay .* of queue 'q': .* up to 86400"):
        Queue("q", retry_delays=(delay,))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("q" * 191, "longer than 190 bytes"),
        ("ä" * 96, "longer than 190 bytes"),
        ("a\nb", "control characters"),
        ("a\x00", "control characters"),
        ("a\udcff", "not valid UTF-8"),
        ("amq.gen", "belongs to the broker"),
    ],
)
def test_queue_refuses_an_invalid_name(name, problem):
    """The error says what is wrong with the name, and stays short."""
    with pytest.raises(SettingsError, match=problem) as caught:
        Queue(name)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["start_fetch", "a.b-c:d", "Aufträge", "q" * 190, "with space"])
def test_check_queue_name_returns_a_valid_name(name):
    """Any other text is a valid name."""
    assert check_queue_name(name) == name


# ---- exchanges -----------------------------------------------------------------------------------

orders = Exchange("orders", "topic")
alarms = Exchange("alarms", "fanout")


@pytest.mark.parametrize(
    ("bindings", "reason"),
    [
        ([orders], "queue 'audit' cannot be bound by 'orders': give an exchange with a text"),
        ([orders[str]], "cannot be bound by 'orders[str(...)]'"),
        (["orders"], "cannot be bound by 'orders'"),
        (None, "cannot be bound by None"),
    ],
)
def test_queue_refuses_what_is_no_binding(bindings, reason):
    """A binding is an exchange with a text; only a fanout exchange needs none."""
    with pytest.raises(SettingsError) as error:
        Queue("audit", bindings=bindings)

    assert reason in str(error.value)


def test_bindings_are_declared_after_their_exchanges():
    """Outside of runs an exchange is only declared if it is missing."""
    topology = Topology("team")
    queue = Queue("audit", bindings=[orders["a"], alarms, orders["b"]])

    assert topology.bindings(queue) == [
        ExchangeDeclaration("team.orders", "topic", how="missing"),
        ExchangeDeclaration("team.alarms", "fanout", how="missing"),
        Binding("team.audit", "team.orders", "a"),
        Binding("team.audit", "team.alarms", ""),
        Binding("team.audit", "team.orders", "b"),
    ]
    assert topology.bindings(Queue("plain")) == []


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_exchange_of_a_run_passes_what_nobody_wants_to_a_queue(queue_type):
    """By an alternate exchange; both are deleted with their last binding."""
    topology = Topology("run-1", queue_type, expiry=60.0)
    rest, queue, binding, exchange = topology.exchange(orders)

    assert rest == ExchangeDeclaration("run-1.orders.unrouted", "fanout", is_auto_deleted=True)
    assert queue == topology.work_queue("orders.unrouted")
    assert binding == Binding(queue.name, rest.name, "")
    assert exchange == ExchangeDeclaration(
        "run-1.orders", "topic", {"alternate-exchange": rest.name}, is_auto_deleted=True
    )
    assert {each.how for each in topology.exchange(orders) if not isinstance(each, Binding)} == {
        "now"
    }


# ---- arguments, and queues that exist already ----------------------------------------------------

PLAIN, THEIRS = Queue("q"), Queue("q", declare=False, bindings=[orders["a"]])
URGENT = Queue("q", arguments={"x-max-priority": 5})


@pytest.mark.parametrize(
    ("topology", "queue", "how", "quarantine", "retry", "events"),
    [
        (Topology(), PLAIN, "missing", "compare", "now", "compare"),
        (Topology("team"), PLAIN, "missing", "compare", "now", "compare"),
        (Topology(queue_type="quorum"), PLAIN, "compare", "compare", "now", "compare"),
        (Topology(), URGENT, "compare", "compare", "now", "compare"),
        (Topology(), THEIRS, "exists", "compare", "now", "compare"),
        (Topology(declare="never"), PLAIN, "exists", "exists", "exists", "exists"),
        (Topology(declare="never"), URGENT, "exists", "exists", "exists", "exists"),
        (Topology("run-1", expiry=9.0), PLAIN, "now", "now", "now", "compare"),
        (Topology("run-1", expiry=9.0), THEIRS, "now", "now", "now", "compare"),
        (Topology("run-1", expiry=9.0, declare="never"), THEIRS, "now", "now", "now", "compare"),
    ],
)
def test_how_each_queue_is_declared(topology, queue, how, quarantine, retry, events):
    """A run declares all of its own; elsewhere it depends on the queue and the setting."""
    declared = [each.how for each in topology.declarations(queue)]
    later = {each.how for each in topology.failure_queues(queue)}

    assert (declared, later) == ([how, quarantine], {retry})
    assert topology.events().how == events
    assert bool(topology.bindings(THEIRS)) is (topology.is_own)
    if not topology.is_own:
        [exchange] = topology.exchange(orders)
        assert exchange.how == ("exists" if topology.declare == "never" else "missing")


@pytest.mark.parametrize("topology", [Topology("run-1", expiry=9.0), Topology("team")])
def test_names_in_arguments_are_in_the_namespace_too(topology):
    """Dead letters of a run stay in the run; so do those of a team's namespace."""
    to_queue = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "late"}
    to_exchange = {"x-dead-letter-exchange": "dlx", "x-dead-letter-routing-key": "late"}

    [first, second] = (
        topology.work_queue(Queue("q", arguments=e)) for e in (to_queue, to_exchange)
    )

    assert first.arguments["x-dead-letter-routing-key"] == topology.wire_name("late")
    assert second.arguments["x-dead-letter-exchange"] == topology.wire_name("dlx")
    assert second.arguments["x-dead-letter-routing-key"] == "late"  # a key of their exchange
    assert [
        target.name
        for each in (to_queue, to_exchange)
        for target in topology.dead_letter_targets(Queue("q", arguments=each))
    ] == [topology.wire_name("late"), topology.wire_name("dlx")]


def test_run_has_an_expiry_of_its_own():
    """That of a queue that exists already counts outside of runs only."""
    with pytest.warns(UserWarning, match="x-expires"):
        theirs = Queue("q", declare=False, arguments={"x-expires": 1000, "x-max-priority": 3})

    assert Topology("run-1", expiry=9.0).work_queue(theirs).arguments == {
        "x-expires": 9000, "x-max-priority": 3
    }  # fmt: skip


def test_quarantine_of_a_single_active_consumer_has_one_as_well():
    """Two workers never handle messages of such a queue's quarantine at the same time."""
    queue = Queue("q", arguments={"x-single-active-consumer": True})

    assert [each.arguments for each in Topology().declarations(queue)] == [
        {"x-single-active-consumer": True}
    ] * 2

"""What a flow needs on a broker, as a definitions file."""

from __future__ import annotations

import re

import pytest
from support import their_flow

from mousetrap import Exchange, Queue, Settings, stage
from mousetrap.flows.definitions import definitions
from mousetrap.flows.flow import Flow

FLOW = Flow([their_flow.accept, their_flow.price, their_flow.book])
PLAIN = Settings()


def test_definitions_have_every_queue_that_workers_declare():
    """With their arguments; those that exist already are named apart."""
    found = definitions(FLOW, PLAIN)

    own = {"urgent", "ledger"}
    beside = {f"{name}.{each}" for name in (*own, "company.orders")
              for each in ("retry.0.1s", "dead", "quarantine")}  # fmt: skip
    assert set(found.queues) == own | beside
    assert found.queues["urgent"].arguments == {"x-max-priority": 5}
    assert found.queues["urgent.retry.0.1s"].arguments["x-queue-type"] == "quorum"
    assert set(found.exchanges) == {"orders", "mousetrap.events"}
    assert [(e.exchange, e.queue, e.key) for e in found.bindings] == [
        ("orders", "ledger", "order.*")
    ]
    assert found.existing == ["queue 'company.orders'", "queue 'company.results'"]


def test_permissions_are_those_that_workers_need_and_no_others():
    """To publish and to bind; to read and to see every queue; never to declare."""
    found = definitions(FLOW, PLAIN)

    for name in ("amq.default", "orders", "mousetrap.events", "ledger"):
        assert re.search(found.write, name), name
    for name in (*found.queues, "company.orders", "company.results", "orders"):
        assert re.search(found.read, name), name
    for name in ("amqXdefault", "urgent", "orders2", "company.orders", ""):
        assert not re.search(found.write, name), name
    assert not re.search(found.read, "ledgers")
    assert found.permissions["configure"] == "^$"


@pytest.mark.parametrize(
    ("settings", "name", "arguments"),
    [
        (PLAIN.replace(namespace="team", queues_expire=True), "team.urgent", {"x-max-priority": 5}),
        (PLAIN.replace(declare="never"), "urgent", {"x-max-priority": 5}),
        (PLAIN.replace(queue_type="quorum"), "plain.dead", {"x-queue-type": "quorum"}),
    ],
)
def test_settings_count_as_for_workers(settings, name, arguments):
    """The namespace and the type of queues. Queues in the file never expire."""

    @stage(reads="plain")
    def plain(_: object) -> None: ...

    flow = Flow(plain) if settings.queue_type == "quorum" else FLOW
    assert definitions(flow, settings).queues[name].arguments == arguments


def test_file_has_what_rabbitmq_imports():
    """Permissions only with a user, because an import replaces those that the user has."""
    found = definitions(FLOW, PLAIN)
    content = found.as_file("/")

    assert set(content) == {"queues", "exchanges", "bindings"}
    assert content["queues"][0] == {
        "name": "company.orders.quarantine", "vhost": "/", "durable": True, "auto_delete": False,
        "arguments": {},
    }  # fmt: skip
    [given] = found.as_file("v", "worker")["permissions"]
    assert given == {"user": "worker", "vhost": "v", **found.permissions}


def test_targets_of_dead_letters_are_needed_too():
    """A queue by its name is in the file, with its arguments if a stage reads it; an exchange that
    the flow does not name must exist.
    """
    late = Queue("late", (), arguments={"x-max-length": 9, "x-overflow": "reject-publish"})
    to_late = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "late"}
    elsewhere = {"x-message-ttl": 5, "x-dead-letter-exchange": "graveyard"}

    @stage(reads=Queue("first", (), arguments=to_late), writes=Queue("end", arguments=elsewhere))
    def first(_: object) -> int: ...

    @stage(reads=late)
    def second(_: object) -> None: ...

    @stage(reads=Queue("third", (), arguments=elsewhere))
    def third(_: object) -> None: ...

    found = definitions(Flow([first, second, third]), PLAIN)

    assert found.queues["late"].arguments == late.arguments
    assert found.existing == ["exchange 'graveyard'"]
    bound = Queue("grave", (), bindings=[Exchange("graveyard", "fanout")])
    assert definitions(Flow([third, stage(reads=bound)(abs)]), PLAIN).existing == []

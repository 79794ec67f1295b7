"""What older versions have published is understood, field by field.

The files have all publishes of a version on a RabbitMQ (`make_recorded`): 5e10f40 is the version
before stages had several targets, batches, joins, calls and delays; 1058a3d has them.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest
from rig.recorded import VERSIONS, outcomes, published
from rig.recorded_stages import COUNTS, PAGE, paste, shrink, work
from support.waiting import wait_for

from mousetrap.job_queue import declare, drain, open_channel
from mousetrap.model.decoding import decode
from mousetrap.model.join_headers import JOINS, NOTICE, entries_of
from mousetrap.model.ledger import Ledger
from mousetrap.model.message import Message
from mousetrap.worker.consumer_discovery import SurvivorQuery

FIELDS = {
    "mousetrap-attempt": "attempt", "mousetrap-parent": "parent", "mousetrap-job": "job",
    "mousetrap-retries": "past_retries", "mousetrap-reason": "reason",
    "mousetrap-traceback": "traceback", "mousetrap-origin": "origin",
    "mousetrap-died": "dead_since", "mousetrap-replayed": "replayed",
    "mousetrap-losses": "losses",
}  # fmt: skip
IN_HEADERS = {JOINS, NOTICE, "mousetrap-joined", "mousetrap-expires"}
JOIN_VERSIONS = [each for each in VERSIONS if each != "5e10f40"]


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_are_understood(version):
    """Jobs, outputs, retries, replays, moved and dead messages: id, counts, reason, body."""
    found = Counter()
    for each in published(version):
        if not each.is_message:
            continue
        message = Message.from_wire(each.body, each.pika_properties())
        assert (message.id, message.sent) == (each.id, each.properties["timestamp"])
        assert message.body == each.body
        for header, value in each.headers.items():
            where = FIELDS.get(header)
            assert (getattr(message, where) if where else message.headers[header]) == value
            found[header] += 1

    assert found.keys() - IN_HEADERS == FIELDS.keys()


def story():
    """Return kind, number and attempt of each outcome of `work` that the recorded jobs have."""
    attempts = {
        "plain": [("done", 1)], "sends": [("done", 1)], "retry": [("retried", 1), ("done", 2)],
        "dead": [("retried", 1), ("dead", 2)],
    }  # fmt: skip
    jobs = [(f"{kind}-{n}", *each) for kind, count in COUNTS.items() for n in range(count)
            for each in attempts[kind]]  # fmt: skip
    once_more = [("dead-0", "retried", 1), ("dead-0", "dead", 2)]  # it was replayed
    return Counter([*jobs, *once_more, ("bad-0", "dead", 1), ("crash-0", "dead", 1)])


@pytest.mark.parametrize("version", VERSIONS)
def test_outcomes_are_understood(version):
    """Each attempt has one, and its outputs are the messages that the broker got."""
    found = outcomes(version)
    ours = Counter((o.id, o.kind, o.attempt) for o in found if o.stage == "work" and "-" in o.id)
    made = {
        (each.headers.get("mousetrap-parent"), each.id, each.key)
        for each in published(version)
        if each.is_message and each.key in ("out", "side", "results")
    }
    named = {(o.id, each.id, each.queue) for o in found for each in o.outputs}

    assert ours == story()
    assert {each for each in named if each[2] in ("out", "side", "results")} == made


@pytest.mark.parametrize("version", VERSIONS)
def test_ledger_of_recorded_outcomes_is_complete(version):
    """A run of this version knows of each job of that one what became of it."""
    ledger = Ledger(["work", "out"])
    for id in {id for id, _, _ in story()}:
        ledger.sent(id, "work", 0.0)
        ledger.confirmed(id)
    for each in outcomes(version):
        if each.queue in ("work", "out") and (each.job or each.id).count("-"):
            ledger.add([each], each.ended)
    summary = ledger.summary()

    assert (summary.sent, summary.done, summary.dead) == (21, 15, 6)
    assert (ledger.open, summary.lost) == (0, 0)
    assert summary.duplicates == 1  # the replay, which was not of a run


@pytest.mark.parametrize("version", JOIN_VERSIONS)
def test_queries_are_understood(version):
    """Before a loss is counted, workers ask each other for the message and its losses."""
    queries = [decode(p.body, SurvivorQuery) for p in published(version)
               if p.is_query and b"crash-0" in p.body]  # fmt: skip

    assert {losses for each in queries for _, losses in each.messages} >= {1}
    assert {(each.queue, id) for each in queries for id, _ in each.messages} == {
        ("work", "crash-0")
    }


def comparable(key, properties, body):
    """Return what a message has beside times and places in code."""
    headers = properties["headers"]
    varying = {"mousetrap-died", "mousetrap-traceback"}
    return (key, body, properties["message_id"], sorted(properties),
            {name: value for name, value in headers.items() if name not in varying})  # fmt: skip


def test_messages_of_plain_stages_are_what_they_were(settings):
    """A worker of the first recorded version gets from this one what it got from its own."""
    before = {(each.id, each.key): comparable(each.key, each.properties, each.body)
              for each in published("5e10f40") if each.key in ("out", "side", "work.dead")
              and not each.headers.keys() & {"mousetrap-replayed", "mousetrap-retries"}
              and each.headers["mousetrap-job"].startswith((*COUNTS, "bad"))}  # fmt: skip
    declare("work", "out", "side", settings=settings)
    with work.worker(settings) as worker, open_channel(settings) as channel:
        jobs = [each for each in published("5e10f40") if each.key == "work"
                and each.headers.keys() == {"mousetrap-attempt", "mousetrap-job"}
                and each.id.startswith((*COUNTS, "bad"))]  # fmt: skip
        for each in jobs:
            publish(channel, settings, each, "work")
        worker.wait_until(done=15, dead=5, timeout=30)
        found = {}
        for key in ("out", "side", "work.dead"):
            queue = settings.topology.wire_name(key)
            while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
                properties = {k: v for k, v in vars(got[1]).items() if v is not None}
                if "mousetrap-retries" not in properties["headers"]:
                    found[got[1].message_id, key] = comparable(key, properties, got[2])

    assert found == before
    assert len(found) == 2 * (6 + 3) + 3 + 4 + 1


def publish(channel, settings, each, to, **changes):
    channel.basic_publish(
        "", settings.topology.wire_name(to), each.body, each.pika_properties(**changes)
    )


@pytest.mark.parametrize("version", JOIN_VERSIONS)
def test_parts_of_two_versions_are_one_group(anywhere, version):
    """Parts and notices of that version, and those of a worker of this one, make one call."""
    settings = anywhere
    parts = [each for each in published(version) if each.key == "photos"]
    joined = [each for each in published(version) if each.key == "thumbs.join"]
    joined = [each for each in joined if each.headers.get(NOTICE) != "ended"]
    old, new = joined[::2], {p.headers["mousetrap-parent"] for p in joined[1::2]}
    [recorded] = [each for each in published(version) if each.key == "pages"]

    assert [len(entries_of(each.headers)) for each in joined] == [1] * 6
    declare("pages", settings=settings)
    with shrink.worker(settings), paste.worker(settings) as last, open_channel(settings) as channel:
        for each in old:
            publish(channel, settings, each, "thumbs.join")
        for each in parts:  # one of them has parts of both versions
            if each.id in new:
                publish(channel, settings, each, "photos")
        last.wait_until(done=1, timeout=20)
        wait_for(lambda: not last.unacked, 20)
    [page] = drain("pages", settings=settings, timeout=5)

    assert (page.data, page.id) == (PAGE, recorded.id)
    assert decode(recorded.body) == PAGE


@pytest.mark.parametrize("version", JOIN_VERSIONS)
def test_a_call_of_that_version_is_answered(settings, version):
    """With what that version answered; with the reason if it comes after the caller's time-out."""
    [request] = [p for p in published(version) if "reply_to" in p.properties and p.is_message]
    [answer] = [p for p in published(version) if p.key.startswith("amq.rabbitmq.reply-to")]
    later = {**request.headers, "mousetrap-expires": time.time() + 60}
    declare("work", "out", settings=settings)
    with work.worker(settings), open_channel(settings) as channel:
        replies = channel.queue_declare("", exclusive=True).method.queue
        publish(channel, settings, request, "work", reply_to=replies, headers=later)
        publish(channel, settings, request, "work", reply_to=replies)
        found = []

        def have_come():
            while (got := channel.basic_get(replies, auto_ack=True))[0] is not None:
                found.append(got[1:])
            return len(found) == 2

        wait_for(have_come)

    assert {properties.correlation_id for properties, _ in found} == {
        answer.properties["correlation_id"]
    }
    bodies = [body for _, body in found]
    assert answer.body in bodies
    assert any(b"Expired" in body for body in bodies)

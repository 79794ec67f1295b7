"""What outputs have from their message: correlation id, trace headers, headers that are named."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pika
import pytest

import mousetrap
from mousetrap import Message, Reject, Send, declare, drain, open_channel, peek, send, stage
from mousetrap.flows.dead_letters import replay
from mousetrap.model.message import current_message
from mousetrap.settings import Settings

TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=1",
}
SENT = {**TRACE, "tenant": "acme", "other": "x", "CC": ["copies"], "x-death": "no"}
CARRIED = {**TRACE, "tenant": "acme"}


@stage(reads="jobs", writes="steps", retry_delays=(0.05,), carry=["tenant", "missing"])
def first(n: int) -> Iterator[int]:
    if current_message.get().attempt == 1:
        raise ConnectionError("not yet")
    if n == 13 and not current_message.get().replayed:
        raise Reject("unlucky")
    send("sent", Message(n, headers={"tenant": "of its own", "more": 1}, correlation_id="own"))
    send("sent", n)
    yield n
    yield n + 1


@stage(reads="steps", writes="results", carry=["tenant"])
async def second(n: int) -> int:
    return 10 * n


def publish(settings: Settings, body: bytes, **properties: object) -> None:
    """Publish a job as a client in plain pika does."""
    with open_channel(settings) as channel:
        name = settings.topology.wire_name("jobs")
        channel.basic_publish("", name, body, pika.BasicProperties(**properties))


def own(message: Message) -> dict[str, object]:
    return {key: each for key, each in message.headers.items() if not key.startswith("mousetrap-")}


def test_outputs_have_what_their_message_brought(settings):
    """Through two stages, a retry, a dead letter and its replay; never what routes or counts."""
    declare("jobs", "steps", "results", "sent", "copies", settings=settings)
    for n in (1, 13):
        publish(settings, str(n).encode(), headers=SENT | {"CC": []}, correlation_id="order 7")
    with first.start(settings) as worker, second.start(settings):
        worker.wait_until(done=1, dead=1, timeout=20)
        [dead] = peek("jobs.dead", settings=settings)
        assert replay("jobs", settings=settings) == 1
        worker.wait_until(done=2, timeout=20)
        results = drain("results", n=4, timeout=10, settings=settings)
        sent = drain("sent", n=4, timeout=10, settings=settings)

    assert (dead.correlation_id, own(dead)["tenant"]) == ("order 7", "acme")
    assert sorted(each.data for each in results) == [10, 20, 130, 140]
    for each in results:
        assert (each.correlation_id, own(each)) == ("order 7", CARRIED)
    for each in sent[::2]:
        assert each.correlation_id == "own"
        assert own(each) == {**TRACE, "tenant": "of its own", "more": 1}
    for each in sent[1::2]:
        assert (each.correlation_id, own(each)) == ("order 7", CARRIED)


def test_stage_passes_them_on_without_a_broker():
    """In `handle`, as a worker would; a message without them has outputs without them."""
    with_all = Message(1, headers=SENT, correlation_id="order 7", attempt=2)
    without = Message(1, attempt=2)

    for each in first.handle(with_all)[:2]:
        assert (each.correlation_id, each.headers) == ("order 7", CARRIED)
    for each in first.handle(without)[:2]:
        assert (each.correlation_id, dict(each.headers)) == (None, {})


def test_run_counts_outputs_that_carry_headers(settings):
    """The ledger knows their ids as ever."""
    with mousetrap.run([first, second], settings) as run:
        run.send(Message(1, headers=TRACE, correlation_id="c"))
        run.settle(timeout=20)
        results = run.results()

    found = {each.data: each for each in results}
    assert (len(results), found.keys()) == (4, {1, 10, 20})
    for n in (10, 20):
        assert (found[n].correlation_id, own(found[n])) == ("c", TRACE)


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_compressed_message_is_retried_and_replayed_as_it_was(settings, compress):
    """The dead letter has the bytes that arrived; an edited one is plain JSON."""
    declare("jobs", "steps", "sent", settings=settings)
    body = compress(b"13")
    publish(settings, body, content_encoding="gzip")
    with first.start(settings) as worker:
        worker.wait_until(dead=1, timeout=20)
        [dead] = peek("jobs.dead", settings=settings)
        assert (dead.body, dead.data, dead.attempt) == (body, 13, 2)
        mousetrap.dead("jobs", settings=settings).edit(lambda n: n + 1).replay()
        worker.wait_until(done=1, timeout=20)

    assert [each.data for each in drain("steps", settings=settings)] == [14, 15]


def test_bomb_is_dead_lettered_as_it_arrived(settings):
    """At once, with a reason; it was never decompressed in whole."""
    declare("jobs", "steps", settings=settings)
    body = gzip.compress(bytes(50_000_000))
    publish(settings, body, content_encoding="gzip")
    with first.start(settings) as worker:
        worker.wait_until(dead=1, timeout=20)
        [dead] = peek("jobs.dead", settings=settings)

    assert (dead.body, dead.attempt) == (body, 1)
    assert dead.reason.startswith("UndecodableMessage: the gzip content has more than 16,777,216")


def test_fan_out_and_routes_carry_the_same():
    """A header of a `Send` is its own; the others are those of the message."""

    @stage(reads="jobs", writes=["a", "b"], routes=["c"], carry=["tenant"])
    def split(n: int) -> Iterator[int | Send]:
        yield n
        yield Send(n, to="c", headers={"tenant": "of its own"})

    outputs = split.outputs(Message(1, headers=SENT, correlation_id="order 7"))

    assert [each.target for each in outputs] == ["a", "b", "c"]
    assert {each.message.correlation_id for each in outputs} == {"order 7"}
    assert [each.message.headers["tenant"] for each in outputs] == ["acme", "acme", "of its own"]
    assert all(each.message.headers.items() >= TRACE.items() for each in outputs)

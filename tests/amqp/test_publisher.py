"""The publisher: every message gets an outcome, and the outcome is true."""

from __future__ import annotations

import contextlib
import threading

import pytest
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.errors import OutcomeUnknown, PublishRefused, TopologyMismatch, Unroutable
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.message import Message
from mousetrap.model.topology import Declaration


def test_publish_is_confirmed_and_arrives(settings):
    """A confirmed message is in the queue, with its id, its body and our headers."""
    declare("work", settings=settings)

    with Publisher(settings) as publisher:
        receipt = publisher.publish(Message({"seed": 1}), "work").wait()

    [arrived] = drain("work", settings=settings)
    assert receipt.confirmed
    assert (arrived.id, arrived.data, arrived.attempt) == (receipt.message.id, {"seed": 1}, 1)


def test_publish_is_persistent_json(settings):
    """What plain pika sees: a persistent message of JSON with an id."""
    declare("work", settings=settings)
    with Publisher(settings) as publisher:
        sent = publisher.publish(Message([1.5, "é"]), "work").wait().message

    with open_channel(settings) as channel:
        _, properties, body = channel.basic_get(settings.topology.wire_name("work"), auto_ack=True)

    assert body == '[1.5,"é"]'.encode()
    assert properties.delivery_mode == 2
    assert properties.message_id == sent.id
    assert properties.content_type == "application/json"


def test_publish_many_keeps_order_and_confirms_all(settings):
    """Receipts and messages have the order of the iterable."""
    declare("work", settings=settings)

    with Publisher(settings.replace(max_in_flight=50)) as publisher:
        receipts = publisher.publish_many((Message(n) for n in range(1000)), "work")
        publisher.flush()

    assert all(receipt.confirmed for receipt in receipts)
    assert [message.data for message in drain("work", settings=settings)] == list(range(1000))


def test_publish_to_a_missing_queue_is_returned(settings):
    """The receipt raises an error that names the queue."""
    with Publisher(settings) as publisher:
        receipt = publisher.publish(Message(1), "nowhere")

        with pytest.raises(Unroutable, match=r"nowhere.*declare"):
            receipt.wait()
    assert receipt.state == "returned"


def test_publish_separates_returned_from_confirmed_in_one_batch(settings):
    """Only those without a queue are returned, however they are mixed."""
    declare("work", settings=settings)

    with Publisher(settings) as publisher:
        receipts = [
            publisher.publish(Message(n), "nowhere" if n % 3 == 0 else "work") for n in range(300)
        ]
        publisher.flush()

    outcomes = [receipt.state for receipt in receipts]
    assert outcomes == ["returned" if n % 3 == 0 else "confirmed" for n in range(300)]


def test_publish_to_a_full_queue_is_refused(settings):
    """A queue that rejects publishes when full: the receipts of the nacks say refused."""
    name = settings.topology.wire_name("small")
    with open_channel(settings) as channel:
        channel.queue_declare(
            name, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        with Publisher(settings) as publisher:
            receipts = publisher.publish_many([Message(n) for n in range(20)], "small")
            publisher.flush()
        channel.queue_delete(name)

    refused = [receipt for receipt in receipts if receipt.state == "refused"]
    assert refused
    with pytest.raises(PublishRefused, match="small"):
        refused[0].wait()


def test_receipts_are_unknown_when_the_connection_breaks(proxy):
    """Messages that were written and not answered are *unknown*, neither confirmed nor refused."""
    declare("work", settings=proxy.settings)
    with Publisher(proxy.settings) as publisher:
        publisher.publish(Message(0), "work").wait()
        proxy.hold()
        receipts = publisher.publish_many([Message(n) for n in range(10)], "work")
        with pytest.raises(TimeoutError):
            publisher.flush(0.3)
        proxy.release()
        proxy.cut()
        publisher.flush(10)

        assert {receipt.state for receipt in receipts} == {"unknown"}
        with pytest.raises(OutcomeUnknown, match="same id"):
            receipts[0].wait()


def test_publisher_sends_again_with_the_same_id_after_a_reconnect(proxy):
    """An unknown message is published again with its id, so that it is not lost."""
    declare("work", settings=proxy.settings)
    with Publisher(proxy.settings) as publisher:
        publisher.publish(Message(0), "work").wait()
        proxy.cut()
        receipt = publisher.publish(Message(1), "work")
        publisher.flush(10)
        if not receipt.confirmed:
            receipt = publisher.send_again(receipt).wait()

        assert receipt.confirmed
    assert receipt.message.id in {m.id for m in drain("work", settings=proxy.settings)}


def test_publish_until_confirmed_survives_a_broken_connection(proxy):
    """Messages that became unknown are published again, and in the end all have arrived."""
    declare("work", settings=proxy.settings)
    with Publisher(proxy.settings) as publisher:
        publisher.publish(Message(0), "work").wait()
        proxy.hold()
        threading.Timer(0.3, lambda: (proxy.release(), proxy.cut())).start()
        receipts = publisher.publish_until_confirmed([Message(n) for n in range(50)], "work", 20)

    assert all(receipt.confirmed for receipt in receipts)
    arrived = {m.id for m in drain("work", settings=proxy.settings)}
    assert {receipt.message.id for receipt in receipts} <= arrived


def test_publish_until_confirmed_raises_when_it_cannot_succeed(proxy):
    """Without the queue at once; without an answer at its time-out."""
    with Publisher(proxy.settings.replace(confirm_timeout=0.3)) as publisher:
        with pytest.raises(Unroutable):
            publisher.publish_until_confirmed([Message(1)], "nowhere")
        declare("work", settings=proxy.settings)
        proxy.hold()
        with pytest.raises(TimeoutError, match="1 of 1 messages are not confirmed"):
            publisher.publish_until_confirmed([Message(1)], "work", timeout=1)
        proxy.cut()


def test_receipt_is_unknown_at_its_deadline(proxy):
    """Without an answer of the broker a receipt waits no longer than the confirm time-out."""
    declare("work", settings=proxy.settings)
    with Publisher(proxy.settings.replace(confirm_timeout=0.5)) as publisher:
        publisher.publish(Message(0), "work").wait()
        proxy.hold()
        receipt = publisher.publish(Message(1), "work")

        with pytest.raises(OutcomeUnknown, match="no answer"):
            receipt.wait(5)
        proxy.release()


def test_publisher_reconnects_when_the_broker_answers_no_publish(proxy):
    """Without any answer in that time it opens another connection, on which it publishes again."""
    declare("work", settings=proxy.settings)
    with Publisher(proxy.settings.replace(confirm_timeout=0.5, connect_timeout=1.0)) as publisher:
        publisher.publish(Message(1), "work").wait()
        proxy.at("Basic.Ack", "from broker", action=proxy.hold)
        before = proxy.connections
        receipt = publisher.publish(Message(2), "work")
        proxy.wait_for_connections(before + 1)
        proxy.release()
        again = publisher.publish_until_confirmed([receipt.message], "work")

    assert receipt.state == "unknown"
    assert all(each.confirmed for each in again)


def test_publisher_keeps_a_connection_on_which_some_publishes_are_answered(settings, proxy):
    """One queue without answers is no reason to lose the outcomes of the others."""
    declare("work", settings=settings)
    patient = proxy.settings.replace(confirm_timeout=1.0)
    with Publisher(patient) as publisher:
        publisher.open()
        lost = proxy.at("Basic.Ack", "from broker", action=proxy.hold)
        receipt = publisher.publish(Message(0), "work")
        lost.wait()
        proxy.release()
        while receipt.state == "waiting":
            publisher.publish(Message(1), "work").wait(5)

    assert receipt.state == "unknown"
    assert publisher.connection.reconnects == 0


def test_publish_blocks_while_the_window_is_full_until_the_deadline(proxy):
    """A full window holds the caller back; without any answer the publish raises."""
    declare("work", settings=proxy.settings)
    with Publisher(proxy.settings.replace(max_in_flight=4, confirm_timeout=0.5)) as publisher:
        proxy.hold()
        receipts = [publisher.publish(Message(n), "work") for n in range(4)]
        fifth = threading.Thread(target=publish_patiently, args=(publisher,))
        fifth.start()
        fifth.join(0.2)
        assert fifth.is_alive()
        assert publisher.in_flight == 4

        fifth.join(5)
        assert not fifth.is_alive()
        publisher.flush(5)
        proxy.cut()
        assert {receipt.state for receipt in receipts} == {"unknown"}


def publish_patiently(publisher):
    """Publish while the window is full; it may stay full until the deadline."""
    with contextlib.suppress(OutcomeUnknown):
        publisher.publish(Message(5), "work")


def test_publish_works_from_many_threads(settings):
    """Eight threads publish at the same time and each message arrives once."""
    declare("work", settings=settings)
    with Publisher(settings.replace(max_in_flight=64)) as publisher:
        threads = [
            threading.Thread(
                target=publisher.publish_many,
                args=([Message([k, n]) for n in range(200)], "work"),
            )
            for k in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        publisher.flush()

    assert depth("work", settings).messages == 1600


@pytest.mark.parametrize("data", [float("nan"), [float("inf")], {"x": float("-inf")}, {1, 2j}])
def test_publish_refuses_what_is_not_json(settings, data):
    """A value that JSON does not have is the caller's error, before anything is sent."""
    with Publisher(settings) as publisher:
        with pytest.raises((TypeError, ValueError)):
            publisher.publish(Message(data), "work")
        assert publisher.in_flight == 0


def test_publish_refuses_a_body_that_no_broker_accepts(settings):
    """For a body beyond 16 MiB the broker would close the channel with all its messages."""
    with Publisher(settings) as publisher, pytest.raises(ValueError, match="store it elsewhere"):
        publisher.publish(Message("x" * (16 * 1024 * 1024)), "work")


def test_publish_of_a_header_that_cannot_be_encoded_is_refused(settings):
    """A message that pika cannot encode affects neither the connection nor other messages."""
    declare("work", settings=settings)
    with Publisher(settings) as publisher:
        bad = publisher.publish(Message(1, headers={"score": 2**64}), "work")
        good = publisher.publish(Message(2), "work").wait()

        with pytest.raises(PublishRefused, match="header"):
            bad.wait()
    assert good.confirmed


@pytest.mark.parametrize("name", ["", "x" * 300, "\ud800"])
def test_publish_refuses_impossible_queue_names(settings, name):
    """A name that AMQP cannot encode is the caller's error; the publisher stays usable."""
    declare("work", settings=settings.replace(namespace=""))
    with Publisher(settings.replace(namespace="")) as publisher:
        with pytest.raises(ValueError):
            publisher.publish(Message(1), name)
        assert publisher.publish(Message(1), "work").wait().confirmed
    drain("work", settings=settings.replace(namespace=""))


def test_publish_after_close_raises(settings):
    """The error says what to do."""
    with Publisher(settings) as publisher:
        pass

    with pytest.raises(Exception, match="make a new one"):
        publisher.publish(Message(1), "work")


def test_reprs_show_no_password_and_no_body(settings):
    """A notebook shows them by itself, so they contain no secret."""
    declare("work", settings=settings)
    with Publisher(settings) as publisher:
        receipt = publisher.publish(Message({"card": "4711-canary"}), "work").wait()

        shown = f"{publisher!r} {receipt!r} {receipt.message!r} {publisher.connection!r}"
        assert settings.password not in shown
        assert "4711-canary" not in shown


def test_publisher_fails_permanently_when_a_declaration_is_refused(settings):
    """A queue with other arguments is reported once, and not declared again and again."""
    name = settings.topology.wire_name("here")
    with open_channel(settings) as channel, Publisher(settings) as publisher:
        channel.queue_declare(name, durable=True, arguments={"x-expires": 60_000})
        publisher.declare([Declaration(name, {"x-expires": 70_000})])
        wait_for(lambda: publisher.connection.state == "failed")

        assert isinstance(publisher.connection.error, TopologyMismatch)
        with pytest.raises(TopologyMismatch):
            publisher.publish(Message(1), "here")

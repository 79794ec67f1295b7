"""Queues: what may be asked of one, what a second declaration must repeat, when one goes."""

from __future__ import annotations

import pytest
from client import (
    CONNECTION,
    RawConnection,
    RecordingConsumer,
    expect_error,
    get,
    publish,
    queue_exists,
    ready_count,
    take_bodies,
    wait_until,
)
from pika import spec

OK, BAD = 0, 406
MINUTE = 60_000  # milliseconds
QUORUM = {"x-queue-type": "quorum"}

ARGUMENTS = [
    ({"x-expires": MINUTE}, OK),
    ({"x-expires": 2**31 - 1}, OK),
    ({"x-expires": 0}, BAD),
    ({"x-expires": -1}, BAD),
    ({"x-expires": "60000"}, BAD),
    ({"x-expires": 2**40}, BAD),
    ({"x-message-ttl": 0}, OK),
    ({"x-message-ttl": MINUTE}, OK),
    ({"x-message-ttl": 315_360_000_000}, OK),  # ten years
    ({"x-message-ttl": -1}, BAD),
    ({"x-message-ttl": "60000"}, BAD),
    ({"x-message-ttl": 2**40}, BAD),
    ({"x-message-ttl": True}, BAD),
    ({"x-max-length": 0}, OK),
    ({"x-max-length": 10}, OK),
    ({"x-max-length": -1}, BAD),
    ({"x-max-length": "10"}, BAD),
    ({"x-max-length": 2**40}, OK),
    ({"x-max-length-bytes": 0}, OK),
    ({"x-max-length-bytes": 1000}, OK),
    ({"x-max-length-bytes": -1}, BAD),
    ({"x-max-length-bytes": "1000"}, BAD),
    ({"x-max-priority": 1}, OK),
    ({"x-max-priority": 10}, OK),
    ({"x-max-priority": 255}, OK),
    ({"x-max-priority": 256}, BAD),
    ({"x-max-priority": -1}, BAD),
    ({"x-max-priority": "10"}, BAD),
    ({"x-overflow": "drop-head"}, OK),
    ({"x-overflow": "reject-publish"}, OK),
    ({"x-overflow": "reject-publish-dlx"}, OK),
    ({"x-overflow": "banana"}, BAD),
    ({"x-overflow": 1}, BAD),
    ({"x-queue-type": "classic"}, OK),
    ({"x-queue-type": "banana"}, BAD),
    ({"x-queue-type": 1}, BAD),
    ({"x-queue-mode": "lazy"}, OK),
    ({"x-queue-mode": "default"}, OK),
    ({"x-single-active-consumer": True}, OK),
    ({"x-single-active-consumer": False}, OK),
    ({"x-single-active-consumer": "yes"}, BAD),
    ({"x-dead-letter-exchange": ""}, OK),
    ({"x-dead-letter-exchange": "there is none yet"}, OK),
    ({"x-dead-letter-exchange": 1}, BAD),
    ({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k"}, OK),
    ({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": 1}, BAD),
    ({"x-dead-letter-routing-key": "k"}, BAD),
    ({"x-delivery-limit": 5}, BAD),
    ({"x-quorum-initial-group-size": 1}, BAD),
    ({"x-dead-letter-strategy": "at-most-once"}, BAD),
    ({"x-max-age": "1D"}, BAD),
    ({"x-max-in-memory-length": 5}, BAD),
    ({"x-queue-version": 2}, OK),
    ({"x-queue-version": 99}, BAD),
    ({"x-banana": "whatever"}, OK),
    ({"x-expires": None}, BAD),
]
FOR_QUORUM = [
    ({}, OK),
    ({"x-delivery-limit": 5}, OK),
    ({"x-delivery-limit": 0}, OK),
    ({"x-delivery-limit": "5"}, OK),  # and ignored
    ({"x-delivery-limit": -1}, OK),
    ({"x-message-ttl": MINUTE}, OK),
    ({"x-expires": MINUTE}, OK),
    ({"x-max-length": 10}, OK),
    ({"x-max-length-bytes": 10}, OK),
    ({"x-single-active-consumer": True}, OK),
    ({"x-overflow": "drop-head"}, OK),
    ({"x-overflow": "reject-publish"}, OK),
    ({"x-overflow": "reject-publish-dlx"}, OK),  # and taken as drop-head
    ({"x-dead-letter-exchange": "", "x-dead-letter-strategy": "at-most-once"}, OK),
    ({"x-dead-letter-strategy": "banana"}, BAD),
    ({"x-max-priority": 5}, BAD),
    ({"x-queue-mode": "lazy"}, BAD),
    ({"x-quorum-initial-group-size": 1}, OK),
    ({"x-queue-version": 1}, BAD),
]


def said(value):
    """A name for a case."""
    if isinstance(value, dict):
        return ",".join(f"{key[2:]}={each!r}" for key, each in value.items()) or "nothing"
    return {OK: "accepted"}.get(value, str(value))


@pytest.mark.parametrize(("arguments", "outcome"), ARGUMENTS, ids=said)
def test_an_argument_of_a_classic_queue(arguments, outcome, channel, name):
    """A queue argument with a value of the wrong kind or size is refused with 406."""
    declare(channel, name(), arguments, outcome)


@pytest.mark.parametrize(("arguments", "outcome"), FOR_QUORUM, ids=said)
def test_an_argument_of_a_quorum_queue(arguments, outcome, channel, name):
    """Quorum queues have arguments of their own, and refuse those of classic ones."""
    declare(channel, name(), QUORUM | arguments, outcome)


def declare(channel, queue, arguments, outcome):
    if outcome == OK:
        assert channel.queue_declare(queue, durable=True, arguments=arguments).method.queue == queue
        channel.queue_delete(queue)
        return
    with expect_error(outcome):
        channel.queue_declare(queue, durable=True, arguments=arguments)


@pytest.mark.parametrize(
    "options",
    [{"durable": False}, {"durable": True, "exclusive": True},
     {"durable": True, "auto_delete": True}],
    ids=["transient", "exclusive", "auto-delete"],
)  # fmt: skip
def test_a_quorum_queue_is_durable_and_shared(options, channel, name):
    """What a quorum queue cannot be is refused with 406."""
    with expect_error(406, text="invalid property"):
        channel.queue_declare(name(), arguments=QUORUM, **options)


@pytest.mark.parametrize(("value", "outcome"), [("client-local", OK), ("banana", BAD)])
def test_where_a_queue_lies(value, outcome, channel, target, name):
    """A classic queue has x-queue-leader-locator since 4.0."""
    outcome = outcome if target.version >= (4, 0) else BAD
    declare(channel, name(), {"x-queue-leader-locator": value}, outcome)


def test_an_unknown_queue_mode(channel, target, name):
    """406 before 4.3; since then there are no modes, and the argument is ignored."""
    outcome = OK if target.version >= (4, 3) else BAD
    declare(channel, name(), {"x-queue-mode": "banana"}, outcome)


def test_a_stream(target, channel, name):
    """The embedded broker has none and says so with 540; RabbitMQ has."""
    arguments = {"x-queue-type": "stream"}
    if target.is_embedded:
        with expect_error(540, CONNECTION, "no streams"):
            channel.queue_declare(name(), durable=True, arguments=arguments)
    else:
        channel.queue_declare(name(), durable=True, arguments=arguments)


AGAIN = [
    ({}, {}, OK),
    ({"durable": True}, {"durable": True}, OK),
    ({"durable": True}, {"durable": False}, 406),
    ({"durable": True}, {"durable": True, "auto_delete": True}, 406),
    ({"durable": True}, {"durable": True, "exclusive": True}, 405),
    ({"exclusive": True}, {"exclusive": True}, OK),
    ({"exclusive": True}, {"exclusive": False}, 405),
    ({"x-message-ttl": MINUTE}, {"x-message-ttl": MINUTE}, OK),
    ({"x-message-ttl": MINUTE}, {"x-message-ttl": MINUTE + 1}, 406),
    ({"x-message-ttl": MINUTE}, {}, 406),
    ({}, {"x-message-ttl": MINUTE}, 406),
    ({"x-expires": MINUTE}, {"x-expires": MINUTE + 1}, 406),
    ({"x-max-length": 5}, {"x-max-length": 6}, 406),
    ({"x-max-length-bytes": 5}, {}, 406),
    ({"x-max-priority": 5}, {"x-max-priority": 4}, 406),
    ({"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, 406),
    ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "b"}, 406),
    ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "a",
                                       "x-dead-letter-routing-key": "k"}, 406),
    ({"x-single-active-consumer": True}, {}, 406),
    ({"x-queue-type": "classic"}, {}, OK),
    ({}, {"x-queue-type": "classic"}, OK),
    ({"x-queue-type": "classic"}, {"x-queue-type": "quorum"}, 406),
    ({"x-banana": 1}, {"x-banana": 2}, OK),
    ({"x-banana": 1}, {}, OK),
]  # fmt: skip


def split(options):
    """Arguments of AMQP apart from the flags; durable unless said otherwise."""
    flags = {key: value for key, value in options.items() if not key.startswith("x-")}
    arguments = {key: value for key, value in options.items() if key.startswith("x-")}
    return {"durable": not flags.get("exclusive", False)} | flags | {"arguments": arguments}


@pytest.mark.parametrize(
    ("first", "second", "outcome"), AGAIN,
    ids=[f"{one} then {two}: {code or 'accepted'}" for one, two, code in AGAIN],
)  # fmt: skip
def test_a_second_declaration(first, second, outcome, channel, name):
    """Declaring again is nothing if all is the same, 406 if not, 405 if one is exclusive."""
    queue = name()
    channel.queue_declare(queue, **split(first))

    if outcome == OK:
        assert channel.queue_declare(queue, **split(second)).method.queue == queue
    else:
        with expect_error(outcome):
            channel.queue_declare(queue, **split(second))


def test_the_refusal_names_the_argument(channel, queue):
    """406 says which argument differs, from what to what."""
    text = f"inequivalent arg 'x-message-ttl' for queue '{queue}' in vhost '/'"
    with expect_error(406, text=text):
        channel.queue_declare(queue, durable=True, arguments={"x-message-ttl": 5})


def test_a_passive_declaration_tells_what_is_there(channel, queue):
    """It returns ready messages and consumers."""
    publish(channel, queue, b"one", b"two")

    answer = channel.queue_declare(queue, passive=True).method

    assert (answer.message_count, answer.consumer_count) == (2, 0)


def test_a_passive_declaration_compares_nothing(channel, queue):
    """Passive looks for the name only."""
    channel.queue_declare(queue, passive=True, durable=False, arguments={"x-message-ttl": 5})


def test_a_passive_declaration_counts_consumers(channel, queue):
    """A consumer counts from its consume-ok on."""
    RecordingConsumer(channel, queue)

    assert channel.queue_declare(queue, passive=True).method.consumer_count == 1


def test_a_passive_declaration_does_not_count_what_is_unacked(channel, queue):
    """Only messages that are ready are counted."""
    publish(channel, queue, b"one", b"two")
    get(channel, queue, auto_ack=False)

    assert ready_count(channel, queue) == 1


MISSING = {
    "declare passively": lambda channel, queue: channel.queue_declare(queue, passive=True),
    "consume": lambda channel, queue: channel.basic_consume(queue, print),
    "get": lambda channel, queue: channel.basic_get(queue),
    "purge": lambda channel, queue: channel.queue_purge(queue),
    "bind": lambda channel, queue: channel.queue_bind(queue, "amq.topic", "k"),
}


@pytest.mark.parametrize("word", MISSING)
def test_a_queue_that_is_not_there(word, channel):
    """404, and the channel closes."""
    with expect_error(404, text="no queue 'conformance.nowhere' in vhost '/'"):
        MISSING[word](channel, "conformance.nowhere")


def test_a_queue_that_is_not_there_is_deleted(channel):
    """Deleting what is not there is no error."""
    assert channel.queue_delete("conformance.nowhere").method.message_count == 0


def test_a_queue_that_is_not_there_is_unbound(channel, target):
    """Unbinding what is not bound is no error."""
    channel.queue_unbind("conformance.nowhere", "amq.topic", "k")
    assert channel.is_open


@pytest.mark.parametrize("word", [*MISSING, "delete", "declare"])
def test_an_exclusive_queue_of_somebody_else(word, channel, connect, name):
    """405 for whatever another connection does with it."""
    queue = name()
    connect().channel().queue_declare(queue, exclusive=True)
    acts = MISSING | {
        "delete": lambda channel, queue: channel.queue_delete(queue),
        "declare": lambda channel, queue: channel.queue_declare(queue, exclusive=True),
    }

    with expect_error(405, text="cannot obtain exclusive access to locked queue"):
        acts[word](channel, queue)


def test_a_missing_exchange_comes_before_the_owner_of_a_queue(channel, connect, name):
    """404, though the queue is not ours to bind."""
    queue = name()
    connect().channel().queue_declare(queue, exclusive=True)

    with expect_error(404, text="no exchange"):
        channel.queue_bind(queue, name("nowhere"))


def test_an_unbinding_from_an_exclusive_queue_of_somebody_else(channel, connect, name):
    """405 for a binding that is there; nothing, as always, for one that is not."""
    queue = name()
    owner = connect().channel()
    owner.queue_declare(queue, exclusive=True)
    owner.queue_bind(queue, "amq.direct", "k")
    channel.queue_unbind(queue, "amq.direct", "another")

    with expect_error(405, text="cannot obtain exclusive access to locked queue"):
        channel.queue_unbind(queue, "amq.direct", "k")


def test_anybody_publishes_to_an_exclusive_queue(channel, connect, name):
    """Exclusive is who reads, not who writes."""
    queue = name()
    owner = connect().channel()
    owner.queue_declare(queue, exclusive=True)
    publish(channel, queue, b"hello")

    assert get(owner, queue)[2] == b"hello"


def test_an_exclusive_queue_goes_with_its_connection(channel, connect, name):
    """It is deleted when the connection is closed."""
    queue = name()
    owner = connect()
    owner.channel().queue_declare(queue, exclusive=True)
    owner.close()

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_exclusive_queue_goes_with_a_connection_that_breaks(channel, connect_raw, name):
    """It is deleted when the socket is closed without a word."""
    queue = name()
    lost: RawConnection = connect_raw()
    lost.call(spec.Queue.Declare(queue=queue, exclusive=True), spec.Queue.DeclareOk)
    lost.hang_up()

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_exclusive_queue_outlives_its_channel(channel, connect, name):
    """It belongs to the connection."""
    queue = name()
    owner = connect()
    first = owner.channel()
    first.queue_declare(queue, exclusive=True)
    first.close()

    owner.channel().queue_declare(queue, passive=True)


NAMES = {
    "a space": "a b", "dots": "a.b.c", "UTF-8": "zürich 東京", "200 characters": "x" * 200,
    "slashes": "a/b", "only digits": "12", "punctuation": "#*%'\"<>",
}  # fmt: skip


@pytest.mark.parametrize("word", NAMES)
def test_a_name_of_a_queue(word, channel, name):
    """A name is any UTF-8 of up to 255 bytes."""
    queue = name(NAMES[word])
    assert channel.queue_declare(queue, durable=True).method.queue == queue
    publish(channel, queue, b"hello")

    assert take_bodies(channel, queue) == [b"hello"]


def test_a_server_named_queue(channel):
    """Who gives no name gets one that begins with amq.gen-."""
    first = channel.queue_declare("", exclusive=True).method.queue
    second = channel.queue_declare("", exclusive=True).method.queue

    assert first.startswith("amq.gen-")
    assert first != second


def test_a_reserved_name_of_a_queue(channel):
    """Names that begin with amq. are the broker's."""
    with expect_error(403, text="reserved prefix 'amq.*'"):
        channel.queue_declare("amq.mine", durable=True)


def test_an_empty_name_is_the_last_queue(channel, queue):
    """Where a name is empty, the queue that this channel declared last is meant."""
    channel.queue_declare(queue, durable=True)
    publish(channel, queue, b"hello")

    assert channel.basic_get("", auto_ack=True)[2] == b"hello"


def test_an_empty_name_without_a_last_queue(channel):
    """404 where this channel has declared none."""
    with expect_error(404):
        channel.basic_get("")


def test_an_empty_name_is_declared_anew(channel, queue):
    """Only a declaration with an empty name makes a queue."""
    channel.queue_declare(queue, durable=True)

    assert channel.queue_declare("", exclusive=True).method.queue != queue


def test_purge_returns_how_many(channel, queue):
    """What is ready is gone."""
    publish(channel, queue, b"one", b"two", b"three")

    assert channel.queue_purge(queue).method.message_count == 3
    assert ready_count(channel, queue) == 0


def test_purge_leaves_what_is_unacked(channel, queue):
    """A message that somebody holds is not ready."""
    publish(channel, queue, b"held", b"ready")
    method, _, _ = get(channel, queue, auto_ack=False)

    assert channel.queue_purge(queue).method.message_count == 1
    channel.basic_nack(method.delivery_tag)
    assert get(channel, queue)[2] == b"held"


def test_delete_returns_how_many(channel, queue):
    """The messages go with the queue."""
    publish(channel, queue, b"one", b"two")

    assert channel.queue_delete(queue).method.message_count == 2


def test_delete_if_unused_with_a_consumer(channel, queue):
    """406, and the queue stays."""
    RecordingConsumer(channel, queue)
    with expect_error(406, text="in use"):
        channel.queue_delete(queue, if_unused=True)

    assert queue_exists(channel.connection, queue)


def test_delete_if_unused_without_a_consumer(channel, queue):
    """It is deleted."""
    channel.queue_delete(queue, if_unused=True)

    assert not queue_exists(channel.connection, queue)


def test_delete_if_empty_with_a_message(channel, queue):
    """406, and the message stays."""
    publish(channel, queue, b"hello")
    with expect_error(406):
        channel.queue_delete(queue, if_empty=True)

    assert queue_exists(channel.connection, queue)


def test_delete_if_empty_without_a_message(channel, queue):
    """It is deleted."""
    channel.queue_delete(queue, if_empty=True)

    assert not queue_exists(channel.connection, queue)


@pytest.mark.parametrize("option", ["if_unused", "if_empty"])
def test_a_quorum_queue_is_deleted_without_conditions_only(option, channel, name):
    """Conditions are refused with 540."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=QUORUM)

    with expect_error(540, CONNECTION):
        channel.queue_delete(queue, **{option: True})


def test_a_deleted_queue_takes_its_bindings_along(channel, name):
    """A new queue of that name is not bound."""
    queue = name()
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, "amq.direct", queue)
    channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    publish(channel, queue, b"hello", exchange="amq.direct", mandatory=False)

    assert take_bodies(channel, queue) == []


def test_an_auto_delete_queue_goes_with_its_last_consumer(channel, name):
    """Not with the first of two."""
    queue = name()
    channel.queue_declare(queue, durable=True, auto_delete=True)
    one, two = RecordingConsumer(channel, queue), RecordingConsumer(channel, queue)

    channel.basic_cancel(one.tag)
    assert queue_exists(channel.connection, queue)
    channel.basic_cancel(two.tag)
    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_auto_delete_queue_goes_with_its_consumers_channel(channel, connect, name):
    """Closing the channel ends the consumer."""
    queue = name()
    other = connect().channel()
    other.queue_declare(queue, durable=True, auto_delete=True)
    RecordingConsumer(other, queue)
    other.close()

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_an_auto_delete_queue_stays_until_it_was_consumed(channel, name):
    """Getting from it is not consumer."""
    queue = name()
    channel.queue_declare(queue, durable=True, auto_delete=True)
    publish(channel, queue, b"hello")
    get(channel, queue)

    assert queue_exists(channel.connection, queue)


def test_a_queue_expires_when_nobody_uses_it(channel, name):
    """x-expires milliseconds after its last use."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments={"x-expires": 30})

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))


def test_a_queue_with_messages_expires_all_the_same(channel, connect, name):
    """Messages are no use; and nobody gets them as dead letters."""
    queue, dead = name(), name("dead")
    channel.queue_declare(dead, durable=True)
    arguments = {"x-expires": 100, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    publish(channel, queue, b"hello")

    wait_until(channel, lambda: not queue_exists(channel.connection, queue))
    assert ready_count(channel, dead) == 0


def test_a_queue_does_not_expire_under_its_consumer(channel, name):
    """It outlives the queue beside it that was made later."""
    queue, beside = name(), name("beside")
    channel.queue_declare(queue, durable=True, arguments={"x-expires": 60})
    RecordingConsumer(channel, queue)
    channel.queue_declare(beside, durable=True, arguments={"x-expires": 120})

    wait_until(channel, lambda: not queue_exists(channel.connection, beside))
    channel.connection.process_data_events(0)
    assert queue_exists(channel.connection, queue)


def test_a_queue_without_an_answer(channel, name, connect):
    """With nowait nothing is answered; the queue is there all the same."""
    queue = name()
    channel._impl.queue_declare(queue, durable=True, callback=None)

    channel.queue_declare(queue, passive=True)

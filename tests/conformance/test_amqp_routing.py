"""Routing: which queues a message reaches."""

from __future__ import annotations

import pytest
from client import expect_error, publish, take_bodies

TOPICS = [
    ("a", "a", True),
    ("a", "b", False),
    ("a", "A", False),
    ("a", "a.b", False),
    ("a.b", "a.b", True),
    ("a.b", "a", False),
    ("a.b.c", "a.b.c", True),
    ("*", "a", True),
    ("*", "", False),  # an empty key is no word
    ("*", "a.b", False),
    ("*.b", "a.b", True),
    ("*.b", "b", False),
    ("a.*", "a.b", True),
    ("a.*", "a", False),
    ("a.*", "a.", True),
    ("a.*", "a.b.c", False),
    ("a.*.c", "a.b.c", True),
    ("a.*.c", "a.c", False),
    ("*.*", "a.b", True),
    ("*.*", "a", False),
    ("#", "", True),
    ("#", "a", True),
    ("#", "a.b.c.d", True),
    ("a.#", "a", True),
    ("a.#", "a.b", True),
    ("a.#", "a.b.c", True),
    ("a.#", "ab", False),
    ("#.c", "c", True),
    ("#.c", "a.b.c", True),
    ("#.c", "a.c.b", False),
    ("a.#.c", "a.c", True),
    ("a.#.c", "a.b.b.c", True),
    ("a.#.c", "a.b", False),
    ("#.#", "a", True),
    ("*.#", "", False),
    ("*.#", "a.b", True),
    ("#.*", "a", True),
    ("#.a.#", "x.a.y", True),
    ("#.a.#", "x.y", False),
    ("", "", True),
    ("", "a", False),
    ("a..b", "a..b", True),
    ("a.*.b", "a..b", True),
    ("ab*", "abc", False),
    ("a#", "a.b", False),
]


@pytest.mark.parametrize(("pattern", "key", "fits"), TOPICS)
def test_a_topic(pattern, key, fits, channel, queue, name):
    """``*`` matches one word, ``#`` any number of words, also none."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(queue, exchange, pattern)
    publish(channel, key, b"hello", exchange=exchange, mandatory=False)

    assert take_bodies(channel, queue) == [b"hello"] * fits


def test_a_topic_of_many_words(channel, queue, target):
    """Since 4.3 a pattern with more than two # fails with 406."""
    if target.version >= (4, 3):
        with expect_error(406, text="uses 3 '#' wildcards, at most 2 are allowed"):
            channel.queue_bind(queue, "amq.topic", "#.a.#.b.#")
    else:
        channel.queue_bind(queue, "amq.topic", "#.a.#.b.#")


HEADERS = [
    ({"x-match": "all", "a": 1}, {"a": 1}, True),
    ({"x-match": "all", "a": 1}, {"a": 2}, False),
    ({"x-match": "all", "a": 1}, {"a": 1, "b": 2}, True),
    ({"x-match": "all", "a": 1, "b": 2}, {"a": 1}, False),
    ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ({"x-match": "any", "a": 1, "b": 2}, {"a": 1}, True),
    ({"x-match": "any", "a": 1, "b": 2}, {"b": 2, "c": 3}, True),
    ({"x-match": "any", "a": 1, "b": 2}, {"a": 2, "b": 1}, False),
    ({"x-match": "any", "a": 1}, {}, False),
    ({"x-match": "any"}, {"a": 1}, False),
    ({"x-match": "all"}, {}, True),
    ({"x-match": "all"}, {"a": 1}, True),
    ({}, {}, True),
    ({"x-match": "all", "a": None}, {"a": 5}, True),
    ({"x-match": "all", "a": None}, {"b": 5}, False),
    ({"x-match": "all", "a": "1"}, {"a": 1}, False),
    ({"x-match": "all", "a": True}, {"a": True}, True),
    ({"x-match": "all", "a": True}, {"a": 1}, False),
    ({"x-match": "all", "a": "text"}, {"a": "text"}, True),
    ({"x-match": "all", "x-a": 1}, {}, True),
    ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
    ({"x-match": "all-with-x", "x-a": 1}, {}, False),
    ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
    ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
]


@pytest.mark.parametrize(("wanted", "headers", "fits"), HEADERS)
def test_headers(wanted, headers, fits, channel, queue, name):
    """x-match is all or any; headers with x- count only with -with-x.

    An empty value matches any value.
    """
    exchange = name("exchange")
    channel.exchange_declare(exchange, "headers")
    channel.queue_bind(queue, exchange, "", wanted)
    publish(channel, "", b"hello", exchange=exchange, mandatory=False, headers=headers)

    assert take_bodies(channel, queue) == [b"hello"] * fits


def test_a_message_without_headers_matches_an_empty_binding(channel, queue, name):
    """A binding without arguments matches every message."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "headers")
    channel.queue_bind(queue, exchange, "", {"x-match": "all"})
    publish(channel, "", b"hello", exchange=exchange)

    assert take_bodies(channel, queue) == [b"hello"]


@pytest.mark.parametrize("match", ["banana", 1])
def test_an_invalid_x_match(match, channel, queue):
    """It fails with 406."""
    with expect_error(406, text="x-match"):
        channel.queue_bind(queue, "amq.headers", "", {"x-match": match, "a": 1})


def test_a_direct_exchange_compares_whole_keys(channel, queue, name):
    """It has no wildcards."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "a.#")
    publish(channel, "a.b", b"no", exchange=exchange, mandatory=False)
    publish(channel, "a.#", b"yes", exchange=exchange)

    assert take_bodies(channel, queue) == [b"yes"]


def test_a_fanout_exchange_ignores_keys(channel, name):
    """Every bound queue gets the message."""
    exchange, one, two = name("exchange"), name("one"), name("two")
    channel.exchange_declare(exchange, "fanout")
    for queue in (one, two):
        channel.queue_declare(queue, durable=True)
        channel.queue_bind(queue, exchange, queue)
    publish(channel, "whatever", b"hello", exchange=exchange)

    assert take_bodies(channel, one) == take_bodies(channel, two) == [b"hello"]


def test_the_default_exchange_knows_every_queue(channel, queue):
    """It routes to each queue by its name."""
    publish(channel, queue, b"hello")

    assert take_bodies(channel, queue) == [b"hello"]


def test_a_queue_bound_twice_gets_a_message_once(channel, queue, name):
    """It does not matter how many of its bindings match."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "topic")
    for pattern in ("#", "a.*", "a.b"):
        channel.queue_bind(queue, exchange, pattern)
    publish(channel, "a.b", b"hello", exchange=exchange)

    assert take_bodies(channel, queue) == [b"hello"]


def test_a_binding_is_made_once(channel, queue, name):
    """An equal second binding adds nothing: one unbind removes it."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct")
    channel.queue_bind(queue, exchange, "k")
    channel.queue_bind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "k")
    publish(channel, "k", b"hello", exchange=exchange, mandatory=False)

    assert take_bodies(channel, queue) == []


def test_an_empty_queue_and_an_empty_key(channel, name):
    """Binding the last queue without a key uses its name as the key."""
    exchange, queue = name("exchange"), name()
    channel.exchange_declare(exchange, "direct")
    channel.queue_declare(queue, durable=True)
    channel.queue_bind("", exchange, "")
    publish(channel, queue, b"hello", exchange=exchange)

    assert take_bodies(channel, queue) == [b"hello"]


@pytest.fixture
def with_alternate(channel, queue, name):
    """Declare a direct exchange whose alternate exchange is a fanout, bound to the queue."""
    alternate, exchange = name("alternate"), name("exchange")
    channel.exchange_declare(alternate, "fanout")
    channel.exchange_declare(exchange, "direct", arguments={"alternate-exchange": alternate})
    channel.queue_bind(queue, alternate)
    return exchange


def test_an_alternate_exchange_gets_unroutable_messages(channel, queue, with_alternate):
    """Such a message counts as routed and is not returned."""
    publish(channel, "k", b"hello", exchange=with_alternate)

    assert take_bodies(channel, queue) == [b"hello"]


def test_an_alternate_exchange_gets_nothing_else(channel, queue, with_alternate, name):
    """It gets no message that matches a binding."""
    other = name("other")
    channel.queue_declare(other, durable=True)
    channel.queue_bind(other, with_alternate, "k")
    publish(channel, "k", b"hello", exchange=with_alternate)

    assert (take_bodies(channel, queue), take_bodies(channel, other)) == ([], [b"hello"])


def test_a_missing_alternate_exchange(channel, name):
    """The message is unroutable, and there is no error."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct", arguments={"alternate-exchange": "nowhere"})
    publish(channel, "k", b"hello", exchange=exchange, mandatory=False)

    assert channel.is_open


def test_an_alternate_exchange_of_itself(channel, name):
    """A cycle of alternate exchanges ends."""
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct", arguments={"alternate-exchange": exchange})
    publish(channel, "k", b"hello", exchange=exchange, mandatory=False)

    assert channel.is_open


def test_exchange_to_exchange_bindings(channel, queue, name):
    """A message has to match the binding of the first exchange, then that of the second."""
    first, second = name("first"), name("second")
    channel.exchange_declare(first, "topic")
    channel.exchange_declare(second, "direct")
    channel.exchange_bind(second, first, "a.*")
    channel.queue_bind(queue, second, "a.b")
    publish(channel, "a.b", b"both", exchange=first)
    publish(channel, "a.c", b"the first only", exchange=first, mandatory=False)
    publish(channel, "b", b"none", exchange=first, mandatory=False)

    assert take_bodies(channel, queue) == [b"both"]


def test_unbinding_exchanges(channel, queue, name):
    """No message passes any more."""
    first, second = name("first"), name("second")
    channel.exchange_declare(first, "fanout")
    channel.exchange_declare(second, "fanout")
    channel.exchange_bind(second, first)
    channel.queue_bind(queue, second)
    channel.exchange_unbind(second, first)
    publish(channel, "k", b"hello", exchange=first, mandatory=False)

    assert take_bodies(channel, queue) == []


@pytest.mark.parametrize("missing", ["source", "destination", "both"])
def test_unbinding_missing_exchanges(missing, channel, name):
    """The broker answers with unbind-ok."""
    ends = {"source": name("source"), "destination": name("destination")}
    for end, exchange in ends.items():
        if missing not in (end, "both"):
            channel.exchange_declare(exchange, "fanout")
    channel.exchange_unbind(**ends)

    assert channel.is_open


def test_exchanges_bound_in_a_cycle(channel, queue, name):
    """A queue gets the message once."""
    first, second = name("first"), name("second")
    for each in (first, second):
        channel.exchange_declare(each, "fanout")
        channel.queue_bind(queue, each)
    channel.exchange_bind(first, second)
    channel.exchange_bind(second, first)
    publish(channel, "k", b"hello", exchange=first)

    assert take_bodies(channel, queue) == [b"hello"]


def test_deleting_an_exchange_removes_its_bindings(channel, queue, name):
    """The bindings from it and those to it are removed."""
    first, second = name("first"), name("second")
    channel.exchange_declare(first, "fanout")
    channel.exchange_declare(second, "fanout")
    channel.exchange_bind(second, first)
    channel.queue_bind(queue, second)
    channel.exchange_delete(second)
    channel.exchange_declare(second, "fanout")
    channel.queue_bind(queue, second)
    publish(channel, "k", b"hello", exchange=first, mandatory=False)

    assert take_bodies(channel, queue) == []


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_cc_and_bcc(header, channel, name):
    """The headers CC and BCC hold further routing keys."""
    one, two, three = name("one"), name("two"), name("three")
    for each in (one, two, three):
        channel.queue_declare(each, durable=True)
    publish(channel, one, b"hello", headers={header: [two, three]})

    assert [take_bodies(channel, each) for each in (one, two, three)] == [[b"hello"]] * 3


@pytest.mark.parametrize(("header", "is_seen"), [("CC", True), ("BCC", False)])
def test_bcc_is_removed_before_delivery(header, is_seen, channel, queue):
    """A consumer sees CC and not BCC."""
    publish(channel, queue, b"hello", headers={header: ["elsewhere"], "other": 1})

    _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert (header in properties.headers, properties.headers["other"]) == (is_seen, 1)


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_cc_that_is_not_a_list(header, channel, queue):
    """It fails with 406."""
    with expect_error(406, text="unacceptable_type_in_header"):
        publish(channel, queue, b"hello", headers={header: queue})


def test_cc_that_reaches_the_same_queue(channel, queue):
    """The queue gets the message once."""
    publish(channel, queue, b"hello", headers={"CC": [queue]})

    assert take_bodies(channel, queue) == [b"hello"]

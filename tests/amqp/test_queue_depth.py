"""The depth of queues, read any number of times over one connection."""

from __future__ import annotations

import pytest

from mousetrap.amqp.queue_depth import Depth, QueueDepthReader
from mousetrap.errors import AccessRefused, WireError
from mousetrap.job_queue import declare, open_channel


@pytest.fixture
def reader(proxy):
    """A reader that goes through the proxy, which counts its connections."""
    reader = QueueDepthReader(proxy.settings, "test")
    yield reader
    reader.close()


def test_read_gives_messages_and_consumers_of_each_queue(reader, proxy):
    """None for a queue that does not exist, also between others."""
    declare("one", "two", settings=proxy.settings)
    with open_channel(proxy.settings) as channel:
        channel.basic_publish("", proxy.settings.topology.wire_name("one"), b"x")
        channel.basic_consume(proxy.settings.topology.wire_name("two"), print)
        found = reader.read(["one", "nowhere", "two", "nowhere"])

    assert found == {"one": Depth("one", 1, 0), "nowhere": None, "two": Depth("two", 0, 1)}


def test_reader_keeps_its_connection(reader, proxy):
    """A missing queue closes the channel and not the connection."""
    declare("one", settings=proxy.settings)
    before = proxy.connections
    for _ in range(3):
        reader.read(["nowhere", "one"])

    assert proxy.connections == before + 1


def test_a_missing_queue_is_not_logged(reader, caplog):
    """pika warns of the channel that the broker closes; the answer is None and no problem."""
    with caplog.at_level("INFO"):
        assert reader.read(["nowhere"]) == {"nowhere": None}

    assert [each for each in caplog.records if each.name.startswith("pika")] == []


def test_reader_opens_another_connection_after_an_error(reader, proxy):
    """The first read raises; the next one works."""
    declare("one", settings=proxy.settings)
    reader.read(["one"])
    proxy.cut()
    with pytest.raises(WireError):
        reader.read(["one"])

    assert reader.read(["one"]) == {"one": Depth("one", 0, 0)}


def test_refused_reader_raises_our_error(settings):
    """With what to check, as everywhere."""
    reader = QueueDepthReader(settings.replace(password="wrong"), "test")

    with pytest.raises(AccessRefused, match="RABBITMQ_PASSWORD"):
        reader.read(["one"])

"""The channel of `open_channel`: pika's blocking methods, a connection that stays alive."""

from __future__ import annotations

import threading

import pika
import pytest

from mousetrap.job_queue import depth, open_channel


@pytest.fixture
def channel(settings):
    with open_channel(settings) as channel:
        yield channel


def test_channel_closes_its_connection(settings):
    """In the tutorial the connection leaks; here the channel closes it."""
    channel = open_channel(settings)
    connection = channel.connection
    channel.close()

    assert not connection.is_open
    channel.close()  # twice is fine
    assert "closed" in repr(channel)


def test_channel_survives_an_idle_kernel(settings):
    """With a heartbeat of 2 s the channel still works after 7 s without any call."""
    with open_channel(settings.replace(heartbeat=2.0)) as channel:
        threading.Event().wait(7)

        channel.queue_declare("", exclusive=True)


def test_channel_survives_a_long_callback(settings):
    """A tutorial callback that works for 7 s at heartbeat 2 s keeps its connection and acks."""
    name = settings.topology.wire_name("start_fetch")
    with open_channel(settings.replace(heartbeat=2.0)) as channel:
        channel.basic_publish("", name, b"1")

        def callback(ch, method, properties, body):
            threading.Event().wait(7)
            ch.basic_ack(delivery_tag=method.delivery_tag)
            ch.stop_consuming()

        channel.basic_consume(queue=name, on_message_callback=callback)
        channel.start_consuming()

    assert depth("start_fetch", settings).messages == 0


def test_channel_runs_callbacks_only_in_the_callers_thread(settings):
    """The heartbeat thread never runs a callback of a consumer."""
    name = settings.topology.wire_name("start_fetch")
    threads = []
    with open_channel(settings.replace(heartbeat=2.0)) as channel:
        channel.basic_consume(
            queue=name,
            on_message_callback=lambda *_: threads.append(threading.current_thread()),
            auto_ack=True,
        )
        channel.basic_publish("", name, b"1")
        threading.Event().wait(1.0)
        assert threads == []
        channel.connection.process_data_events(1)

    assert threads == [threading.main_thread()]


def test_channel_takes_callbacks_from_other_threads(settings):
    """`add_callback_threadsafe`, pika's way to ack from another thread, is not blocked."""
    name = settings.topology.wire_name("start_fetch")
    with open_channel(settings) as channel:
        channel.basic_publish("", name, b"1")

        def callback(ch, method, properties, body):
            def done():
                ch.basic_ack(method.delivery_tag)
                ch.stop_consuming()

            threading.Thread(target=ch.connection.add_callback_threadsafe, args=(done,)).start()

        channel.basic_consume(queue=name, on_message_callback=callback)
        channel.start_consuming()

    assert depth("start_fetch", settings).messages == 0


def test_channel_generator_consumes_and_ends(settings):
    """`consume` with an inactivity time-out, as pika documents it."""
    name = settings.topology.wire_name("start_fetch")
    with open_channel(settings) as channel:
        channel.basic_publish("", name, b"1")
        bodies = []
        for method, _, body in channel.consume(name, inactivity_timeout=0.5):
            if method is None:
                break
            bodies.append(body)
            channel.basic_ack(method.delivery_tag)
        channel.cancel()

    assert bodies == [b"1"]


def test_second_channel_leaves_the_connection_open(channel):
    """`connection.channel()` opens a channel of its own on the same connection."""
    with channel.connection.channel() as other:
        assert other.channel_number != channel.channel_number

    assert channel.is_open
    channel.queue_declare("", exclusive=True)


def test_pika_still_has_the_private_attribute_that_the_channel_uses():
    """If pika drops the one private attribute that the channel uses, this test fails first."""
    assert hasattr(pika.BlockingConnection, "_acquire_event_dispatch")


def test_the_heartbeat_thread_of_a_broken_channel_ends_silently(settings, proxy, monkeypatch):
    """The thread that answers heartbeats ends without an error; the next call has the reason."""
    errors = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: errors.append(hook.exc_value))
    before, started = set(threading.enumerate()), set()
    for _ in range(3):
        channel = open_channel(proxy.settings.replace(heartbeat=2.0))
        started |= set(threading.enumerate()) - before  # now: it may end as soon as it is cut
        proxy.cut()
        with pytest.raises(pika.exceptions.AMQPError):
            channel.queue_declare("work", passive=True)
    threads = [each for each in started if each.name == "mousetrap-heartbeat"]
    for thread in threads:
        thread.join(5)

    assert len(threads) == 3
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []

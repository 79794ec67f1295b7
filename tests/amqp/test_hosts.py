"""Several hosts: the first that answers is used, and another one if it fails."""

from __future__ import annotations

import socket

import pytest
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.broker.configuration import free_ports
from mousetrap.errors import BrokerUnreachable, SettingsError
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import declare, depth, open_channel
from mousetrap.model.message import Message
from mousetrap.settings import Settings

PLACES = [
    ({"RABBITMQ_URL": "amqp://me@h1,h2:5673,h3/v"}, [("h1", 5672), ("h2", 5673), ("h3", 5672)]),
    ({"RABBITMQ_URL": "amqp://me:p%2C@h1:7,h2/"}, [("h1", 7), ("h2", 7)]),
    ({"RABBITMQ_URL": "amqps://h1,h2"}, [("h1", 5671), ("h2", 5671)]),
    ({"RABBITMQ_URL": "amqp://[::1]:7,[::2],h3:9"}, [("::1", 7), ("::2", 7), ("h3", 9)]),
    ({"RABBITMQ_URL": "amqp://h1,h2?heartbeat=20"}, [("h1", 5672), ("h2", 5672)]),
    ({"RABBITMQ_HOST": "h1, h2:9", "RABBITMQ_PORT": "8"}, [("h1", 8), ("h2", 9)]),
    ({"RABBITMQ_HOST": "h1,h2", "RABBITMQ_TLS": "1"}, [("h1", 5671), ("h2", 5671)]),
    ({"RABBITMQ_HOST": "h1"}, [("h1", 5672)]),
]


@pytest.mark.parametrize(("environment", "places"), PLACES, ids=[str(n) for n in range(8)])
def test_hosts_are_read_and_given_to_child_processes(environment, places):
    """From the URL or ``RABBITMQ_HOST``; a host without a port has that of the first."""
    settings = Settings.from_environment(environment)

    assert list(settings.places) == places
    assert list(Settings.from_environment(settings.to_environment()).places) == places


@pytest.mark.parametrize("wrong", ["amqp://h1,", "amqp://h1,h2:x", "amqp://h1,,h2", "amqp://,h2"])
def test_what_is_no_host_is_refused(wrong):
    """With the name of the variable."""
    with pytest.raises(SettingsError, match="RABBITMQ_URL"):
        Settings.from_environment({"RABBITMQ_URL": wrong})


@pytest.fixture(params=["refuses", "is silent", "has no address"])
def bad_first(request, settings):
    """Settings whose first host does not answer."""
    second = f"{settings.host}:{settings.port}"
    given = settings.replace(more_hosts=(second,), connect_timeout=1.0)
    if request.param == "refuses":
        yield given.replace(host="127.0.0.1", port=free_ports(1)[0])
    elif request.param == "has no address":
        yield given.replace(host="nowhere.invalid")
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield given.replace(host="127.0.0.1", port=server.getsockname()[1])


def test_publisher_uses_the_next_host(bad_first, settings):
    """Also if the first accepts connections and says nothing."""
    declare("work", settings=settings)
    with Publisher(bad_first) as publisher:
        publisher.publish_until_confirmed([Message(1)], "work")
    assert depth("work", settings).messages == 1


def test_probe_and_channel_use_the_next_host(settings):
    """If the first refuses."""
    several = settings.replace(
        host="127.0.0.1", port=free_ports(1)[0], more_hosts=(f"{settings.host}:{settings.port}",)
    )
    assert probe.version(several) == probe.version(settings)
    with open_channel(several) as channel:
        assert channel.is_open


def test_a_connection_that_is_lost_comes_back_through_another_host(settings):
    """And what was sent meanwhile arrives."""
    declare("work", settings=settings)
    with Proxy(settings) as first, Proxy(settings) as second:
        several = first.settings.replace(
            more_hosts=(f"{second.settings.host}:{second.settings.port}",)
        )
        with Publisher(several) as publisher:
            first.refuse()
            first.cut()
            publisher.publish_until_confirmed([Message(n) for n in range(10)], "work", timeout=10)
            assert publisher.connection.reconnects == 1
            assert second.links
    wait_for(lambda: depth("work", settings).messages == 10)


def test_error_names_all_hosts():
    """Without the password."""
    first, second = free_ports(2)
    settings = Settings(host="127.0.0.1", port=first, more_hosts=(f"127.0.0.1:{second}",))

    with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{first},127.0.0.1:{second}"):
        Publisher(settings).open()

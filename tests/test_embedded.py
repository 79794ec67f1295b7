import contextlib
import socket
import time

import pika
import pika.exceptions
import pytest

from mousetrap.broker import ensure, up
from mousetrap.broker.embedded import EmbeddedServer, Limits
from mousetrap.errors import BrokerSetupError
from mousetrap.settings import Settings


@pytest.fixture
def server():
    with EmbeddedServer({"guest": "guest"}) as server:
        yield server


def connect(server, **options):
    parameters = pika.ConnectionParameters("127.0.0.1", server.port, **options)
    return pika.BlockingConnection(parameters)


def test_ensure_starts_one_that_says_what_it_is():
    """Who asks for the embedded broker gets one, and reads that it is in memory."""
    lines = []

    with ensure("embedded", Settings(), say=lines.append) as broker:
        assert list(broker.server.overview()["vhosts"]) == ["/"]

    assert str(broker).startswith("embedded, in memory: ")
    assert lines == [f"using the broker {broker}"]


def test_up_refuses_to_leave_one_behind():
    """It lives in a process, so that it cannot stay after it: that is said, not pretended."""
    with pytest.raises(BrokerSetupError, match="ends with the process"):
        up("embedded", Settings())


def test_time_can_be_moved(server):
    """A message with a TTL of ten minutes is dead-lettered when time is moved by ten minutes."""
    with connect(server) as connection:
        channel = connection.channel()
        channel.queue_declare("dead")
        arguments = {"x-message-ttl": 600_000, "x-dead-letter-exchange": "",
                     "x-dead-letter-routing-key": "dead"}  # fmt: skip
        channel.queue_declare("waiting", arguments=arguments)
        channel.confirm_delivery()
        channel.basic_publish("", "waiting", b"slow")

        server.advance(minutes=9)
        assert channel.basic_get("dead")[0] is None
        server.advance(minutes=1)

        _, properties, body = channel.basic_get("dead", auto_ack=True)
        assert body == b"slow"
        assert properties.headers["x-death"][0]["reason"] == "expired"


def test_a_publisher_is_blocked_until_there_is_room():
    """Above the memory bound, publishing waits; it goes on when somebody has consumed."""
    with EmbeddedServer({"guest": "guest"}, limits=Limits(memory=100_000)) as server:
        with connect(server, blocked_connection_timeout=0.5) as connection:
            channel = connection.channel()
            channel.queue_declare("full")
            channel.confirm_delivery()
            with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):  # noqa: PT012 -- in one of these
                for _ in range(5):
                    channel.basic_publish("", "full", bytes(90_000))
                connection.process_data_events(time_limit=20)
        with connect(server) as connection:
            assert connection.channel().queue_purge("full").method.message_count >= 1


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\0\0\x09\x01" + b"\xff" * 20, b"AMQP\1\1\0\x09",
     b"AMQP\0\0\x09\x01\x01\0\0\xff\xff\xff\xff\0"],
)  # fmt: skip
def test_nonsense_ends_its_own_connection_alone(server, bytes_sent):
    """Who sends what is no AMQP is hung up on; others work on."""
    with connect(server) as connection:
        channel = connection.channel()
        with socket.create_connection(("127.0.0.1", server.port), 10) as wire:
            wire.settimeout(10)
            wire.sendall(bytes_sent)
            while wire.recv(4096):
                pass

        assert channel.queue_declare("", exclusive=True).method.queue.startswith("amq.gen-")


def test_who_does_not_finish_the_handshake_is_cut_off():
    """A client that says nothing holds nothing for longer than the handshake may take."""
    with EmbeddedServer({}, limits=Limits(handshake=0.2)) as server:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), 10) as wire:
            wire.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert wire.recv(1) == b""

        assert time.monotonic() - started < 5


def test_a_wrong_password_is_refused(server):
    """The login of the settings is asked for."""
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(server, credentials=pika.PlainCredentials("guest", "wrong"))

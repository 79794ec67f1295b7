"""Each exception of pika and of the socket becomes one of ours that says what to do next."""

from __future__ import annotations

import errno
import socket
import ssl

import pika
import pytest
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
    AMQPConnectorStackTimeout,
)

from mousetrap.amqp.connection import PERMANENT_ERRORS
from mousetrap.amqp.error_translation import parameters, translate, translated
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelLost,
    ConnectionLost,
    QueueMissing,
)
from mousetrap.settings import Settings

SETTINGS = Settings(host="broker.invalid", user="user", password="s3cret-canary")
raised = pika.exceptions


def tls_error(**attributes):
    """An error as the ssl module raises it, with the attributes that OpenSSL gives it."""
    kind = ssl.SSLCertVerificationError if "verify_message" in attributes else ssl.SSLError
    error = kind("x")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("error", "ours", "says"),
    [
        (raised.ProbableAuthenticationError("x"), AccessRefused, "RABBITMQ_PASSWORD"),
        (raised.ConnectionClosedByBroker(403, "ACCESS_REFUSED"), AccessRefused, "RABBITMQ_USER"),
        (raised.ProbableAccessDeniedError("x"), AccessRefused, "RABBITMQ_VHOST"),
        (raised.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost x not found"), AccessRefused,
         "add_vhost"),
        (raised.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), ConnectionLost,
         "320 CONNECTION_FORCED"),
        (raised.ConnectionClosedByClient(200, "bye"), ConnectionLost, "open a new one"),
        (raised.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q'"), QueueMissing, "declare"),
        (raised.ChannelWrongStateError("x"), ChannelLost, "open a new one"),
        (raised.AMQPHeartbeatTimeout("60 s"), ConnectionLost, "broke (60 s); connect again"),
        (raised.StreamLostError("reset"), ConnectionLost, "broke (reset)"),
        (raised.IncompatibleProtocolError("x"), BrokerUnreachable, "RABBITMQ_PORT"),
        (AMQPConnectorStackTimeout("x"), BrokerUnreachable, "no AMQP answer"),
        (socket.gaierror(-2, "unknown"), BrokerUnreachable, "no host is called 'broker.invalid'"),
        (ConnectionRefusedError(111, "refused"), BrokerUnreachable, "mousetrap broker up"),
        (OSError(errno.EADDRNOTAVAIL, "no such"), BrokerUnreachable, "mousetrap broker up"),
        (OSError(errno.EAFNOSUPPORT, "no IPv6"), BrokerUnreachable, "mousetrap broker up"),
        (tls_error(verify_message="self-signed", reason=None), BrokerUnreachable, "TLS_CA"),
        (tls_error(reason="WRONG_VERSION_NUMBER"), BrokerUnreachable, "use amqp://"),
        (tls_error(reason="INTERNAL"), BrokerUnreachable, "check the broker's TLS settings"),
        (OSError(113, "no route"), ConnectionLost, "113 no route"),
        (ValueError("x"), ConnectionLost, "ended by ValueError"),
    ],
    ids=str,
)  # fmt: skip
def test_translate_gives_each_error_its_class_and_a_next_step(error, ours, says):
    """One class of ours for each, a text that says what to check, and no password in it."""
    found = translate(error, SETTINGS)

    assert type(found) is ours
    assert says in str(found)
    assert "s3cret-canary" not in str(found)


def test_translate_finds_the_original_error_inside_pikas_wrappers():
    """pika wraps the error of the socket once for each step of its connection workflow."""
    inner = AMQPConnectorSocketConnectError(ConnectionRefusedError(111, "refused"))

    found = translate(AMQPConnectionWorkflowFailed([inner]), SETTINGS)
    assert type(found) is BrokerUnreachable


def test_connection_that_breaks_while_it_opens_is_no_refusal():
    """pika takes a stream that ends during the login for a wrong password; the text shows it."""
    error = AMQPConnectorAMQPHandshakeError(
        raised.ProbableAuthenticationError("StreamLostError: ('reset',)")
    )

    assert type(translate(error, SETTINGS)) is ConnectionLost


def test_queue_that_is_not_ready_yet_is_no_permanent_error():
    """RabbitMQ may answer 404 for a queue that another client declares: that is not permanent."""
    text = "NOT_FOUND - home node 'a@b' of durable queue 'q' in vhost '/' is down or inaccessible"
    error = translate(raised.ChannelClosedByBroker(404, text), SETTINGS)

    assert isinstance(error, ChannelLost)
    assert not isinstance(error, PERMANENT_ERRORS)
    assert "home node" in str(error)


def test_our_own_errors_are_not_translated():
    """An error of ours comes back as it is."""
    error = ConnectionLost("mine")

    assert translate(error, SETTINGS) is error


def test_translated_raises_our_error_with_pikas_as_the_cause():
    """So that a traceback shows both."""
    with pytest.raises(ConnectionLost) as caught, translated(SETTINGS):
        raise raised.StreamLostError("reset")

    assert isinstance(caught.value.__cause__, raised.StreamLostError)


def test_parameters_carry_the_settings_and_a_name():
    """pika tries once; the management UI shows the purpose in the name."""
    [made] = parameters(SETTINGS.replace(heartbeat=2.5, connect_timeout=7.0), "test")

    assert (made.host, made.credentials.username, made.heartbeat) == ("broker.invalid", "user", 3)
    assert (made.connection_attempts, made.socket_timeout, made.stack_timeout) == (1, 7.0, 7.0)
    assert made.client_properties["connection_name"].startswith("mousetrap test ")
    assert made.ssl_options is None
    assert parameters(SETTINGS.replace(tls=True), "test")[0].ssl_options.context.check_hostname

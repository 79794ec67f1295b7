"""The door between pika and mousetrap: our settings and queues in, pika's errors out as ours.

The only place that turns foreign exceptions into the tree of `mousetrap.errors`; each message
says what to do next.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika.adapters.utils.connection_workflow import (
    AMQPConnectorException,
    AMQPConnectorStackTimeout,
)
from pika.channel import Channel
from pika.exchange_type import ExchangeType

from mousetrap.declared import note
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelLost,
    ConnectionLost,
    MousetrapError,
    QueueMissing,
    TopologyMismatch,
)
from mousetrap.settings import Settings
from mousetrap.topology import AnyDeclaration, Binding, Declaration, Exchange

PIKA_ERRORS = (pika_errors.AMQPError, AMQPConnectorException, OSError)
_REFUSED_LOGIN = (pika_errors.ProbableAuthenticationError, pika_errors.AuthenticationError)
_REFUSED = (*_REFUSED_LOGIN, pika_errors.ProbableAccessDeniedError)
_NO_AMQP = (pika_errors.IncompatibleProtocolError, AMQPConnectorStackTimeout, TimeoutError)


def parameters(settings: Settings, purpose: str) -> pika.ConnectionParameters:
    """Return pika's connection parameters; *purpose* shows in the management UI's list."""
    tls = None
    if settings.tls:  # the default context verifies certificate and host name
        tls = pika.SSLOptions(ssl.create_default_context(), settings.host)
    name = f"mousetrap {purpose} {socket.gethostname()}:{os.getpid()}"
    return pika.ConnectionParameters(
        host=settings.host,
        port=settings.port,
        virtual_host=settings.vhost,
        credentials=pika.PlainCredentials(settings.user, settings.password),
        heartbeat=math.ceil(settings.heartbeat),  # AMQP counts heartbeats in whole seconds
        connection_attempts=1,  # how often to try is decided here, not in pika
        socket_timeout=settings.connect_timeout,
        stack_timeout=settings.connect_timeout,
        ssl_options=tls,
        client_properties={"connection_name": name},
    )


def declare(channel: Channel, declaration: AnyDeclaration) -> None:
    """Declare a durable queue or exchange, or bind, without waiting; a refusal ends the channel.

    No callback means AMQP's no-wait, so that what is published next cannot overtake it.
    """
    match declaration:
        case Declaration(name, arguments):
            note(name)
            channel.queue_declare(name, durable=True, arguments=dict(arguments) or None)
        case Exchange(name):
            channel.exchange_declare(name, ExchangeType.topic, durable=True)
        case Binding(queue, exchange, key):
            channel.queue_bind(queue, exchange, key)


def translate(error: BaseException, settings: Settings) -> MousetrapError:
    """Turn what pika (or the socket below it) raised into one of ours, saying what to do next."""
    error = _innermost(error)
    where = settings.url
    if isinstance(error, MousetrapError):
        return error
    # pika guesses by how far the opening had come. A broker that refuses says so; a stream that
    # just breaks off is a broker going down, or a cable, and trying again may help.
    if isinstance(error, _REFUSED) and "StreamLostError" in str(error.args):
        return ConnectionLost(f"the connection to {where} broke while it was opened; try again")
    if isinstance(error, _REFUSED_LOGIN):
        return AccessRefused(_login_refused(settings))
    if isinstance(error, pika_errors.ProbableAccessDeniedError):
        return AccessRefused(_vhost_refused(settings))
    if isinstance(error, pika_errors.ConnectionClosedByBroker):
        code, text = error.reply_code, error.reply_text
        if code == 403:
            return AccessRefused(_login_refused(settings))
        if code == 530:  # NOT_ALLOWED
            return AccessRefused(_vhost_refused(settings))
        return ConnectionLost(f"the broker closed the connection ({code} {text}); connect again")
    if isinstance(error, pika_errors.ChannelClosedByBroker):
        return _channel_closed(error.reply_code, error.reply_text)
    if isinstance(error, pika_errors.ConnectionClosedByClient):
        return ConnectionLost("this connection was closed here; open a new one")
    if isinstance(error, (pika_errors.AMQPChannelError, pika_errors.ChannelWrongStateError)):
        return ChannelLost(f"the channel is closed ({error!r}); open a new one")
    if isinstance(error, socket.gaierror):
        return BrokerUnreachable(
            f"no host is called {settings.host!r}: check RABBITMQ_HOST (or RABBITMQ_URL)"
        )
    if isinstance(error, ConnectionRefusedError):
        return BrokerUnreachable(
            f"nobody listens at {where}: start a broker (mousetrap broker up) or check "
            f"RABBITMQ_HOST and RABBITMQ_PORT"
        )
    if isinstance(error, ssl.SSLError):
        return BrokerUnreachable(f"TLS with {where} failed ({error.reason}): check certificates")
    if isinstance(error, _NO_AMQP):
        return BrokerUnreachable(
            f"no AMQP answer from {where}: check RABBITMQ_HOST and RABBITMQ_PORT (the management "
            f"UI's port is another one)"
        )
    if isinstance(error, (pika_errors.AMQPHeartbeatTimeout, pika_errors.AMQPError, OSError)):
        text = " ".join(str(part) for part in error.args) or type(error).__name__
        return ConnectionLost(f"the connection to {where} broke ({text}); connect again")
    return ConnectionLost(
        f"the connection to {where} ended by {type(error).__name__}; connect again"
    )


@contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Raise our errors where pika's would be; the cause stays attached."""
    try:
        yield
    except PIKA_ERRORS as error:
        raise translate(error, settings) from error


def _innermost(error: BaseException) -> BaseException:
    """Dig out what really happened: pika wraps it once per layer of its connection workflow."""
    for _ in range(10):  # a guess well above the five layers seen
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
        if inner is None and error.args and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        if not inner:
            return error
        error = inner[-1] if isinstance(inner, (list, tuple)) else inner
    return error


def _login_refused(settings: Settings) -> str:
    hint = ""
    if settings.user == "guest" and settings.host not in ("localhost", "127.0.0.1", "::1"):
        hint = " (guest may only log in from the broker's own machine)"
    return (
        f"the broker at {settings.host}:{settings.port} refused the login of user "
        f"{settings.user!r}{hint}: check RABBITMQ_USER and RABBITMQ_PASSWORD"
    )


def _vhost_refused(settings: Settings) -> str:
    return (
        f"the broker refused vhost {settings.vhost!r} to user {settings.user!r} at {settings.url}: "
        f"check RABBITMQ_VHOST, or create it: rabbitmqctl add_vhost, set_permissions"
    )


def _channel_closed(code: int, text: str) -> MousetrapError:
    if code == 404 and "down or inaccessible" in text:
        # It exists, and its process is not there: its node is away, or somebody else declares it at
        # this very moment (seen when two of ours began together on RabbitMQ 4.3). It will be.
        return ChannelLost(f"the broker is not ready with a queue ({text}); try again")
    if code == 404:
        return QueueMissing(f"{text}; declare it first (mousetrap.job_queue.declare)")
    if code == 406 and "inequivalent arg" in text:
        return TopologyMismatch(
            f"{text}; the queue was declared with other arguments: declare it the same way, or "
            f"delete it when it is empty"
        )
    if code == 403:
        return AccessRefused(f"{text}; ask for the permission: rabbitmqctl set_permissions")
    return ChannelLost(f"the broker closed the channel ({code} {text}); open a new one")


def remaining(deadline: float) -> float:
    """Seconds left until *deadline* on the monotonic clock, never negative."""
    return max(0.0, deadline - time.monotonic())


def kept_properties(properties: pika.BasicProperties) -> pika.BasicProperties:
    """Keep what another client set, less what would lose the message or be refused."""
    kept: Any = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
        content_type=properties.content_type, content_encoding=properties.content_encoding,
        priority=properties.priority, correlation_id=properties.correlation_id,
        reply_to=properties.reply_to, timestamp=properties.timestamp, type=properties.type,
        app_id=properties.app_id,
    )  # fmt: skip
    return kept  # type: ignore[no-any-return]  # as above

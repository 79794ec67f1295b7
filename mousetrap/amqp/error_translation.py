"""Translation between pika and mousetrap: settings and declarations to pika, its errors to ours.

The only module that turns pika's exceptions into those of `mousetrap.errors`; each error message
says what to do next.
"""

from __future__ import annotations

import errno
import math
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pika
from pika import exceptions as pika_errors
from pika.adapters.utils.connection_workflow import (
    AMQPConnectorException,
    AMQPConnectorStackTimeout,
)
from pika.channel import Channel
from pika.exchange_type import ExchangeType

from mousetrap.amqp import pika_log, pika_patches
from mousetrap.amqp.declared_queues import note, note_exchange
from mousetrap.amqp.reply_codes import channel_closed, login_refused, not_allowed, not_supported
from mousetrap.amqp.timed_connection import AnswerTimeout
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ChannelLost,
    ConnectionLost,
    LimitReached,
    MousetrapError,
)
from mousetrap.model.topology import AnyDeclaration, Declaration, ExchangeDeclaration
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.settings.tls import alert_explained, explained, tls_context

pika_patches.install()
pika_log.install()

PIKA_ERRORS = (pika_errors.AMQPError, AMQPConnectorException, OSError)
_REFUSED_LOGIN = (pika_errors.ProbableAuthenticationError, pika_errors.AuthenticationError)
_REFUSED = (*_REFUSED_LOGIN, pika_errors.ProbableAccessDeniedError)
_NO_AMQP = (pika_errors.IncompatibleProtocolError, AMQPConnectorStackTimeout, TimeoutError)
# `localhost` is tried as ::1 last, also where there is no IPv6, as in many containers
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PROBE_TIMEOUT = 0.5  # seconds per connection that is tried to explain a failure


def parameters(settings: Settings, purpose: str) -> list[pika.ConnectionParameters]:
    """Return pika's parameters for each host; *purpose* is shown by RabbitMQ's management UI.

    Raises:
        SettingsError: a file of a certificate cannot be used.
    """
    context = tls_context(settings) if settings.tls else None
    return [_parameters(settings, purpose, context, *place) for place in settings.places]


def refuse_bad_files(settings: Settings) -> None:
    """Raise the `SettingsError` of `parameters`, before anything is connected."""
    if settings.tls and (settings.tls_ca or settings.tls_cert):
        tls_context(settings)


def _parameters(
    settings: Settings, purpose: str, context: ssl.SSLContext | None, host: str, port: int
) -> pika.ConnectionParameters:
    tls = None if context is None else pika.SSLOptions(context, host)
    name = f"mousetrap {purpose} {socket.gethostname()}:{os.getpid()}"
    return pika.ConnectionParameters(
        host=host,
        port=port,
        virtual_host=settings.vhost,
        credentials=pika.PlainCredentials(settings.user, settings.present_password()),
        heartbeat=math.ceil(settings.heartbeat),  # AMQP counts heartbeats in whole seconds
        connection_attempts=1,  # `Connection` decides about further tries, not pika
        socket_timeout=settings.connect_timeout,
        stack_timeout=settings.connect_timeout,
        ssl_options=tls,
        client_properties={"connection_name": name},
    )


def declare(channel: Channel, declaration: AnyDeclaration, *, passive: bool = False) -> None:
    """Declare a durable queue or exchange, or bind; if refused, the broker closes the channel.

    Does not wait for an answer: without a callback, pika asks for none (no-wait). So pika sends the
    declaration at once, before the next publish, even while pika waits for another answer. If
    *passive*, nothing is declared: the broker refuses a queue or exchange that does not exist.
    """
    if isinstance(declaration, Declaration):
        if passive:
            channel.queue_declare(declaration.name, passive=True)
            return
        note(declaration.name)
        arguments = dict(declaration.arguments) or None
        channel.queue_declare(declaration.name, durable=True, arguments=arguments)
    elif isinstance(declaration, ExchangeDeclaration):
        if passive:
            channel.exchange_declare(declaration.name, passive=True)
            return
        note_exchange(declaration.name)
        channel.exchange_declare(
            declaration.name, ExchangeType[declaration.type], durable=True,
            auto_delete=declaration.is_auto_deleted, arguments=dict(declaration.arguments) or None,
        )  # fmt: skip
    else:
        channel.queue_bind(declaration.queue, declaration.exchange, declaration.key)


def translate(
    error: BaseException, settings: Settings, *, may_probe: bool = False
) -> MousetrapError:
    """Return our error for an exception of pika or of the socket below it.

    With *may_probe*, it opens connections to explain why a broker was not reached: perhaps another
    loopback address answers, or the port speaks TLS. Each try takes up to `_PROBE_TIMEOUT` seconds,
    so an I/O thread must not probe.
    """
    error = _original(error)
    where = settings.url
    if isinstance(error, MousetrapError):
        return error
    # pika guesses the cause from the step at which the connection ended. A broker that refuses
    # access says so. If the stream only broke, the broker stopped or the network failed, and the
    # next try may succeed.
    if isinstance(error, _REFUSED) and "StreamLostError" in str(error.args):
        return ConnectionLost(f"the connection to {where} broke while it was opened; try again")
    if isinstance(error, _REFUSED_LOGIN):
        return AccessRefused(login_refused(settings.user, f"{settings.host}:{settings.port}"))
    if isinstance(error, pika_errors.ProbableAccessDeniedError):
        return not_allowed(settings.user, settings.vhost, where, str(error.args))
    if isinstance(error, pika_errors.ConnectionClosedByBroker):
        return _connection_closed(error.reply_code, error.reply_text, settings)
    if isinstance(error, pika_errors.ChannelClosedByBroker):
        return channel_closed(error.reply_code, error.reply_text, settings.namespace)
    if isinstance(error, pika_errors.NoFreeChannels):
        return LimitReached(
            f"a connection to {where} may have no more channels: raise channel_max in rabbitmq.conf"
        )
    if isinstance(error, pika_errors.ConnectionClosedByClient):
        return ConnectionLost("this process closed the connection; open a new one")
    if isinstance(error, (pika_errors.AMQPChannelError, pika_errors.ChannelWrongStateError)):
        return ChannelLost(f"the channel is closed ({error!r}); open a new one")
    if isinstance(error, socket.gaierror):
        return BrokerUnreachable(
            f"no host is called {settings.host!r}: check RABBITMQ_HOST (or RABBITMQ_URL)"
        )
    if isinstance(error, ConnectionRefusedError) or (
        isinstance(error, OSError) and error.errno in _NO_SUCH_ADDRESS
    ):
        return BrokerUnreachable(_connection_refused(settings, may_probe))
    if isinstance(error, ssl.SSLError):
        return BrokerUnreachable(explained(error, settings))
    if isinstance(error, AnswerTimeout):
        return ConnectionLost(
            f"{where} stopped answering ({error.args[0]}): it is paused, overloaded or cut off; "
            f"look at the broker, then try again"
        )
    # With TLS 1.3 the broker refuses a client's certificate after the handshake; pika has the text.
    if settings.tls and (alert := re.search(r"\[SSL: (\w*ALERT\w*)\]", str(error.args))):
        return BrokerUnreachable(alert_explained(alert[1], settings))
    if isinstance(error, _NO_AMQP) or "Timeout while setting up AMQP" in str(error):
        return BrokerUnreachable(_no_amqp(settings, may_probe))
    if isinstance(error, (pika_errors.AMQPHeartbeatTimeout, pika_errors.AMQPError, OSError)):
        text = " ".join(str(part) for part in error.args) or type(error).__name__
        return ConnectionLost(f"the connection to {where} broke ({text}); connect again")
    return ConnectionLost(
        f"the connection to {where} ended by {type(error).__name__}; connect again"
    )


def _connection_closed(code: int, text: str, settings: Settings) -> MousetrapError:
    if code == 403:
        return AccessRefused(login_refused(settings.user, f"{settings.host}:{settings.port}"))
    if code == 530:  # NOT_ALLOWED
        return not_allowed(settings.user, settings.vhost, settings.url, text)
    if code == 540:  # NOT_IMPLEMENTED
        return not_supported(text)
    return ConnectionLost(f"the broker closed the connection ({code} {text}); connect again")


@contextmanager
def translated(settings: Settings, deadline: float | None = None) -> Iterator[None]:
    """Raise our errors instead of pika's; pika's is the ``__cause__``.

    After *deadline* (monotonic) there is no time to probe why a broker was not reached.
    """
    try:
        yield
    except PIKA_ERRORS as error:
        may_probe = deadline is None or clock.remaining(deadline) > 0
        raise translate(error, settings, may_probe=may_probe) from error


def _original(error: BaseException) -> BaseException:
    """Return the original exception; each step of pika's workflow wraps it in another."""
    for _ in range(10):  # a guess well above the five that were seen
        inner = getattr(error, "exceptions", None) or getattr(error, "exception", None)
        if inner is None and error.args and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        if not inner:
            return error
        error = inner[-1] if isinstance(inner, (list, tuple)) else inner
    return error


def _connection_refused(settings: Settings, may_probe: bool) -> str:
    for other in _LOOPBACK if may_probe and settings.host in _LOOPBACK else ():
        if other == settings.host:
            continue
        with suppress(OSError), socket.create_connection((other, settings.port), _PROBE_TIMEOUT):
            return (
                f"no broker listens at {settings.url}, but a program listens at {other}, port "
                f"{settings.port}: set RABBITMQ_HOST={other}"
            )
    return (
        f"no broker listens at {settings.url}: start one (mousetrap broker up) or check "
        f"RABBITMQ_HOST and RABBITMQ_PORT"
    )


def _no_amqp(settings: Settings, may_probe: bool) -> str:
    if may_probe and not settings.tls and _speaks_tls(settings):
        return (
            f"{settings.host}:{settings.port} speaks TLS, and the settings say no TLS: use "
            f"amqps:// in RABBITMQ_URL, or the broker's port without TLS (usually 5672)"
        )
    return (
        f"no AMQP answer from {settings.url}: check RABBITMQ_HOST and RABBITMQ_PORT (the "
        f"management UI uses another port)"
    )


def _speaks_tls(settings: Settings) -> bool:
    """Whether a TLS handshake succeeds; no password is sent, so the certificate is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (settings.host, settings.port)
    with (
        suppress(OSError),
        socket.create_connection(address, _PROBE_TIMEOUT) as plain,
        context.wrap_socket(plain),
    ):
        return True
    return False

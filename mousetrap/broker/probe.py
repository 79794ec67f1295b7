"""What answers at an address: the version in its greeting, and whether a message comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Callable

from mousetrap.embedded_broker import PRODUCT
from mousetrap.errors import AccessRefused, BrokerSetupError, WireError
from mousetrap.job_queue import ping
from mousetrap.runtime import clock
from mousetrap.settings import Settings
from mousetrap.settings.tls import tls_context

Log = Callable[[str], None]
"""Receives a line of text for each step of a start or a stop."""

EMBEDDED = "embedded, in memory"  # describes a broker whose messages end with its process
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
PING_TIMEOUT, MIN_PING = 3.0, 0.5  # seconds for one attempt to reach it
PING_INTERVAL = 0.1  # seconds between two attempts to reach a broker that is starting
WAITING_LOG_INTERVAL = 10.0  # seconds between two "still waiting" lines


def version(settings: Settings, timeout: float = 3.0) -> str | None:
    """Return the product and version in the greeting, ``RabbitMQ 4.3.6``; None if none comes.

    *timeout* limits the whole call, except for the search for the host's addresses. It needs no
    login. For our own server it returns ``embedded, in memory: mousetrap embedded
    broker 0.1.0``. The first thing that an AMQP server sends is ``connection.start`` with a table
    of its properties: a short name, the letter S, four bytes of length, the text.
    """
    greeting = b""
    try:
        with contextlib.ExitStack() as stack:
            limit = _TimeLimit(timeout)
            connection, host = _connected(settings, limit)
            stack.enter_context(connection)
            if settings.tls:
                context = tls_context(settings)
                limit.set(connection)  # for the whole handshake
                secured = context.wrap_socket(connection, server_hostname=host)
                connection = stack.enter_context(secured)
            limit.set(connection)
            connection.sendall(PROTOCOL_HEADER)
            while b"\x07versionS" not in greeting and len(greeting) < 10_000:
                limit.set(connection)
                part = connection.recv(4096)
                if not part:
                    break
                greeting += part
    except OSError:
        return None
    if not greeting.startswith(b"\x01\x00\x00"):  # a method frame on channel 0
        return None
    product, number = (_property(greeting, name) for name in (b"product", b"version"))
    text = " ".join(word for word in (product, number) if word) or "an AMQP broker"
    return described(text)


def described(product: str) -> str:
    """Return *product*, a broker's own name and version, with what it means for messages."""
    return f"{EMBEDDED}: {product}" if product.startswith(PRODUCT) else product


class _TimeLimit:
    """The time that is left for several steps of one call."""

    def __init__(self, timeout: float) -> None:
        self._deadline = clock.monotonic() + timeout

    def set(self, connection: socket.socket) -> None:
        """Let the next step of *connection* take the time that is left.

        Raises:
            TimeoutError: none is left.
        """
        if not (left := clock.remaining(self._deadline)):
            raise TimeoutError
        connection.settimeout(left)


def _connected(settings: Settings, limit: _TimeLimit) -> tuple[socket.socket, str]:
    """Connect to the first address of a host that accepts; return the host as well.

    Raises:
        OSError: none does.
    """
    refused: OSError = ConnectionRefusedError()
    for host, port in settings.places:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            refused, found = error, []
        for family, kind, protocol, _, address in found:
            connection = socket.socket(family, kind, protocol)
            try:
                limit.set(connection)
                connection.connect(address)
            except OSError as error:
                connection.close()
                refused = error
            else:
                return connection, host
    raise refused


def memory_note(settings: Settings) -> str:
    """Return ``, embedded, in memory`` for an embedded broker, to stand after its address."""
    return f", {EMBEDDED}" if (version(settings) or "").startswith(EMBEDDED) else ""


def _property(greeting: bytes, name: bytes) -> str:
    found = re.search(re.escape(bytes([len(name)]) + name + b"S") + b"(.{4})", greeting, re.DOTALL)
    if not found:
        return ""
    size = int.from_bytes(found[1], "big")
    return greeting[found.end() : found.end() + size].decode("utf-8", "replace")


def is_free(port: int) -> bool:
    """Return whether no program listens on 127.0.0.1:*port* at this moment."""
    with socket.socket() as candidate:
        if sys.platform != "win32":  # there, the option would let two listeners share the port
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_ready(
    settings: Settings, deadline: float, what: str, log: Log, exit_reason: Callable[[], str | None]
) -> None:
    """Return when a message has gone to the broker and come back.

    *exit_reason* is called between the attempts; if it returns a sentence (the node ended), the
    wait ends with it.

    Raises:
        AccessRefused: the broker refuses the login; waiting would not help.
        BrokerSetupError: the broker ended, or *deadline* (monotonic) passed.
    """
    started = logged = clock.monotonic()
    while True:
        try:
            ping(settings, timeout=min(PING_TIMEOUT, max(MIN_PING, clock.remaining(deadline))))
        except AccessRefused:
            raise
        except WireError:
            pass  # not yet
        else:
            return
        if reason := exit_reason():
            raise BrokerSetupError(reason)
        now = clock.monotonic()
        if now > deadline:
            raise BrokerSetupError(
                f"{what} did not answer within {now - started:.0f} s: give it longer, or use "
                f"another broker (--broker docker, local or external)"
            )
        if now - logged > WAITING_LOG_INTERVAL:
            logged = now
            log(f"still waiting for {what} to answer ({now - started:.0f} s)")
        clock.sleep(PING_INTERVAL)

"""What answers at an address: the version in its greeting, and whether a message comes back."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import sys
from collections.abc import Callable

from mousetrap.embedded_broker import PRODUCT
from mousetrap.errors import AccessRefused, BrokerSetupError, WireError
from mousetrap.job_queue import ping
from mousetrap.runtime import clock
from mousetrap.settings import Settings

Say = Callable[[str], None]

EMBEDDED = "embedded, in memory"  # of a broker whose messages end with it
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
PAUSE = 0.1  # seconds between two looks at something that is on its way
REPORT_EVERY = 10.0  # seconds between two "still waiting" lines


def say_on_stderr(line: str) -> None:
    """Tell the person at the terminal; stdout stays free for data."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def version(settings: Settings, timeout: float = 3.0) -> str | None:
    """Ask for the greeting (no login needed): ``RabbitMQ 4.3.6``; None if nobody speaks AMQP.

    Of our own it says ``embedded, in memory: mousetrap embedded broker 0.1.0``.
    The first thing an AMQP server sends is ``connection.start`` with a table of its properties:
    a short name, the letter S, four bytes of length, the text.
    """
    greeting = b""
    try:
        with contextlib.ExitStack() as stack:
            plain = socket.create_connection((settings.host, settings.port), timeout)
            wire = stack.enter_context(plain)
            if settings.tls:
                context = ssl.create_default_context()
                wire = stack.enter_context(context.wrap_socket(wire, server_hostname=settings.host))
            wire.sendall(PROTOCOL_HEADER)
            while b"\x07versionS" not in greeting and len(greeting) < 10_000:
                part = wire.recv(4096)
                if not part:
                    break
                greeting += part
    except OSError:
        return None
    if not greeting.startswith(b"\x01\x00\x00"):  # a method frame on channel 0
        return None
    words = [_property(greeting, name) for name in (b"product", b"version")]
    said = " ".join(word for word in words if word) or "an AMQP broker"
    return f"{EMBEDDED}: {said}" if words[0] == PRODUCT else said


def remark(settings: Settings) -> str:
    """Return what to say behind the broker's address: that it is in memory, or nothing."""
    return f", {EMBEDDED}" if (version(settings) or "").startswith(EMBEDDED) else ""


def _property(greeting: bytes, name: bytes) -> str:
    found = re.search(re.escape(bytes([len(name)]) + name + b"S") + b"(.{4})", greeting, re.DOTALL)
    if not found:
        return ""
    size = int.from_bytes(found[1], "big")
    return greeting[found.end() : found.end() + size].decode("utf-8", "replace")


def is_free(port: int) -> bool:
    """Nobody listens on 127.0.0.1:*port* (now; somebody may a moment later)."""
    with socket.socket() as candidate:
        if sys.platform != "win32":  # there, the option would let two listeners share the port
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_ready(
    settings: Settings, deadline: float, what: str, say: Say, ended: Callable[[], str | None]
) -> None:
    """Return when a message has gone through the broker and come back.

    *ended* is asked between the tries; a sentence from it (the node died, say) ends the waiting.

    Raises:
        AccessRefused: it answers and refuses the login; waiting would not help.
        BrokerSetupError: it ended, or *deadline* (monotonic) passed.
    """
    started = reported = clock.monotonic()
    while True:
        try:
            ping(settings, timeout=3.0)
        except AccessRefused:
            raise
        except WireError:
            pass  # not yet
        else:
            return
        if reason := ended():
            raise BrokerSetupError(reason)
        now = clock.monotonic()
        if now > deadline:
            raise BrokerSetupError(
                f"{what} did not answer within {now - started:.0f} s: give it longer, or use "
                f"another broker (--broker docker, local or external)"
            )
        if now - reported > REPORT_EVERY:
            reported = now
            say(f"still waiting for {what} to answer ({now - started:.0f} s)")
        clock.sleep(PAUSE)

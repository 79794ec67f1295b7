"""What a connection calls: the publisher or the consumer that uses its channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pika.channel import Channel

from mousetrap.errors import MousetrapError


class Session(Protocol):
    """The user of a `Connection`'s channel; the methods are called on the I/O thread."""

    def opened(self, channel: Channel, ready: Callable[[], None]) -> None:
        """Set up the new channel by asynchronous calls, then call *ready*."""

    def lost(self, error: MousetrapError) -> None:
        """Handle the loss of the channel; what was in flight on it has an unknown outcome."""

    def failed(self, error: MousetrapError) -> None:
        """Handle the connection's permanent failure: another try would get *error* again."""

    def forked(self, error: MousetrapError) -> None:
        """Refuse everything with *error*: this is a forked child, and has no connection."""

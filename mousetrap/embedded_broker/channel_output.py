"""What the parts of a channel need: a way to send, and a few facts about their connection.

Threads: the server's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mousetrap.embedded_broker import methods
from mousetrap.embedded_broker.frames import METHOD, FrameWriter
from mousetrap.embedded_broker.limits import Limits


class ChannelConnection(Protocol):
    """A connection as its channels see it; it is also the owner of exclusive queues."""

    limits: Limits
    user: str
    is_ending: bool  # its channels are being released, one after the other

    def client_supports(self, capability: str) -> bool:
        """Whether the client announced this extension of the protocol."""

    def block_if_memory_is_short(self) -> None:
        """If the broker is short of memory, read no more from this client until it is not."""

    def confirm_later(self, flush_confirms: Callable[[], None]) -> None:
        """Call *flush_confirms* when everything that was read has been carried out."""

    def remove_channel(self, number: int) -> None:
        """Free the number of a channel that is closed."""

    def overview(self) -> dict[str, Any]:
        """Return the state of the whole broker, as plain data."""


class ChannelOutput:
    """Sends methods and contents on one channel."""

    def __init__(self, writer: FrameWriter, number: int) -> None:
        self.writer = writer
        self.number = number

    def send(self, name: str, *values: Any) -> None:
        """Send a method."""
        self.writer.send_frame(METHOD, self.number, methods.encode(name, *values))

    def send_content(self, method: bytes, properties: bytes, body: bytes) -> None:
        """Send an encoded method with its content."""
        self.writer.send_content(self.number, method, properties, body)

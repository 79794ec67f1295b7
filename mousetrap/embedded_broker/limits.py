"""The limits of the embedded broker; the defaults are RabbitMQ 4.3's where RabbitMQ has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and counts. A client that exceeds one loses its channel or connection."""

    memory: int = 256 * 2**20  # of messages; above it, publishers are blocked (a guess)
    message: int = 16 * 2**20
    frame: int = 131_072
    first_frame: int = 8_192  # until the client and the broker have agreed on a frame size
    channels: int = 2_047  # of one connection
    connections: int = 1_000  # a guess: each needs a file descriptor; often 1,024 are allowed
    handshake: float = 10.0
    heartbeat: int = 60
    delivery_limit: int = 20  # of a quorum queue declared without x-delivery-limit

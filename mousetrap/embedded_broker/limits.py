"""The limits of the embedded broker; the defaults are RabbitMQ 4.3's where RabbitMQ has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and counts.

    A client that exceeds one loses its channel or connection. Two are different: above `memory`,
    publishers are blocked; above `delivery_limit`, a message is dropped or dead-lettered.
    """

    memory: int = 256 * 2**20  # bytes of all messages; a guess
    message: int = 16 * 2**20  # bytes of a body
    frame: int = 131_072  # bytes
    first_frame: int = 8_192  # bytes, until the client and the broker have agreed on a frame size
    channels: int = 2_047  # of one connection
    connections: int = 1_000  # a guess: each needs a file descriptor; often 1,024 are allowed
    handshake: float = 10.0  # seconds until connection.open
    heartbeat: int = 60  # seconds, as proposed to the client
    delivery_limit: int = 20  # of a quorum queue declared without x-delivery-limit
    return_time: float = 5.0  # seconds until a refused dead letter is sent again; RabbitMQ: 180

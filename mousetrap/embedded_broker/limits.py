"""What the embedded broker allows a client; the values are RabbitMQ 4.3's where it has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and counts. Beyond one of them, the connection or channel at fault ends."""

    memory: int = 256 * 2**20  # of waiting messages; above it, who publishes is blocked (a guess)
    message: int = 16 * 2**20
    frame: int = 131_072
    first_frame: int = 8_192  # until the sizes are negotiated
    channels: int = 2_047  # of one connection
    connections: int = 1_000  # a guess: each needs a file descriptor, often 1,024 in all
    handshake: float = 10.0
    heartbeat: int = 60
    delivery_limit: int = 20  # of a quorum queue that names none

"""What all connections of one server share: users, virtual hosts, memory, clock.

It starts no thread and opens no socket: `server` does that, and passes its event loop.
Threads: the server's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from mousetrap.embedded_broker import randomness
from mousetrap.embedded_broker.clock import Clock
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.vhost import VirtualHost

# Fraction of the memory limit below which blocked publishers may publish again; a guess: well below
# the limit, so that they are not blocked and unblocked for each message.
UNBLOCK_BELOW = 0.8


class ClientConnection(Protocol):
    """A connection as the server sees it."""

    def unblock(self) -> None:
        """Read again from a publisher that was blocked."""

    def shut_down(self) -> None:
        """Close because the broker stops."""

    def describe(self) -> dict[str, Any]:
        """Return the facts about it, as plain data."""


class ServerState:
    """The users, virtual hosts, connections and memory of one server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        users: dict[str, str],
        vhosts: tuple[str, ...],
        limits: Limits,
        *,
        version: str = "unknown",
        clock: Clock | None = None,
        random_token: Callable[[], str] = randomness.token,
    ) -> None:
        self.loop = loop
        self.users = users  # user name -> password
        self.limits = limits
        self.version = version
        self.clock = clock or Clock(loop)
        self.vhosts = {
            name: VirtualHost(name, self.clock, limits, self.count_memory, random_token)
            for name in vhosts
        }
        self.connections: set[ClientConnection] = set()
        self.memory = 0  # bytes of all messages, estimated
        self.is_memory_short = False

    def count_memory(self, change: int) -> None:
        """Add *change* bytes; above the limit, publishers are blocked; well below it, unblocked."""
        self.memory += change
        if self.memory > self.limits.memory:
            self.is_memory_short = True
        elif self.is_memory_short and self.memory < UNBLOCK_BELOW * self.limits.memory:
            self.is_memory_short = False
            for connection in list(self.connections):
                self.loop.call_soon(connection.unblock)

    def overview(self) -> dict[str, Any]:
        """Return memory, connections and virtual hosts, as plain data."""
        return {
            "memory": self.memory,
            "is_short": self.is_memory_short,
            "connections": [connection.describe() for connection in self.connections],
            "vhosts": {name: vhost.overview() for name, vhost in self.vhosts.items()},
        }

"""The embedded broker in this process: an AMQP 0-9-1 server on a loopback port, in its own thread.

Everything inside happens in one asyncio loop on that thread; the methods of `EmbeddedServer` may be
called from any other. It ends with the process, however that ends: nothing is left running.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from mousetrap.embedded_broker.clock import Clock
from mousetrap.embedded_broker.connection import Connection
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.vhost import VirtualHost
from mousetrap.errors import BrokerSetupError

VERSION = "0.1.0"  # of this server, as its greeting states it
LOOPBACK = "127.0.0.1"
LOW = 0.8  # of the memory bound: below it, who was blocked may publish again
PATIENCE = 10.0  # seconds for a call from another thread

T = TypeVar("T")


class ServerState:
    """What all connections share. Threads: the server's own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        users: dict[str, str],
        vhosts: tuple[str, ...],
        limits: Limits,
    ) -> None:
        self.loop = loop
        self.users = users
        self.limits = limits
        self.version = VERSION
        self.clock = Clock(loop)
        self.vhosts = {name: VirtualHost(name, self.clock, limits, self.weigh) for name in vhosts}
        self.connections: set[Connection] = set()
        self.memory = 0  # bytes of messages, about
        self.is_short = False

    def weigh(self, more: int) -> None:
        """Count memory; block publishers above the bound, and unblock them well below it."""
        self.memory += more
        if self.memory > self.limits.memory:
            self.is_short = True
        elif self.is_short and self.memory < LOW * self.limits.memory:
            self.is_short = False
            for each in list(self.connections):
                self.loop.call_soon(each.unblock)

    def overview(self) -> dict[str, Any]:
        """What there is, as plain data."""
        return {
            "memory": self.memory,
            "is_short": self.is_short,
            "connections": [each.describe() for each in self.connections],
            "vhosts": {name: each.overview() for name, each in self.vhosts.items()},
        }


class EmbeddedServer:
    """A broker for whoever connects to ``127.0.0.1:port``; in memory.

    Threads: any.
    """

    def __init__(
        self,
        users: dict[str, str],
        *,
        port: int = 0,
        vhosts: tuple[str, ...] = ("/",),
        limits: Limits | None = None,
    ) -> None:
        self.port = port  # 0: one that is free
        self._users = users
        self._vhosts = vhosts
        self._limits = limits or Limits()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: ServerState | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> EmbeddedServer:
        """Return when it listens.

        Raises:
            BrokerSetupError: the port is taken.
        """
        try:
            listener = socket.create_server((LOOPBACK, self.port), backlog=256)
        except OSError as error:
            raise BrokerSetupError(
                f"the embedded broker cannot listen on {LOOPBACK}:{self.port} ({error}): "
                f"choose another port by RABBITMQ_PORT"
            ) from error
        self.port = listener.getsockname()[1]
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)),
            name="mousetrap-embedded-broker",
            daemon=True,
        )
        self._thread.start()
        ready.result(PATIENCE)
        return self

    async def _serve(self, listener: socket.socket, ready: Future[None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        state = self._state = ServerState(loop, self._users, self._vhosts, self._limits)
        self._stop = asyncio.Event()
        server = await loop.create_server(lambda: Connection(state), sock=listener)
        ready.set_result(None)
        await self._stop.wait()
        server.close()
        for each in list(state.connections):
            each.shut_down()
        await asyncio.sleep(0)  # lets the last writes go

    def stop(self) -> None:
        """Close every connection and end; what was in the queues is gone."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(PATIENCE)

    def advance(self, *, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Move the broker's time on: TTLs and expiries that fall due happen now, in their order."""
        span = 60 * minutes + seconds
        self._in_loop(lambda state: state.clock.advance(span))

    def overview(self) -> dict[str, Any]:
        """Return queues with depths and consumers, bindings, connections, memory: plain data."""
        return self._in_loop(lambda state: state.overview())

    def _in_loop(self, action: Callable[[ServerState], T]) -> T:
        state, loop = self._state, self._loop
        if state is None or loop is None or self._thread is None:
            raise BrokerSetupError("the embedded broker is not running: start it first")
        done: Future[T] = Future()

        def act() -> None:
            try:
                done.set_result(action(state))
            except Exception as error:  # noqa: BLE001 -- it is the caller's, on another thread
                done.set_exception(error)

        loop.call_soon_threadsafe(act)
        return done.result(PATIENCE)

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

"""The embedded broker as a thread of this process: an AMQP 0-9-1 server on a loopback port.

Everything in the broker runs in one asyncio loop on that thread; any other thread may call the
methods of `EmbeddedServer`. The thread is a daemon, so the broker always ends with the process.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from mousetrap.embedded_broker import randomness
from mousetrap.embedded_broker.clock import Clock
from mousetrap.embedded_broker.connection import Connection
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.state import ServerState

LOOPBACK = "127.0.0.1"
MAX_LISTEN_BACKLOG = 256  # connections that wait to be accepted
CALL_TIMEOUT = 10.0  # seconds for a call into the server's thread

T = TypeVar("T")


class EmbeddedServer:
    """An in-memory broker that listens on ``127.0.0.1:port``.

    *users* maps user names to passwords. *version* is what clients see in the server properties.
    *make_clock* and *random_token* replace the clock and the random names, for a simulation.

    Threads: any.
    """

    def __init__(
        self,
        users: dict[str, str],
        *,
        port: int = 0,
        vhosts: tuple[str, ...] = ("/",),
        limits: Limits | None = None,
        version: str = "unknown",
        make_clock: Callable[[asyncio.AbstractEventLoop], Clock] = Clock,
        random_token: Callable[[], str] = randomness.token,
    ) -> None:
        self.port = port  # 0: `start` takes a free one
        self._users = users
        self._vhosts = vhosts
        self._limits = limits or Limits()
        self._version = version
        self._make_clock = make_clock
        self._random_token = random_token
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: ServerState | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> EmbeddedServer:
        """Start the thread, and return when the server listens.

        Raises:
            OSError: it cannot listen on the port, for example because another program does.
        """
        listener = socket.create_server((LOOPBACK, self.port), backlog=MAX_LISTEN_BACKLOG)
        self.port = listener.getsockname()[1]
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)),
            name="mousetrap-embedded-broker",
            daemon=True,
        )
        self._thread.start()
        ready.result(CALL_TIMEOUT)
        return self

    async def _serve(self, listener: socket.socket, ready: Future[None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        state = self._state = ServerState(
            loop,
            self._users,
            self._vhosts,
            self._limits,
            version=self._version,
            clock=self._make_clock(loop),
            random_token=self._random_token,
        )
        self._stop = asyncio.Event()
        server = await loop.create_server(lambda: Connection(state), sock=listener)
        ready.set_result(None)
        await self._stop.wait()
        server.close()
        for connection in list(state.connections):
            connection.shut_down()
        await asyncio.sleep(0)  # the loop sends the last frames

    def stop(self) -> None:
        """Close every connection and end the thread; all messages are lost."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(CALL_TIMEOUT)

    def advance(self, *, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Move the broker's time forward; what expires in that time expires now, in its order.

        Raises:
            RuntimeError: the broker is not running.
        """
        span = 60 * minutes + seconds
        self._call_in_thread(lambda state: state.clock.advance(span))

    def overview(self) -> dict[str, Any]:
        """Return queues with depths and consumers, bindings, connections, memory: plain data.

        Raises:
            RuntimeError: the broker is not running.
        """
        return self._call_in_thread(lambda state: state.overview())

    def _call_in_thread(self, action: Callable[[ServerState], T]) -> T:
        state, loop = self._state, self._loop
        if state is None or loop is None or self._thread is None:
            raise RuntimeError("the embedded broker is not running: start it first")
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(action(state))
            except Exception as error:  # noqa: BLE001 -- the calling thread raises it
                done.set_exception(error)

        loop.call_soon_threadsafe(run)
        return done.result(CALL_TIMEOUT)

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

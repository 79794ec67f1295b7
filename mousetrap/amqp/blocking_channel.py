"""A pika blocking channel that survives thinking pauses: what `open_channel` returns.

A plain `pika.BlockingConnection` answers heartbeats only while somebody is inside pika; an idle
kernel or a long callback loses it. Here a small thread goes inside whenever nobody else is.
Prototyped in ``notebooks/01_channel.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from mousetrap.amqp.error_translation import PIKA_ERRORS, parameters, translated
from mousetrap.runtime import threads
from mousetrap.runtime.interrupt import is_interrupted, run_uninterrupted
from mousetrap.settings import Settings


class _Turn:
    """Who may be inside pika: a blocking connection bears one thread at a time.

    While nobody is inside, a small thread goes in now and then to answer heartbeats.
    """

    def __init__(self, connection: pika.BlockingConnection, heartbeat: float) -> None:
        self.connection = connection
        self.over = threads.Event()
        self._lock = threads.Lock()
        self._owner: int | None = None  # the thread that holds the lock
        if heartbeat:
            # Two heartbeats missed end a connection; an eighth leaves room for a busy machine.
            threads.Thread(
                target=self._tend, args=(max(0.25, heartbeat / 8),), daemon=True,
                name="mousetrap-heartbeat",
            ).start()  # fmt: skip

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Wait for the turn; free of charge for the thread that has it (pika calls us back)."""
        me = threads.get_ident()
        if self._owner == me:
            yield
            return
        with self._lock:
            self._owner = me
            try:
                yield
            finally:
                self._owner = None

    @property
    def is_mine(self) -> bool:
        """It is the calling thread that is inside."""
        return self._owner == threads.get_ident()

    @contextmanager
    def step_aside(self) -> Iterator[None]:
        """Let others in while a callback of the user, called from inside, does its work."""
        self._owner = None
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._owner = threads.get_ident()

    def guarded(self, value: Any) -> Any:
        """Return *value*; a function comes back as one that waits for the turn."""
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.inside():
                return value(*args, **kwargs)

        return call

    def _tend(self, interval: float) -> None:
        while not self.over.wait(interval):
            if self._lock.acquire(blocking=False):  # else somebody is inside: pika is looked after
                try:
                    if not self.connection.is_open:
                        return  # broken, and pika's loop may be closed, which it takes badly
                    # Held back, messages wait for `start_consuming` in the user's own thread.
                    with self.connection._acquire_event_dispatch():
                        self.connection.process_data_events(0)
                except PIKA_ERRORS:
                    return  # broken: the next call of the user says so
                finally:
                    self._lock.release()


class JobChannel:
    """A pika blocking channel whose connection stays alive while nobody uses it.

    Every method and attribute of `pika.adapters.blocking_connection.BlockingChannel` is here.
    Three things differ: heartbeats go on while the kernel idles and while a message callback
    works; `close` closes the connection too; it is a context manager.

    Threads: any, one at a time: a call waits while another thread is inside pika.
    """

    def __init__(self, turn: _Turn, settings: Settings, *, owns_connection: bool = True) -> None:
        self._turn = turn
        self._settings = settings
        self._owns_connection = owns_connection
        with turn.inside():
            self._channel = turn.connection.channel()

    @property
    def connection(self) -> JobConnection:
        """The connection, with the methods of `pika.BlockingConnection`."""
        return JobConnection(self._turn, self._settings)

    def basic_consume(
        self, queue: str, on_message_callback: Callable[..., object], *args: Any, **kwargs: Any
    ) -> str:
        """As pika's; the callback gets this channel, and heartbeats go on while it works."""

        def callback(_: BlockingChannel, *delivery: Any) -> None:
            with self._turn.step_aside():
                on_message_callback(self, *delivery)

        with self._turn.inside():
            return str(self._channel.basic_consume(queue, callback, *args, **kwargs))

    def consume(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As pika's; heartbeats go on while the loop's body works."""
        messages = self._channel.consume(*args, **kwargs)
        while True:
            with self._turn.inside():
                try:
                    message = next(messages)
                except StopIteration:
                    return
            yield message

    def close(self) -> None:
        """Close the channel and its connection; safe to call twice and on a broken connection."""
        if is_interrupted() and not self._turn.is_mine:
            # With a silent broker pika would wait for as long as its heartbeats do.
            run_uninterrupted(self._close, daemon=True)
        else:
            self._close()

    def _close(self) -> None:
        if self._owns_connection:
            self._turn.over.set()
        with suppress(*PIKA_ERRORS), self._turn.inside():
            if not self._owns_connection:
                self._channel.close()
            elif self._turn.connection.is_open:
                self._turn.connection.close()

    def __getattr__(self, name: str) -> Any:
        return self._turn.guarded(getattr(self._channel, name))

    def __enter__(self) -> JobChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self._channel.is_open else "closed"
        return f"<Channel {self._channel.channel_number} to {self._settings.url}: {state}>"


class JobConnection:
    """The connection of a `JobChannel`; every method of `pika.BlockingConnection` is here.

    Threads: as `JobChannel`; `add_callback_threadsafe` never waits.
    """

    def __init__(self, turn: _Turn, settings: Settings) -> None:
        self._turn = turn
        self._settings = settings
        self.add_callback_threadsafe = turn.connection.add_callback_threadsafe

    def channel(self) -> JobChannel:
        """Open another channel on this connection; closing it leaves the connection open."""
        return JobChannel(self._turn, self._settings, owns_connection=False)

    def __getattr__(self, name: str) -> Any:
        return self._turn.guarded(getattr(self._turn.connection, name))

    def __repr__(self) -> str:
        state = "open" if self._turn.connection.is_open else "closed"
        return f"<Connection to {self._settings.url}: {state}>"


def connect(settings: Settings, purpose: str) -> JobChannel:
    """Open a blocking connection and a channel within ``settings.connect_timeout``, in one try.

    Raises:
        BrokerUnreachable, AccessRefused: with the variable to check.
    """
    with translated(settings):
        connection = pika.BlockingConnection(parameters(settings, purpose))
        return JobChannel(_Turn(connection, settings.heartbeat), settings)

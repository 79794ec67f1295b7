"""A pika blocking channel whose connection survives idle time: what `open_channel` returns.

A plain `pika.BlockingConnection` sends heartbeats only while a thread runs pika's code, so an idle
kernel or a long callback loses the connection. Here a background thread runs pika's code whenever
no other thread does. Prototyped in ``notebooks/01_channel.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from mousetrap.amqp import pika_log
from mousetrap.amqp.error_translation import PIKA_ERRORS, parameters, translated
from mousetrap.amqp.timed_connection import TimedConnection
from mousetrap.errors import ConnectionLost
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import is_interrupted, run_uninterrupted
from mousetrap.settings import Settings

CLOSE_TIMEOUT = 0.75  # seconds for the handshake that ends a connection; then it is dropped


class _SharedConnection:
    """A blocking connection and the lock around it: pika allows one thread at a time in it.

    While no thread holds the lock, a background thread takes it from time to time and lets pika
    send heartbeats.
    """

    def __init__(self, connection: TimedConnection, heartbeat: float) -> None:
        self.connection = connection
        self.closing = threads.Event()  # ends the background thread
        self._lock = forks.released_in_child(threads.Lock())
        self._owner: int | None = None  # the thread that holds the lock
        self.is_parents = False  # it is the connection of the process that forked this one
        forks.watch(self)
        if heartbeat:
            # Two missed heartbeats end a connection; an eighth of one leaves a margin for load.
            threads.Thread(
                target=self._send_heartbeats, args=(max(0.25, heartbeat / 8),), daemon=True,
                name="mousetrap-heartbeat",
            ).start()  # fmt: skip

    def forked(self) -> None:
        """Send nothing in a forked child: the socket is the parent's, too."""
        self.is_parents, self._owner = True, None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; a thread that holds it already (in a callback of pika) does not wait.

        Raises:
            ConnectionLost: this is a forked child.
        """
        if self.is_parents:
            raise ConnectionLost(
                "this channel belongs to the process that forked this one, so nothing was sent: "
                "open another after the fork"
            )
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
        """Whether the calling thread holds the lock."""
        return self._owner == threads.get_ident()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Release the lock while a user's callback, which pika has called, runs."""
        self._owner = None
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._owner = threads.get_ident()

    def guarded(self, value: Any) -> Any:
        """Return *value*; if it is a function, a function that calls it with the lock held."""
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.held():
                return value(*args, **kwargs)

        return call

    def _send_heartbeats(self, interval: float) -> None:
        while not self.closing.wait(interval):
            # If the lock is held, a thread runs pika's code, and that sends heartbeats.
            if self._lock.acquire(blocking=False):
                try:
                    if not self.connection.is_open:
                        return  # pika's loop may be closed, and processing events would fail
                    # Do not dispatch messages here: they wait for the user's own thread.
                    with self.connection._acquire_event_dispatch():
                        self.connection.process_data_events(0)
                except PIKA_ERRORS:
                    return  # the connection broke: the user's next call raises
                finally:
                    self._lock.release()


class JobChannel(forks.OfOneProcess):
    """A pika blocking channel whose connection stays open while it is not used.

    Every method and attribute of `pika.adapters.blocking_connection.BlockingChannel` is here.
    Four things differ: heartbeats are also sent while the kernel is idle and while a message
    callback runs; `close` closes the connection too; a channel is a context manager; the broker has
    ``settings.confirm_timeout`` seconds to answer a request, then the connection is dropped and the
    call raises `pika.exceptions.AMQPConnectionError`. Methods that wait for messages
    (`start_consuming`, `consume`, ...) and `basic_publish`, which waits while the broker has an
    alarm, have no such limit: they end when two heartbeats are missed.

    Threads: any, one at a time: a call waits while another thread runs pika's code.
    """

    def __init__(
        self, shared: _SharedConnection, settings: Settings, *, owns_connection: bool = True
    ) -> None:
        self._shared = shared
        self._settings = settings
        self._owns_connection = owns_connection
        with shared.held():
            self._channel = shared.connection.channel()

    @property
    def connection(self) -> JobConnection:
        """The connection, with the methods of `pika.BlockingConnection`."""
        return JobConnection(self._shared, self._settings)

    def basic_consume(
        self, queue: str, on_message_callback: Callable[..., object], *args: Any, **kwargs: Any
    ) -> str:
        """Consume as pika's method does; heartbeats go on while the callback runs.

        The callback gets this channel as its first argument, not pika's.
        """

        def callback(_: BlockingChannel, *delivery: Any) -> None:
            with self._shared.released():
                on_message_callback(self, *delivery)

        with self._shared.held():
            return str(self._channel.basic_consume(queue, callback, *args, **kwargs))

    def basic_publish(self, *args: Any, **kwargs: Any) -> None:
        """Publish as pika's method does; an alarm of the broker may block it."""
        with self._shared.held(), self._shared.connection.waiting_for_messages():
            self._channel.basic_publish(*args, **kwargs)

    def delete_queues(self, names: Sequence[str]) -> None:
        """Delete the queues with these names on the wire, in one round trip.

        One that does not exist is no error. Raises what `queue_delete` raises.
        """
        for name in names[:-1]:  # without a callback pika asks for no answer
            self._shared.guarded(self._channel._impl.queue_delete)(name)
        for name in names[-1:]:  # the answer comes after all the others are deleted
            self.queue_delete(name)

    def reopen(self) -> None:
        """Open another channel on the connection, in place of one that the broker has closed."""
        with self._shared.held():
            self._channel = self._shared.connection.channel()

    def limited(self, deadline: float | None) -> AbstractContextManager[None]:
        """Let all waits inside the block end at *deadline* (monotonic); None: no other limit."""
        return self._shared.connection.limited(deadline)

    def consume(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Consume as pika's generator does; heartbeats go on while the body of the loop runs."""
        messages = self._channel.consume(*args, **kwargs)
        while True:
            with self._shared.held():
                try:
                    message = next(messages)
                except StopIteration:
                    return
            yield message

    def close(self) -> None:
        """Close the channel and its connection; safe to call twice and on a broken connection.

        Without an answer the connection is dropped after `CLOSE_TIMEOUT` seconds. A channel that
        was opened by `JobConnection.channel` leaves the connection open.
        """
        if is_interrupted() and not self._shared.is_mine:
            # Another thread may use the channel, or the broker may not answer: do not wait long.
            run_uninterrupted(self._close, daemon=True)
        else:
            self._close()

    def _close(self) -> None:
        if self._shared.is_parents:
            return
        if self._owns_connection:
            self._shared.closing.set()
        deadline = clock.monotonic() + CLOSE_TIMEOUT
        with suppress(*PIKA_ERRORS), self._shared.held(), self.limited(deadline):
            if not self._owns_connection:
                self._channel.close()
            elif self._shared.connection.is_open:
                self._shared.connection.close()

    def __getattr__(self, name: str) -> Any:
        return self._shared.guarded(getattr(self._channel, name))

    def __enter__(self) -> JobChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self._channel.is_open else "closed"
        return f"<Channel {self._channel.channel_number} to {self._settings.url}: {state}>"


class JobConnection(forks.OfOneProcess):
    """The connection of a `JobChannel`; every method of `pika.BlockingConnection` is here.

    Threads: as `JobChannel`; `add_callback_threadsafe` never waits.
    """

    def __init__(self, shared: _SharedConnection, settings: Settings) -> None:
        self._shared = shared
        self._settings = settings
        self.add_callback_threadsafe = shared.connection.add_callback_threadsafe

    def channel(self) -> JobChannel:
        """Open another channel on this connection; closing it leaves the connection open."""
        return JobChannel(self._shared, self._settings, owns_connection=False)

    def __getattr__(self, name: str) -> Any:
        return self._shared.guarded(getattr(self._shared.connection, name))

    def __repr__(self) -> str:
        state = "open" if self._shared.connection.is_open else "closed"
        return f"<Connection to {self._settings.url}: {state}>"


def connect(settings: Settings, purpose: str, deadline: float | None = None) -> JobChannel:
    """Open a blocking connection and a channel, without a second try.

    It may take ``settings.connect_timeout`` seconds for each address of the host, and lasts until
    *deadline* (monotonic) at the longest. To limit what follows, use `JobChannel.limited`.

    Raises:
        BrokerUnreachable, AccessRefused: the message names the variable to check.
        ConnectionLost: the connection broke while it was opened, or the broker did not answer.
    """
    with translated(settings, deadline), pika_log.quiet():
        timed = TimedConnection(parameters(settings, purpose), settings.confirm_timeout, deadline)
        with timed.limited(deadline):
            return JobChannel(_SharedConnection(timed, settings.heartbeat), settings)

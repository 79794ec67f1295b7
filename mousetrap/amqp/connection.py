"""One AMQP connection on an I/O thread, which reconnects by itself.

Only the I/O thread touches pika's connection. This module does not know what the channel is for: a
publisher or a consumer passes itself as the `Session`, which is called when a channel is open and
when it is lost. Prototyped in ``notebooks/01_channel.ipynb``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from pika.channel import Channel

from mousetrap.amqp.declarer import Declarer
from mousetrap.amqp.error_translation import parameters, refuse_bad_files, translate
from mousetrap.amqp.fast_connection import FastConnection
from mousetrap.amqp.io_thread import IOThread
from mousetrap.amqp.lost_queues import LostQueues
from mousetrap.amqp.session import Session
from mousetrap.display.safe_text import repr_of, safe
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ConnectionLost,
    MousetrapError,
    QueueMissing,
    TopologyMismatch,
)
from mousetrap.model.backoff import backoff
from mousetrap.runtime import clock, forks, threads
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

ConnectionState = Literal["new", "connecting", "open", "blocked", "failed", "closed"]

log = logging.getLogger("mousetrap.amqp.connection")

# Seconds in which a new channel must be set up; ``settings.connect_timeout`` if that is longer. A
# node that has lost its cluster accepts connections and does not answer for up to 30 s (RabbitMQ
# 4.3, declaring a queue; measured); electing a new leader for a quorum queue takes a few seconds.
CHANNEL_SETUP_TIMEOUT = 15.0

# Seconds in which the broker notices that a connection broke and delivers its messages again: a
# guess. Mostly that is at once; in one of 30 runs or so the new connection was open before that.
REDELIVERY_DELAY = 0.5
CLOSE_HANDSHAKE_TIMEOUT = 0.2  # seconds at least for the handshake that ends a connection
STABLE_CONNECTION_TIME = 5.0  # seconds after which a connection counts as working, even if idle

# Errors that another try would raise again.
PERMANENT_ERRORS = (AccessRefused, TopologyMismatch, QueueMissing)


class Connection:
    """Keeps one connection with one channel open until it is closed.

    The first connection must succeed within ``settings.connect_timeout`` seconds; otherwise `open`
    raises. A lost connection is restored, without a limit to the tries. The delays between them are
    those of `backoff`. They start again from the shortest when a message was delivered or confirmed
    (see `reset_backoff`), or when the connection was open for `STABLE_CONNECTION_TIME`. Refused
    access, and what `declarer` cannot declare or find, is not tried again: the session is `failed`.

    The connection runs on *io_thread*, which other connections may share, or on a new thread. A
    channel that replaces another one is given to the session after a check of *lost_queues*.

    Threads: every method may be called from any thread; nothing waits on the I/O thread.
    """

    def __init__(
        self,
        settings: Settings,
        purpose: str,
        session: Session,
        io_thread: IOThread | None = None,
        lost_queues: LostQueues | None = None,
    ) -> None:
        self.settings = settings
        self.purpose = safe(purpose)
        self.state: ConnectionState = "new"
        self.error: MousetrapError | None = None  # the last thing that went wrong
        self._cause: BaseException | None = None  # pika's, if the whole connection ended
        self.product = ""  # what the broker calls itself: "RabbitMQ 4.3.6"
        self.alarm = ""  # why the broker accepts no messages: "low on memory"
        self.reconnects = 0
        self.io_thread = io_thread or IOThread(purpose)
        self.declarer = Declarer(settings)  # the session calls it with each channel
        self._session = session
        self._lost_queues = lost_queues
        self._lock = forks.released_in_child(threads.Lock())
        self._changed = Waiter()  # notified when the state changes
        self._connection: FastConnection | None = None
        self._channel: Channel | None = None
        self._failures = 0  # losses and failed tries in a row; see `reset_backoff`
        self._was_open = False
        self._opened = 0.0  # when it was opened last, on the monotonic clock
        self._is_new_loss = False  # the next one is logged as a warning
        self._closing = False
        self._is_detached = False  # from the I/O thread: it runs nothing any more

    def open(self) -> None:
        """Connect and return when the session is ready; a second call does nothing.

        Raises:
            SettingsError: a file of a certificate cannot be used.
            BrokerUnreachable: no broker answered within ``settings.connect_timeout`` for each host.
            ConnectionLost, ChannelLost: all tries within that time failed; this is the last error.
            AccessRefused, QueueMissing, TopologyMismatch: at once, as each try would end so.
            KeyboardInterrupt: the wait was interrupted and the connection closed. If it had just
                been opened, `is_open` is true instead, and the caller has to close it.
        """
        with self._lock:
            if self.state != "new":
                return
            self.state = "connecting"
        timeout = self.settings.connect_timeout * len(self.settings.places)
        try:
            refuse_bad_files(self.settings)
            self.io_thread.attach(self)
            self.call(self._connect)
            self._changed.wait_for(lambda: self.state != "connecting", timeout)
        except BaseException:
            if not self.is_open:  # if it is, messages may be in progress: the caller closes it
                self.close(timeout=0.0)
            raise
        error, cause = self.error, self._cause
        if self.is_open:
            return
        self.close(timeout=0.2)  # it was never open, so nothing is under way
        if cause is not None:  # again, because in the caller's thread `translate` may probe
            error = translate(cause, self.settings, may_probe=True)
        raise error or BrokerUnreachable(
            f"no AMQP answer from {self.settings.url} within {timeout:g} s: check RABBITMQ_HOST "
            f"and RABBITMQ_PORT (the management UI uses another port); for a slow broker, raise "
            f"MOUSETRAP_CONNECT_TIMEOUT"
        )

    def close(self, timeout: float = 5.0) -> None:
        """Close by AMQP's handshake or, after *timeout* seconds, without it. Safe to call twice.

        With a timeout of 0 it returns at once, and the I/O thread closes the connection soon.
        """
        with self._lock:
            self._closing = True
            if never_ran := self.state == "new" or not self.io_thread.has_started:
                self._is_detached = True
                self._set_state("closed")
        if never_ran:
            self.io_thread.discard()
            return
        self.call(lambda: self._close(timeout or 1.0))
        if timeout and not self.io_thread.is_current_thread:
            if not self._changed.wait_for(lambda: self._is_detached, timeout):
                self.call(self._end)  # no answer to the close: an alarm, a broken link
            self.io_thread.join(1.0)

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* on the I/O thread soon; dropped once the connection has ended."""
        self.io_thread.call(lambda: self._run(function))

    def call_soon(self, function: Callable[[], object]) -> None:
        """Do what `call` does; if called on the I/O thread, at the end of the present turn."""
        self.io_thread.call_soon(lambda: self._run(function))

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Run *function* on the I/O thread in *delay* seconds."""
        self.call(lambda: self._later(delay, function))

    def reconnect(self, error: MousetrapError) -> None:
        """Drop the whole connection because of *error* and connect again (I/O thread only).

        A new channel would be on the same node of the cluster. A new connection may reach another
        node, if there is a load balancer.
        """
        if self._connection is not None and self._connection.is_open:
            self._connection.terminate(error)

    def replace_channel(self, error: MousetrapError) -> None:
        """Replace the present channel by a new one because of *error* (I/O thread only)."""
        channel = self._channel
        if channel is not None:
            self._lose_channel(error)
            if channel.is_open:
                channel.close(320, "mousetrap opens a new channel")
            self._retry_later(self._open_channel)

    def extra_channel(self, on_open: Callable[[Channel], object]) -> Channel:
        """Open another channel, which nothing restores when it is lost (I/O thread only).

        Raises:
            ConnectionLost: the connection is not open now.
        """
        if not self.is_open or self._connection is None or not self._connection.is_open:
            raise ConnectionLost(f"{self.purpose}: not connected now; try again")
        return self._connection.channel(on_open_callback=on_open)

    def reset_backoff(self) -> None:
        """Reset the backoff: a message was delivered or confirmed (I/O thread only)."""
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether a channel is set up and usable; an alarm may block it."""
        return self.state in ("open", "blocked")

    @property
    def is_recovering(self) -> bool:
        """Whether it is being restored, or was restored less than `REDELIVERY_DELAY` seconds ago.

        The broker delivers the messages that the lost connection held only after it has noticed the
        loss. It does not say when that is.
        """
        if self.is_open:
            return bool(self.reconnects) and clock.monotonic() - self._opened < REDELIVERY_DELAY
        return self._was_open and self.state == "connecting"

    def __repr__(self) -> str:
        return f"<Connection {self.purpose}: {self.state}, {self.settings.url}>"

    # ---- everything below runs on the I/O thread ---------------------------------------------

    def crashed(self, error: BaseException) -> None:
        """Fail, because the I/O thread ended by an exception (called by `IOThread`)."""
        lost = ConnectionLost(
            f"the I/O thread ended by {repr_of(error)}: a defect of mousetrap, please report it; "
            f"open a new connection"
        )
        self._is_detached = self._closing = True
        self._lose_channel(lost)
        self.error = lost
        self._session.failed(lost)
        self._set_state("failed")

    def forked(self) -> None:
        """Fail in a forked child, without a byte to the broker: the socket is the parent's, too."""
        self._is_detached = self._closing = True
        self.error = ConnectionLost(
            f"the connection of the {self.purpose} belongs to the process that forked this one, so "
            f"nothing was sent: make a new publisher, worker or run after the fork"
        )
        self.state = "failed"
        self._session.forked(self.error)

    def _run(self, function: Callable[[], object]) -> None:
        if not self._is_detached:
            function()

    def _later(self, delay: float, function: Callable[[], object]) -> None:
        self.io_thread.io.call_later(delay, lambda: self._run(function))

    def _end(self) -> None:
        """Leave the I/O thread; drop the channel and the connection if they are still open."""
        if self._is_detached:
            return
        self._is_detached = True
        self._lose_channel(ConnectionLost("the connection was closed"))
        if self._connection is not None:
            self._connection.abort()
        self.io_thread.detach(self)
        self._set_state("failed" if self.state == "failed" else "closed")

    def _connect(self) -> None:
        if self._closing:
            self._end()
            return
        try:
            self._connection = FastConnection(
                parameters(self.settings, self.purpose),
                self._failures,
                on_open_callback=self._on_open,
                on_open_error_callback=lambda _, error: self._on_closed(error),
                on_close_callback=lambda _, error: self._on_closed(error),
                custom_ioloop=self.io_thread.io,
                call_soon=self.io_thread.call_soon,
                on_blocked=self._blocked,
            )
        except MousetrapError as error:  # a file of a certificate is being replaced, perhaps
            self._on_closed(error)

    def _on_open(self, connection: FastConnection) -> None:
        server = connection.server_properties or {}
        self.product = f"{server.get('product', '')} {server.get('version', '')}".strip()
        self._open_channel()

    def _open_channel(self) -> None:
        if self._connection is None or not self._connection.is_open or self._closing:
            return

        def on_open(channel: Channel) -> None:
            self._channel = channel
            if self._was_open and self._lost_queues is not None:
                self._lost_queues.check(channel.connection, lambda: begin(channel))
            else:
                begin(channel)

        def begin(channel: Channel) -> None:
            if channel is self._channel:  # it was not lost meanwhile
                opened = partial(self._session.opened, channel, lambda: self._ready(channel))
                self.declarer.begin(channel, opened, self._fail)

        channel = self._connection.channel(on_open_callback=on_open)
        channel.add_on_close_callback(self._on_channel_closed)
        timeout = max(CHANNEL_SETUP_TIMEOUT, self.settings.connect_timeout)
        self._later(timeout, lambda: self._check_setup(channel, timeout))

    def _check_setup(self, channel: Channel, timeout: float) -> None:
        """Drop the connection if *channel* is still being set up after *timeout* seconds."""
        if self.is_open or channel.is_closed or channel.is_closing:
            return
        self.reconnect(
            ConnectionLost(
                f"{self.settings.url} accepted the connection and did not set up a channel within "
                f"{timeout:g} s, like a node that has lost its cluster; connect again"
            )
        )

    def _ready(self, channel: Channel) -> None:
        if channel is not self._channel:
            return
        self._opened = clock.monotonic()
        if self._was_open:
            self.reconnects += 1
            log.warning("%s is connected again (reconnect %d)", self.purpose, self.reconnects)
        self._was_open = self._is_new_loss = True
        self._set_state("open")

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self._channel:  # it was replaced, or ended before it was open
            return
        error, self._cause = translate(reason, self.settings), None
        setting_up = not self.is_open
        if self.declarer.learn(reason, is_setup=setting_up) and setting_up:
            self._open_channel()
            return
        self._lose_channel(error)
        if setting_up and isinstance(error, PERMANENT_ERRORS):
            self._fail(self.declarer.explained(error))
        elif self._connection is not None and self._connection.is_open and not self._closing:
            self._retry_later(self._open_channel)

    def _on_closed(self, reason: BaseException) -> None:
        self._connection = None
        if not self._closing:  # otherwise the cause is the request, or an error known already
            self._cause = reason
        error = translate(reason, self.settings)
        self._lose_channel(error)
        if self._closing:
            self._end()
        elif isinstance(error, PERMANENT_ERRORS):
            self._fail(error)
        else:
            self._retry_later(self._connect)

    def _retry_later(self, step: Callable[[], None]) -> None:
        self._failures += 1
        delay = backoff(self._failures)
        # a warning when it breaks and when it is restored; the tries between are debug
        level = logging.WARNING if self._is_new_loss else logging.DEBUG
        log.log(level, "%s: %s; next try in %.1f s", self.purpose, self.error, delay)
        self._is_new_loss = False
        self._later(delay, step)

    def _lose_channel(self, error: MousetrapError) -> None:
        channel, self._channel = self._channel, None
        if not self._closing:  # a requested end is no error, and must not replace an earlier one
            self.error = error
        if self.is_open:
            if clock.monotonic() - self._opened > STABLE_CONNECTION_TIME:
                self._failures = 0
            self._set_state("connecting")
        if channel is not None:
            self._session.lost(error)

    def _fail(self, error: MousetrapError) -> None:
        self.error, self._closing = error, True
        self._set_state("failed")
        self._session.failed(error)
        self._close()

    def _blocked(self, is_blocked: bool, reason: str) -> None:
        log.warning("%s is %s", self.purpose,
                    f"blocked: the broker is {reason} (an alarm) and accepts no messages until the "
                    f"alarm ends; publishes wait. Drain or purge queues, or raise its limit: "
                    f"rabbitmqctl status" if is_blocked else "no longer blocked")  # fmt: skip
        self.alarm = reason
        if self.is_open:
            self._set_state("blocked" if is_blocked else "open")

    def _close(self, timeout: float = 1.0) -> None:
        self._closing = True
        if self._connection is None or self._connection.is_closed:
            self._end()
        elif not self._connection.is_closing:
            self._connection.close()  # also while it opens; its callback calls `_end`
            self._later(timeout, self._end)  # in case there is no answer

    def _set_state(self, state: ConnectionState) -> None:
        self.state = state
        self._changed.notify_all()

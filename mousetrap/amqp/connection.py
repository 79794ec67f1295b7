"""One AMQP connection on an I/O thread, which reconnects by itself.

No other thread touches a pika connection. What the channel is used for is not known here: a
publisher or a worker hands in a `Session` and is told when a channel is open and when it is lost.
Prototyped in ``notebooks/01_channel.ipynb``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Protocol

from pika.channel import Channel

from mousetrap.amqp.error_translation import parameters, translate
from mousetrap.amqp.fast_connection import FastConnection
from mousetrap.amqp.io_thread import IOThread
from mousetrap.display.safe_text import safe
from mousetrap.errors import (
    AccessRefused,
    BrokerUnreachable,
    ConnectionLost,
    MousetrapError,
    QueueMissing,
    TopologyMismatch,
)
from mousetrap.model.backoff import backoff
from mousetrap.runtime import clock, threads
from mousetrap.runtime.interrupt import Waiter
from mousetrap.settings import Settings

ConnectionState = Literal["new", "connecting", "open", "blocked", "failed", "closed"]

log = logging.getLogger("mousetrap.amqp.connection")

# Seconds from asking for a channel to its being ready, if the settings do not grant more. A node
# that has lost its cluster takes connections and says nothing for up to 30 s (RabbitMQ 4.3, a queue
# declared; measured); to elect a new leader for a quorum queue takes a few.
CHANNEL_SETUP_TIMEOUT = 15.0

# Seconds in which the broker notices that a connection broke, and gives out again what that had. A
# guess for a busy machine: mostly it is at once, but once in some 30 runs we were back before that.
REDELIVERY_DELAY = 0.5
STABLE_AFTER = 5.0  # seconds that a connection without messages lasts to count as a good one

PERMANENT_ERRORS = (
    AccessRefused,
    TopologyMismatch,
    QueueMissing,
)  # asking again gives the same answer


class Session(Protocol):
    """Who uses the channel of a `Connection`. All three are called on the I/O thread."""

    def opened(self, channel: Channel, ready: Callable[[], None]) -> None:
        """Set up the new channel by asynchronous calls, then call *ready*."""

    def lost(self, error: MousetrapError) -> None:
        """The channel is gone; whatever was in flight on it has an unknown outcome."""

    def failed(self, error: MousetrapError) -> None:
        """The connection has given up: *error* will not go away by asking again."""


class Connection:
    """Keeps one connection with one channel open until it is closed.

    The first connection must succeed within ``settings.connect_timeout`` seconds (`open` raises
    otherwise); a lost one is restored for ever, with `backoff` between the tries, also when
    each new one breaks before it was of use (see `worked`). Refused access and channels that cannot
    be set up (403, 404, 406) are not tried again: the state becomes ``failed`` and the session is
    told.

    It lives on *loop*, which it may share with others, or on one of its own.

    Threads: every method may be called from any thread; nothing waits on the I/O thread.
    """

    def __init__(
        self, settings: Settings, purpose: str, session: Session, io_thread: IOThread | None = None
    ) -> None:
        self.settings = settings
        self.purpose = safe(purpose)
        self.state: ConnectionState = "new"
        self.error: MousetrapError | None = None  # the last thing that went wrong
        self._cause: BaseException | None = None  # of it, if the whole connection ended
        self.product = ""  # what the broker calls itself: "RabbitMQ 4.3.6"
        self.alarm = ""  # why the broker takes nothing: "low on memory"
        self.reconnects = 0
        self.io_thread = io_thread or IOThread(purpose)
        self._session = session
        self._lock = threads.Lock()
        self._changed = Waiter()  # rings when the state does
        self._connection: FastConnection | None = None
        self._channel: Channel | None = None
        self._failures = 0  # in a row; a channel that was of no use counts as one
        self._was_open = False
        self._opened = 0.0  # when, on the monotonic clock
        self._is_news = False  # that it breaks
        self._closing = False
        self._has_left = False  # the loop: nothing more will come of it

    def open(self) -> None:
        """Connect and return when the session is ready.

        Raises:
            BrokerUnreachable: nobody answered in ``settings.connect_timeout`` seconds.
            AccessRefused, TopologyMismatch: at once; trying again cannot help.
            KeyboardInterrupt: the wait was interrupted; nothing goes on behind it, unless it had
                just come to its end: then `is_open`, and the caller has to close it.
        """
        with self._lock:
            if self.state != "new":
                return
            self.state = "connecting"
        patience = self.settings.connect_timeout
        try:
            self.io_thread.attach(self)
            self.call(self._connect)
            self._changed.wait_for(lambda: self.state != "connecting", patience)
        except BaseException:
            if not self.is_open:  # else there may be work in hand: who opened it closes it
                self.close(timeout=0.0)
            raise
        error, cause = self.error, self._cause
        if self.is_open:
            return
        self.close(timeout=1.0)
        if cause is not None:  # here, in the caller's thread, one may look for more to say of it
            error = translate(cause, self.settings, may_look=True)
        raise error or BrokerUnreachable(
            f"no AMQP answer from {self.settings.url} within {patience:g} s: check RABBITMQ_HOST "
            f"and RABBITMQ_PORT (the management UI's port is another one), or give a slow broker "
            f"longer by MOUSETRAP_CONNECT_TIMEOUT"
        )

    def close(self, timeout: float = 5.0) -> None:
        """Close politely; after *timeout* seconds, abruptly. Safe to call twice.

        With no time at all it returns at once, and the I/O thread ends as soon as it can.
        """
        with self._lock:
            self._closing = True
            never_ran = self.state == "new" or not self.io_thread.has_started
            if never_ran:
                self._has_left = True
                self._set_state("closed")
        if never_ran:
            self.io_thread.discard()
            return
        self.call(lambda: self._close(timeout or 1.0))
        if timeout and not self.io_thread.is_current_thread:
            if not self._changed.wait_for(lambda: self._has_left, timeout):
                self.call(self._end)  # no answer to our close: an alarm, a dead link
            self.io_thread.join(1.0)

    def call(self, function: Callable[[], object]) -> None:
        """Run *function* on the I/O thread soon; dropped when the connection is closed for good."""
        self.io_thread.call(lambda: self._do(function))

    def call_soon(self, function: Callable[[], object]) -> None:
        """Do what `call` does; on the I/O thread itself at the end of its turn, without a wake."""
        self.io_thread.call_soon(lambda: self._do(function))

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Run *function* on the I/O thread in *delay* seconds."""
        self.call(lambda: self._later(delay, function))

    def give_up(self, error: MousetrapError) -> None:
        """Drop the whole connection for *error* and make a new one (I/O thread only).

        Who does not answer here may be one of several: a balancer has other nodes to offer.
        """
        if self._connection is not None and self._connection.is_open:
            self._connection.give_up(error)

    def reset(self, error: MousetrapError) -> None:
        """Give up the present channel and set up a new one (I/O thread only)."""
        channel = self._channel
        if channel is not None:
            self._lose_channel(error)
            if channel.is_open:
                channel.close(320, "mousetrap starts afresh")
            self._after(self._open_channel)

    def worked(self) -> None:
        """A message came or was confirmed: the next failure is a first one (I/O thread only)."""
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """A channel is set up and usable (perhaps blocked by an alarm)."""
        return self.state in ("open", "blocked")

    @property
    def is_recovering(self) -> bool:
        """It is being restored, or was restored less than `REDELIVERY_DELAY` seconds ago.

        Until the broker has noticed that the old connection broke, it keeps the messages that this
        connection held; then it delivers them again. It does not say when.
        """
        if self.is_open:
            return bool(self.reconnects) and clock.monotonic() - self._opened < REDELIVERY_DELAY
        return self._was_open and self.state == "connecting"

    def __repr__(self) -> str:
        return f"<Connection {self.purpose}: {self.state}, {self.settings.url}>"

    # ---- everything below runs on the I/O thread ---------------------------------------------

    def crashed(self, error: BaseException) -> None:
        """Loop: the thread has died, and this connection with it."""
        lost = ConnectionLost(f"the I/O thread died of {error!r}; a defect")
        self._has_left = self._closing = True
        self._lose_channel(lost)
        self.error = lost
        self._session.failed(lost)
        self._set_state("failed")

    def _do(self, function: Callable[[], object]) -> None:
        if not self._has_left:
            function()

    def _later(self, delay: float, function: Callable[[], object]) -> None:
        self.io_thread.io.call_later(delay, lambda: self._do(function))

    def _end(self) -> None:
        """Leave the loop, and whatever is not closed in peace."""
        if self._has_left:
            return
        self._has_left = True
        self._lose_channel(ConnectionLost("the connection was closed"))
        if self._connection is not None:
            self._connection.abort()
        self.io_thread.detach(self)
        self._set_state("failed" if self.state == "failed" else "closed")

    def _connect(self) -> None:
        if self._closing:
            self._end()
            return
        self._connection = FastConnection(
            parameters(self.settings, self.purpose),
            on_open_callback=self._on_open,
            on_open_error_callback=lambda _, error: self._on_closed(error),
            on_close_callback=lambda _, error: self._on_closed(error),
            custom_ioloop=self.io_thread.io,
            call_soon=self.io_thread.call_soon,
        )
        self._connection.add_on_connection_blocked_callback(
            lambda _, blocked: self._blocked(True, safe(blocked.method.reason))
        )
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._blocked(False))

    def _on_open(self, connection: FastConnection) -> None:
        told = connection.server_properties or {}
        self.product = f"{told.get('product', '')} {told.get('version', '')}".strip()
        self._open_channel()

    def _open_channel(self) -> None:
        if self._connection is None or not self._connection.is_open or self._closing:
            return

        def on_open(channel: Channel) -> None:
            self._channel = channel
            self._session.opened(channel, lambda: self._ready(channel))

        channel = self._connection.channel(on_open_callback=on_open)
        channel.add_on_close_callback(self._on_channel_closed)
        patience = max(CHANNEL_SETUP_TIMEOUT, self.settings.connect_timeout)
        self._later(patience, lambda: self._look_after(channel, patience))

    def _look_after(self, channel: Channel, patience: float) -> None:
        """Give up if *channel* is still being set up."""
        if self.is_open or channel.is_closed or channel.is_closing:
            return
        self.give_up(
            ConnectionLost(
                f"{self.settings.url} took the connection and did not set up a channel within "
                f"{patience:g} s, as a node does that has lost its cluster; connect again"
            )
        )

    def _ready(self, channel: Channel) -> None:
        if channel is not self._channel:
            return
        self._opened = clock.monotonic()
        if self._was_open:
            self.reconnects += 1
            log.warning("%s is connected again (%d×)", self.purpose, self.reconnects)
        self._was_open = self._is_news = True
        self._set_state("open")

    def _on_channel_closed(self, channel: Channel, reason: Exception) -> None:
        if channel is not self._channel:  # an older one, or the whole connection is going down
            return
        error, self._cause = translate(reason, self.settings), None
        setting_up = not self.is_open
        self._lose_channel(error)
        if setting_up and isinstance(error, PERMANENT_ERRORS):
            self._fail(error)
        elif self._connection is not None and self._connection.is_open and not self._closing:
            self._after(self._open_channel)

    def _on_closed(self, reason: BaseException) -> None:
        self._connection = None
        if not self._closing:  # else this end has a cause, which is known
            self._cause = reason
        error = translate(reason, self.settings)
        self._lose_channel(error)
        if self._closing:
            self._end()
        elif isinstance(error, PERMANENT_ERRORS):
            self._fail(error)
        else:
            self._after(self._connect)

    def _after(self, step: Callable[[], None]) -> None:
        self._failures += 1
        delay = backoff(self._failures)
        log.log(  # one line when it breaks, one when it is back, and the rest for who asks
            logging.WARNING if self._is_news else logging.DEBUG,
            "%s: %s; next try in %.1f s", self.purpose, self.error, delay,
        )  # fmt: skip
        self._is_news = False
        self._later(delay, step)

    def _lose_channel(self, error: MousetrapError) -> None:
        channel, self._channel = self._channel, None
        if not self._closing:  # the end that was asked for is no error, and hides none
            self.error = error
        if self.is_open:
            if clock.monotonic() - self._opened > STABLE_AFTER:
                self._failures = 0
            self._set_state("connecting")
        if channel is not None:
            self._session.lost(error)

    def _fail(self, error: MousetrapError) -> None:
        self.error, self._closing = error, True
        self._set_state("failed")
        self._session.failed(error)
        self._close()

    def _blocked(self, is_blocked: bool, reason: str = "") -> None:
        log.warning("%s is %s", self.purpose,
                    f"blocked: the broker is {reason} (an alarm) and takes no messages until that "
                    f"is over; what is sent waits. Drain or purge queues, or give it more: "
                    f"rabbitmqctl status" if is_blocked else "no longer blocked")  # fmt: skip
        self.alarm = reason
        if self.is_open:
            self._set_state("blocked" if is_blocked else "open")

    def _close(self, timeout: float = 1.0) -> None:
        self._closing = True
        if self._connection is None or self._connection.is_closed:
            self._end()
        elif not self._connection.is_closing:
            self._connection.close()  # one that only opens, too; its callback ends it
            self._later(timeout, self._end)  # should there be no answer

    def _set_state(self, state: ConnectionState) -> None:
        self.state = state
        self._changed.notify_all()

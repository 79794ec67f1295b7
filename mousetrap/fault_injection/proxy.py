"""A TCP proxy on loopback that parses AMQP and injects faults, at once or at a protocol step.

`cut`, `hold`, `refuse`, `delay` and `slice` act at once. `at` waits for a step of the protocol, as
the third ack that a client sends, and acts just before or just after it has passed. So a fault
happens at the same critical point each time, and the tested code needs no hook for it. Prototyped
in ``notebooks/06_bad_day.ipynb``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mousetrap.fault_injection.frames import (
    COMMAND_NAMES,
    Command,
    CommandParser,
    channel_max,
    channel_open,
    connection_name,
    with_channel,
)
from mousetrap.runtime import clock, threads
from mousetrap.settings import Settings

Direction = Literal["to broker", "from broker"]
When = Literal["before", "after"]

CONNECT_TIMEOUT = 10.0  # seconds to reach the broker

# commands that are read in passing, to know the names of connections and which of them consume
_RECORDED = {
    "to broker": {"Connection.StartOk", "Connection.TuneOk"},
    "from broker": {"Connection.OpenOk", "Channel.OpenOk", "Basic.ConsumeOk", "Basic.CancelOk",
                    "Basic.Cancel"},
}  # fmt: skip


class Link:
    """A connection of a client to the proxy, and the one from the proxy to the broker."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client, self.broker = client, broker
        self.is_closed = threads.Event()
        self.name = ""  # as the client calls it: "mousetrap worker start_fetch host:pid"
        self.consumers_on: Counter[int] = Counter()  # channel -> how many at present
        self.channel_max = 0
        self.replay_channel = 0  # the channel on which messages are sent again; 0: none so far

    @property
    def consumers(self) -> int:
        """How many channels consume. A change of the prefetch begins a second consumer on one."""
        return sum(number > 0 for number in list(self.consumers_on.values()))

    def reset(self, *, gently: socket.socket | None = None) -> None:
        """Close it by RST on both sides.

        The socket *gently* is closed by FIN instead, so its peer can read what it was sent.
        """
        self.is_closed.set()
        for end in (self.client, self.broker):
            with contextlib.suppress(OSError):
                if end is not gently:  # linger of zero: close sends RST instead of FIN
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)
                else:
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


Match = Callable[[Link, Command], bool]


@dataclass(eq=False)
class Trigger:
    """A step of the protocol at which the proxy acts, once; see `Proxy.at`."""

    name: str  # of a method, as in "Basic.Ack"
    direction: Direction
    when: When
    number: int  # act at the number-th match from now on, from 1
    action: Callable[[], object] | None = None  # None: the connection is reset
    matches: Match | None = None  # which commands of that name count; None: all
    on_reached: Callable[[Link], object] | None = None  # called before the action
    is_replay: bool = False  # the action is to send the message once more
    triggered: threads.Event = field(default_factory=threads.Event, repr=False)
    at: float = 0.0  # seconds since the epoch; when it was triggered

    def wait(self, timeout: float = 10.0) -> None:
        """Return when it was triggered.

        Raises:
            TimeoutError: it was not triggered within *timeout* seconds; the test proves nothing.
        """
        if not self.triggered.wait(timeout):
            raise TimeoutError(
                f"no {self.name} passed {self.direction} within {timeout:g} s ({self.number} to "
                f"go), so this fault did not happen: let more messages pass"
            )


class Proxy:
    """Forwards what clients and broker send, and injects faults on request.

    Clients that use `settings` connect through it. It listens on 127.0.0.1 only, and stops at the
    end of its ``with`` block or of its process.

    Threads: every method from any thread; the action of a trigger runs on a thread of the proxy.
    """

    def __init__(self, settings: Settings) -> None:
        self._owner = os.getpid()
        self._target = (settings.host, settings.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: set[Link] = set()
        self._lock = threads.Lock()  # guards links and triggers
        self._triggers: list[Trigger] = []
        self._held: set[Direction] = set()
        self._refusing = threads.Event()
        self._delay = 0.0  # seconds
        self._slice = 0  # bytes; 0: whole commands
        self.connections = 0  # that clients have opened so far
        self._changed = threads.Condition()
        self.opened: Counter[str] = Counter()  # "connections" and "consumers" so far
        self.on_opened: Callable[[], object] = lambda: None  # called when one more was opened
        self.settings = settings.replace(host="127.0.0.1", port=self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threads.Thread(target=self._accept, name="mousetrap-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._owner:  # a forked child: the sockets are the parent's, too
            return
        self._refusing.set()
        with contextlib.suppress(OSError):  # close alone does not wake a thread in accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # ---- at once -------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset all connections (RST in both directions); return how many there were."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.reset()
        return len(links)

    def hold(self, *directions: Direction) -> None:
        """Discard what arrives from now on (default: from the broker); both: a half-open link."""
        self._held = set(directions or ("from broker",))

    def release(self) -> None:
        """Forward again. What was discarded is lost."""
        self._held = set()

    def delay(self, seconds: float) -> None:
        """Forward everything *seconds* later, in each direction; 0 ends it."""
        self._delay = seconds

    def slice(self, size: int) -> None:
        """Forward at most *size* bytes at a time, as a bad network may; 0 ends it."""
        self._slice = size

    def refuse(self) -> None:
        """Close every new connection at once."""
        self._refusing.set()

    def accept(self) -> None:
        """Accept new connections again."""
        self._refusing.clear()

    def wait_for_connections(self, number: int, timeout: float = 10.0) -> None:
        """Return when clients have opened *number* connections since the start.

        Raises:
            TimeoutError: there were fewer within *timeout* seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.connections >= number, timeout):
                raise TimeoutError(
                    f"{self.connections} of {number} connections in {timeout:g} s: wait longer"
                )

    def links(self) -> list[Link]:
        """Return the connections that are open now."""
        with self._lock:
            return list(self._links)

    # ---- at a step of the protocol -------------------------------------------------------------

    def at(
        self,
        name: str,
        direction: Direction = "to broker",
        when: When = "before",
        *,
        number: int = 1,
        action: Callable[[], object] | None = None,
        matches: Match | None = None,
        on_reached: Callable[[Link], object] | None = None,
    ) -> Trigger:
        """Do *action* at the *number*-th method *name* from now on; by default reset that link.

        *before*: the method is not forwarded if the link is reset. *after*: it was forwarded, with
        all of its content. Methods of all connections count, if *matches* accepts them. A confirm
        is a ``Basic.Ack`` from the broker. *on_reached* is called first, with the link.

        Raises:
            ValueError: there is no such method.
        """
        if name not in COMMAND_NAMES:
            raise ValueError(f"{name!r} is no method of AMQP 0-9-1, such as 'Basic.Ack'")
        return self._add(Trigger(name, direction, when, number, action, matches, on_reached))

    def replay(
        self,
        *,
        number: int = 1,
        matches: Match | None = None,
        on_reached: Callable[[Link], object] | None = None,
    ) -> Trigger:
        """Send the *number*-th message that is published from now on once more, byte for byte.

        The copy uses an extra channel on the same connection, and the client does not see what the
        broker sends on it: on its own channel, one more confirm would be taken for the confirm of
        its next message.
        """
        trigger = Trigger("Basic.Publish", "to broker", "after", number, None, matches, on_reached)
        trigger.is_replay = True
        return self._add(trigger)

    def _add(self, trigger: Trigger) -> Trigger:
        with self._lock:
            self._triggers.append(trigger)
        return trigger

    def forget(self, trigger: Trigger) -> None:
        """Remove *trigger*, unless it was triggered."""
        with self._lock, contextlib.suppress(ValueError):
            self._triggers.remove(trigger)

    # ---- threads -------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._changed.notify_all()
            if self._refusing.is_set():
                client.close()
                continue
            try:
                broker = socket.create_connection(self._target, timeout=CONNECT_TIMEOUT)
            except OSError:  # the broker is away, so the client must see that
                client.close()
                continue
            broker.settimeout(None)
            for end in (client, broker):  # a proxy that waits to fill a packet costs 40 ms a call
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, broker)
            with self._lock:
                self._links.add(link)
            for direction in ("to broker", "from broker"):
                forwarder = _Forwarder(self, link, direction)
                for target in (forwarder.read, forwarder.write):
                    threads.Thread(target=target, name="mousetrap-proxy", daemon=True).start()

    def _record(self, link: Link, command: Command) -> None:
        """Record what *command* says about *link*: its name, its channels, its consumers."""
        if command.name == "Connection.StartOk":
            link.name = connection_name(command)
        elif command.name == "Connection.TuneOk":
            link.channel_max = channel_max(command)
        elif command.name == "Channel.OpenOk":  # consumers of an earlier channel are gone
            link.consumers_on[command.channel] = 0
        elif command.name in ("Connection.OpenOk", "Basic.ConsumeOk"):
            is_consumer = command.name == "Basic.ConsumeOk"
            link.consumers_on[command.channel] += is_consumer
            if link.consumers_on[command.channel] > 1:
                return
            with self._lock:
                self.opened["consumers" if is_consumer else "connections"] += 1
            self.on_opened()
        else:  # cancelled, by the client or by the broker
            link.consumers_on[command.channel] -= 1

    def _reached(
        self, link: Link, command: Command, direction: Direction, when: When
    ) -> list[Trigger]:
        """Count *command*; return the triggers that it has reached."""
        if not self._triggers:
            return []
        reached = []
        with self._lock:
            for trigger in list(self._triggers):
                step = (trigger.name, trigger.direction, trigger.when)
                if step == (command.name, direction, when) and (
                    trigger.matches is None or trigger.matches(link, command)
                ):
                    trigger.number -= 1
                    if trigger.number == 0:
                        self._triggers.remove(trigger)
                        reached.append(trigger)
        return reached

    def _drop(self, link: Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Forwarder:
    """One direction of one link: `read` parses what arrives, `write` forwards it when it is due."""

    def __init__(self, proxy: Proxy, link: Link, direction: Direction) -> None:
        self._proxy, self._link, self._direction = proxy, link, direction
        ends = (link.client, link.broker)
        self._source, self._sink = ends if direction == "to broker" else ends[::-1]
        self._parser = CommandParser(is_client=direction == "to broker")
        self._commands: threads.SimpleQueue[tuple[float, Command] | None] = threads.SimpleQueue()

    def read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._source.recv(65_536):
                now = clock.monotonic()
                for command in self._parser.feed(data):
                    self._commands.put((now, command))
        if incomplete := self._parser.incomplete():
            self._commands.put((clock.monotonic(), Command("", incomplete)))
        self._commands.put(None)

    def write(self) -> None:
        proxy, link = self._proxy, self._link
        with contextlib.suppress(OSError):
            while (item := self._commands.get()) is not None and not link.is_closed.is_set():
                arrived, command = item
                if proxy._delay:
                    link.is_closed.wait(max(0.0, arrived + proxy._delay - clock.monotonic()))
                if self._act(command, "before"):
                    return
                if self._direction in proxy._held or self._is_answer_to_replay(command):
                    continue
                if command.name in _RECORDED[self._direction]:
                    proxy._record(link, command)
                self._send(command.data)
                if self._act(command, "after"):
                    return
        proxy._drop(link)
        for end in (self._sink, self._source):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _send(self, data: bytes) -> None:
        size = self._proxy._slice or len(data) or 1
        for start in range(0, len(data), size):
            self._sink.sendall(data[start : start + size])

    def _is_answer_to_replay(self, command: Command) -> bool:
        """Return whether *command* belongs to the extra channel, which the client must not see."""
        channel = self._link.replay_channel
        return self._direction == "from broker" and channel > 0 and command.channel == channel

    def _act(self, command: Command, when: When) -> bool:
        """Do what the triggers say that *command* has reached; return whether the link is gone."""
        is_cut = False
        for trigger in self._proxy._reached(self._link, command, self._direction, when):
            if trigger.on_reached is not None:
                trigger.on_reached(self._link)
            if trigger.is_replay:
                self._replay(command)
            elif trigger.action is None:
                self._proxy._drop(self._link)
                self._link.reset(gently=self._sink if when == "after" else None)
                is_cut = True
            else:
                trigger.action()
            trigger.at = clock.time()
            trigger.triggered.set()
        return is_cut

    def _replay(self, command: Command) -> None:
        link = self._link
        if not link.replay_channel:
            link.replay_channel = link.channel_max  # clients count from 1
            self._send(channel_open(link.replay_channel))
        self._send(with_channel(command.data, link.replay_channel))

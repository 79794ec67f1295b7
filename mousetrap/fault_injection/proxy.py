"""A TCP proxy on loopback that reads AMQP: what a bad network does, on demand and at a given step.

`cut`, `hold`, `refuse`, `delay` and `slice` act at once. `at` waits for a step of the protocol, say
the third ack that a client sends, and acts just before or just after it has passed: so a fault
comes where it hurts, each time, without a hook in what is tested. Prototyped in
``notebooks/06_bad_day.ipynb``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mousetrap.fault_injection.frames import (
    NAMES,
    Frames,
    Piece,
    connection_name,
    highest_channel,
    moved,
    opening,
)
from mousetrap.runtime import clock, threads
from mousetrap.settings import Settings

Direction = Literal["to broker", "from broker"]
When = Literal["before", "after"]

# what is read in passing, to know who is who and who consumes
_NOTED = {"Connection.StartOk", "Connection.TuneOk", "Connection.OpenOk", "Basic.ConsumeOk",
          "Basic.CancelOk", "Basic.Cancel"}  # fmt: skip


class Link:
    """One connection of a client and its continuation to the broker."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client, self.broker = client, broker
        self.is_over = threads.Event()
        self.name = ""  # as the client calls it: "mousetrap worker start_fetch host:pid"
        self.consumers = 0  # that it has now
        self.highest = 0  # channel
        self.ghost = 0  # the channel on which messages are sent once more; 0: none so far

    def reset(self, *, replace: socket.socket | None = None) -> None:
        """End it by RST on both sides; *but* gets FIN, and so has time to read what it was sent."""
        self.is_over.set()
        for end in (self.client, self.broker):
            with contextlib.suppress(OSError):
                if end is not replace:  # linger of zero: close sends RST instead of FIN
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)
                else:
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


Match = Callable[[Link, Piece], bool]


@dataclass(eq=False)
class Step:
    """A point of the protocol at which something happens, once; see `Proxy.at`."""

    name: str  # of a method, as in "Basic.Ack"
    direction: Direction
    when: When
    number: int  # which one from now on, from 1
    action: Callable[[], object] | None = None  # None: the connection is cut
    matches: Match | None = None  # which of that name count; None: all
    told: Callable[[Link], object] | None = None  # called first, when it happens
    is_replay: bool = False  # instead of all that, the message is sent once more
    triggered: threads.Event = field(default_factory=threads.Event, repr=False)
    at: float = 0.0  # seconds since the epoch; when it happened

    def wait(self, timeout: float = 10.0) -> None:
        """Return when it has happened.

        Raises:
            TimeoutError: it has not, *timeout* seconds long: what was shown with it is void.
        """
        if not self.triggered.wait(timeout):
            raise TimeoutError(
                f"no {self.name} passed {self.direction} within {timeout:g} s ({self.number} to "
                f"go), so this fault did not happen: let more messages pass"
            )


class Proxy:
    """Forwards what clients and broker say to each other, until it is told otherwise.

    Clients that use `settings` go through it. It listens on 127.0.0.1 only and ends with its
    ``with`` block, or with its process.

    Threads: every method from any thread; a step's action runs on a thread of the proxy.
    """

    def __init__(self, settings: Settings) -> None:
        self._target = (settings.host, settings.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: set[Link] = set()
        self._lock = threads.Lock()  # guards links and steps
        self._steps: list[Step] = []
        self._held: set[Direction] = set()
        self._refusing = threads.Event()
        self._delay = 0.0  # seconds
        self._slice = 0  # bytes; 0: whole pieces
        self.connections = 0  # how many were asked for so far
        self._changed = threads.Condition()
        self.begun: Counter[str] = Counter()  # "connections" and "consumers" so far
        self.on_begun: Callable[[], object] = lambda: None  # called when there is one more
        self.settings = settings.replace(host="127.0.0.1", port=self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threads.Thread(target=self._accept, name="mousetrap-proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
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
        """Swallow what comes from now on (default: from the broker); both is a half-open link."""
        self._held = set(directions or ("from broker",))

    def release(self) -> None:
        """Swallow no more. What was swallowed is lost."""
        self._held = set()

    def delay(self, seconds: float) -> None:
        """Let everything arrive *seconds* later, in each direction; 0 ends it."""
        self._delay = seconds

    def slice(self, size: int) -> None:
        """Pass on at most *size* bytes at a time, as a bad network may; 0 ends it."""
        self._slice = size

    def refuse(self) -> None:
        """Close every new connection at once."""
        self._refusing.set()

    def accept(self) -> None:
        """Take new connections again."""
        self._refusing.clear()

    def wait_for_connections(self, number: int, timeout: float = 10.0) -> None:
        """Return when *number* connections have been asked for since the start.

        Raises:
            TimeoutError: there were fewer in *timeout* seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.connections >= number, timeout):
                raise TimeoutError(f"{self.connections} connections in {timeout:g} s, not {number}")

    def links(self) -> list[Link]:
        """The connections that are open now."""
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
        told: Callable[[Link], object] | None = None,
    ) -> Step:
        """Do *action* when the *number*-th method *name* comes by; by default that link is cut.

        *before*: it does not pass if the link is cut. *after*: it has been passed on whole, with
        its content. Counts over all connections, from now on, those that *matches* says yes to. A
        confirm is a ``Basic.Ack`` from the broker. *told* is called first, with the connection.

        Raises:
            ValueError: there is no such method.
        """
        if name not in NAMES:
            raise ValueError(f"{name!r} is no method of AMQP 0-9-1, such as 'Basic.Ack'")
        return self._plan(Step(name, direction, when, number, action, matches, told))

    def replay(
        self,
        *,
        number: int = 1,
        matches: Match | None = None,
        told: Callable[[Link], object] | None = None,
    ) -> Step:
        """Send the *number*-th message that is published from now on once more, byte for byte.

        The copy takes a channel of ours on the same connection, whose client hears nothing of it:
        on its own channel one more confirm would be taken for that of its next message.
        """
        return self._plan(
            Step("Basic.Publish", "to broker", "after", number, None, matches, told, is_replay=True)
        )

    def _plan(self, step: Step) -> Step:
        with self._lock:
            self._steps.append(step)
        return step

    def forget(self, step: Step) -> None:
        """Let *step* not happen any more, if it has not."""
        with self._lock, contextlib.suppress(ValueError):
            self._steps.remove(step)

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
                broker = socket.create_connection(self._target, timeout=10)
            except OSError:  # the broker is away: so are we
                client.close()
                continue
            broker.settimeout(None)
            for end in (client, broker):  # a proxy that waits to fill a packet costs 40 ms a call
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, broker)
            with self._lock:
                self._links.add(link)
            for direction in ("to broker", "from broker"):
                pump = _Pump(self, link, direction)
                threads.Thread(target=pump.read, name="mousetrap-proxy", daemon=True).start()
                threads.Thread(target=pump.write, name="mousetrap-proxy", daemon=True).start()

    def _note(self, link: Link, piece: Piece) -> None:
        """Remember what the client on *link* is called, and whether it consumes."""
        if piece.name == "Connection.StartOk":
            link.name = connection_name(piece)
        elif piece.name == "Connection.TuneOk":
            link.highest = highest_channel(piece)
        elif piece.name in ("Connection.OpenOk", "Basic.ConsumeOk"):
            is_consumer = piece.name == "Basic.ConsumeOk"
            link.consumers += is_consumer
            with self._lock:
                self.begun["consumers" if is_consumer else "connections"] += 1
            self.on_begun()
        else:  # cancelled, by the client or by the broker
            link.consumers -= 1

    def _due(self, link: Link, piece: Piece, direction: Direction, when: When) -> list[Step]:
        """Count *piece*; return the steps that are reached with it."""
        if not self._steps:
            return []
        reached = []
        with self._lock:
            for step in list(self._steps):
                is_it = (step.name, step.direction, step.when) == (piece.name, direction, when)
                if is_it and (step.matches is None or step.matches(link, piece)):
                    step.number -= 1
                    if step.number == 0:
                        self._steps.remove(step)
                        reached.append(step)
        return reached

    def _drop(self, link: Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Pump:
    """One direction of one link: `read` takes it apart, `write` passes it on in its time."""

    def __init__(self, proxy: Proxy, link: Link, direction: Direction) -> None:
        self._proxy, self._link, self._direction = proxy, link, direction
        ends = (link.client, link.broker)
        self._source, self._sink = ends if direction == "to broker" else ends[::-1]
        self._frames = Frames(is_client=direction == "to broker")
        self._pieces: threads.SimpleQueue[tuple[float, Piece] | None] = threads.SimpleQueue()

    def read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._source.recv(65_536):
                now = clock.monotonic()
                for piece in self._frames.feed(data):
                    self._pieces.put((now, piece))
        if rest := self._frames.rest():
            self._pieces.put((clock.monotonic(), Piece("", rest)))
        self._pieces.put(None)

    def write(self) -> None:
        proxy, link = self._proxy, self._link
        with contextlib.suppress(OSError):
            while (item := self._pieces.get()) is not None and not link.is_over.is_set():
                came, piece = item
                if proxy._delay:
                    link.is_over.wait(max(0.0, came + proxy._delay - clock.monotonic()))
                if self._act(piece, "before"):
                    return
                if self._direction in proxy._held or self._is_for_ghost(piece):
                    continue
                if piece.name in _NOTED:
                    proxy._note(link, piece)
                self._send(piece.data)
                if self._act(piece, "after"):
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

    def _is_for_ghost(self, piece: Piece) -> bool:
        """Say whether the client must not see *piece*: it belongs to the channel that is ours."""
        ghost = self._link.ghost
        return self._direction == "from broker" and ghost > 0 and piece.channel == ghost

    def _act(self, piece: Piece, when: When) -> bool:
        """Do what is due; True if the link is gone with it."""
        is_cut = False
        for step in self._proxy._due(self._link, piece, self._direction, when):
            if step.told is not None:
                step.told(self._link)
            if step.is_replay:
                self._replay(piece)
            elif step.action is None:
                self._proxy._drop(self._link)
                self._link.reset(replace=self._sink if when == "after" else None)
                is_cut = True
            else:
                step.action()
            step.at = clock.time()
            step.triggered.set()
        return is_cut

    def _replay(self, piece: Piece) -> None:
        link = self._link
        if not link.ghost:
            link.ghost = link.highest  # clients count from 1
            self._send(opening(link.ghost))
        self._send(moved(piece.data, link.ghost))
